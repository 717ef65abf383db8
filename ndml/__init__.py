"""NDML: long-term memory for LLM applications."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`from ndml import NDMLIntegratedLLM` loads torch; `import ndml` does not."""
    if name == "NDMLIntegratedLLM":
        try:
            return import_module("ndml.integrated").NDMLIntegratedLLM
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "ndml":
                raise
            raise ImportError(f"{name} needs {error.name}, which is not installed: pip install 'ndml[integrated]'") from error
    raise AttributeError(f"module 'ndml' has no attribute {name!r}")
