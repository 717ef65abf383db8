"""Arrays that grow with an owner's rows. Pure numpy."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

_GROWTH = 1.5


def grown(array: NDArray[T], used: int, needed: int) -> NDArray[T]:
    """`array` if it has `needed` rows, else a larger one with its first `used`: half again, so that appends stay amortised."""
    if needed <= len(array):
        return array
    larger = np.empty((max(needed, int(used * _GROWTH)), *array.shape[1:]), array.dtype)
    larger[:used] = array[:used]
    return larger
