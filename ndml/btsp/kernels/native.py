"""The kernels of native.c, loaded by ctypes: the library knows nothing of Python, so every call lets go of the interpreter's lock."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

from ndml.btsp.kernels.ports import I16, I32, U16, U64, WORD_BITS

_PLANES = 12
_LANES = 16
_ARRAY, _LONG, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_SIGNATURES = {
    "btsp_encode": (_ARRAY, _LONG, _INT, _ARRAY, _INT, _INT, _ARRAY, _ARRAY),
    "btsp_sums": (_ARRAY, _LONG, _ARRAY, _LONG, _INT, _ARRAY, _ARRAY, _ARRAY),
    "btsp_strongest": (_ARRAY, _LONG, _ARRAY, _LONG, _INT, _INT, _ARRAY, _ARRAY, _ARRAY, _ARRAY),
    "btsp_recruit": (_ARRAY, _LONG, _ARRAY, _LONG, _INT, _INT, _ARRAY, _ARRAY),
    "btsp_store": (_ARRAY, _LONG, _ARRAY, _LONG, _INT, _ARRAY, _INT, _ARRAY, _INT, _INT),
}


@lru_cache(maxsize=1)
def library() -> Any:
    """The loaded library, or None where it was not built."""
    built = [path for suffix in EXTENSION_SUFFIXES if (path := Path(__file__).with_name(f"_native{suffix}")).is_file()]
    if not built:
        return None
    loaded = ctypes.CDLL(str(built[0]))
    for name, arguments in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, None
    return loaded


class NativeKernels:
    """`Kernels` in C. Stateless, so that threads may share it; a call runs without the interpreter's lock."""

    name = "native"

    def __init__(self, loaded: Any) -> None:
        """`loaded` is what `library` gave."""
        self._c = loaded

    def zeros(self, rows: int, words: int) -> U64:
        return np.zeros((rows, words), np.uint64)

    def ones(self, synapses: U64) -> int:
        return int(np.bitwise_count(synapses).sum(dtype=np.int64))

    def encode(self, vectors: I16, signs: I16, half: int) -> I32:
        vectors = np.ascontiguousarray(vectors)
        (n, width), rounds = vectors.shape, len(signs)
        codes = np.empty((n, rounds * width // half), np.int32)
        scratch = np.empty(width * _LANES, np.int16)
        lanes = _in_lanes(signs)  # named: an address alone does not keep an array alive
        self._c.btsp_encode(vectors.ctypes.data, n, width, lanes.ctypes.data, rounds, half, scratch.ctypes.data, codes.ctypes.data)
        return codes

    def sums(self, synapses: U64, codes: I32) -> U16:
        codes, words = np.ascontiguousarray(codes), synapses.shape[1]
        found = np.empty((len(codes), words * WORD_BITS), np.uint16)
        scratch = np.zeros((_PLANES + 1, words), np.uint64)  # the last row stays zero
        self._c.btsp_sums(
            synapses.ctypes.data, words, codes.ctypes.data, *codes.shape, scratch[-1].ctypes.data, scratch.ctypes.data, found.ctypes.data
        )
        return found

    def strongest(self, synapses: U64, codes: I32, k: int) -> tuple[I32, I32]:
        codes, words = np.ascontiguousarray(codes), synapses.shape[1]
        neurons, found = np.empty((2, len(codes), k), np.int32)
        scratch = np.zeros((_PLANES + 3, words), np.uint64)  # the last row stays zero
        self._c.btsp_strongest(
            *(synapses.ctypes.data, words, codes.ctypes.data, *codes.shape, k),
            *(scratch[-1].ctypes.data, scratch.ctypes.data, neurons.ctypes.data, found.ctypes.data),
        )
        return neurons, found

    def recruit(self, keys: U64, load: I32, plateaus: int, choices: int) -> tuple[I32, I32]:
        keys = np.ascontiguousarray(keys)
        up, down = np.empty((2, len(keys), plateaus), np.int32)
        self._c.btsp_recruit(keys.ctypes.data, len(keys), load.ctypes.data, len(load), plateaus, choices, up.ctypes.data, down.ctypes.data)
        return up, down

    def store(self, synapses: U64, codes: I32, up: I32, down: I32, flip: bool) -> None:
        codes, up, down = np.ascontiguousarray(codes), np.ascontiguousarray(up), np.ascontiguousarray(down)
        self._c.btsp_store(
            *(synapses.ctypes.data, synapses.shape[1], codes.ctypes.data, *codes.shape),
            *(up.ctypes.data, up.shape[1], down.ctypes.data, down.shape[1], int(flip)),
        )


def _in_lanes(signs: I16) -> I16:
    """Signs [rounds, width] as [groups, width, 16]: sixteen rounds side by side, the last group filled up with ones."""
    rounds, width = signs.shape
    groups = -(-rounds // _LANES)
    filled = np.ones((groups * _LANES, width), np.int16)
    filled[:rounds] = signs
    return np.ascontiguousarray(filled.reshape(groups, _LANES, width).transpose(0, 2, 1))
