"""Checks of numbers that come from outside, shared by the cores of `ndml.btsp`. Each raises FieldInvalid with the field and the fix."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ndml.errors import FieldInvalid

F64 = NDArray[np.float64]


def in_range(value: float, field: str, low: float, high: float = math.inf) -> float:
    """`value` if low <= value <= high, NaN never."""
    if not low <= value <= high:
        raise FieldInvalid(f"{field} is {value!r}: give a number from {low:g} to {high:g}", field=field)
    return value


def above_zero(value: float, field: str) -> float:
    """`value` if it is finite and greater than 0."""
    if not 0 < value < math.inf:
        raise FieldInvalid(f"{field} is {value!r}: give a finite number greater than 0", field=field)
    return value


def numbers(values: ArrayLike, field: str, low: float = -math.inf, high: float = math.inf) -> F64:
    """`values` as float64, every one finite and from `low` to `high`; the error names the first that is not."""
    found = np.asarray(values, dtype=np.float64)
    good = np.isfinite(found) & (found >= low) & (found <= high)
    if not good.all():
        at = int(np.flatnonzero(~good.reshape(-1))[0])
        where = field if found.ndim == 0 else f"{field}[{at}]"
        raise FieldInvalid(f"{where} is {found.reshape(-1)[at]!r}: give a finite number from {low:g} to {high:g}", field=where)
    return found
