"""Run NDML on one machine: `Suite` starts every service as a process on loopback, `TraceSink` takes their traces.

Needs every service's extra installed: `pip install ndml[gateway,memory-node,consensus,llm]`.
"""

from ndml.runtime.spans import Span, SpanNode, render, tree
from ndml.testing.layout import ProcessSpec, SuiteOptions
from ndml.testing.otlp import TraceSink
from ndml.testing.ports import free_ports
from ndml.testing.suite import Suite, SuiteError
from ndml.testing.trace_door import TraceDoor

__all__ = [
    "ProcessSpec",
    "Span",
    "SpanNode",
    "Suite",
    "SuiteError",
    "SuiteOptions",
    "TraceDoor",
    "TraceSink",
    "free_ports",
    "render",
    "tree",
]
