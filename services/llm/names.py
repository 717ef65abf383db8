"""Which model a request may ask for."""

from __future__ import annotations

from ndml.errors import ModelUnknown


def check_model(asked: str, served: str, configured: str) -> None:
    """served: the model's id; configured: how the settings name it. Raises ModelUnknown for a name that is neither, nor empty."""
    if asked and asked not in (served, configured):
        raise ModelUnknown(f"model {asked!r} is not served here: leave it empty, or name {served!r}", field="model")
