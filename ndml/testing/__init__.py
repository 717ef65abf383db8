"""Run NDML on one machine: `Suite` starts every service as a process on loopback, `TraceSink` takes their traces.

Needs every service's extra installed: `pip install ndml[gateway,memory-node,consensus,llm]`.
"""

from ndml.testing.layout import ProcessSpec, SuiteOptions
from ndml.testing.otlp import Span, SpanNode, TraceSink, render, tree
from ndml.testing.ports import free_ports
from ndml.testing.suite import Suite, SuiteError

__all__ = ["ProcessSpec", "Span", "SpanNode", "Suite", "SuiteError", "SuiteOptions", "TraceSink", "free_ports", "render", "tree"]
