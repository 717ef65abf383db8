"""What callers are told where a model fails, or the service ends."""

from __future__ import annotations

from ndml.errors import Draining, ModelUnavailable

_WORDS = 300  # characters of what the model said


def failed(error: Exception) -> ModelUnavailable:
    """Whatever a template, a store or a network raises is the model's, not the caller's."""
    return ModelUnavailable(f"the chat model failed: {' '.join(str(error).split())[:_WORDS]}")


def draining() -> Draining:
    return Draining("this llm service is shutting down: retry")
