"""The bit-sliced sum as a Triton kernel: one program takes one cue and a block of 32-bit words, counters stay in registers.

Two rows enter at a time through a full adder, the carry ripples through eleven half adders: some 27 logic operations for 64 additions of
bits. Bound by reading active * neurons / 8 bytes a cue. `TRITON_INTERPRET=1` runs it on a CPU, slowly: so it is tested without a GPU.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from ndml.btsp.kernels.ports import WORD_BITS

# By name: type checkers would want it installed, and it exists for Linux alone.
triton: Any = import_module("triton")
tl: Any = import_module("triton.language")

_BLOCK = 128
"""32-bit words of a program: 4,096 neurons, one word a thread of four warps."""


@triton.jit  # type: ignore[untyped-decorator]
def _row(synapses: Any, code: Any, words: Any, w: Any):  # type: ignore[no-untyped-def]
    unit = tl.load(code)
    row = tl.load(synapses + tl.maximum(unit, 0).to(tl.int64) * words + w, mask=w < words, other=0)
    return tl.where(unit >= 0, row, 0)


@triton.jit  # type: ignore[untyped-decorator]
def _half(plane: Any, carry: Any):  # type: ignore[no-untyped-def]
    return plane ^ carry, plane & carry


@triton.jit  # type: ignore[untyped-decorator]
def _sums(synapses: Any, codes: Any, out: Any, active: Any, words: Any, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    query = tl.program_id(0).to(tl.int64)
    w = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    mine = codes + query * active
    zero = tl.zeros([BLOCK], tl.int32)
    p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11 = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    for i in range(0, active, 2):
        a = _row(synapses, mine + i, words, w)
        b = _row(synapses, mine + i + 1, words, w)
        either = a ^ b
        carry = (a & b) | (either & p0)
        p0 = either ^ p0
        p1, carry = _half(p1, carry)
        p2, carry = _half(p2, carry)
        p3, carry = _half(p3, carry)
        p4, carry = _half(p4, carry)
        p5, carry = _half(p5, carry)
        p6, carry = _half(p6, carry)
        p7, carry = _half(p7, carry)
        p8, carry = _half(p8, carry)
        p9, carry = _half(p9, carry)
        p10, carry = _half(p10, carry)
        p11, carry = _half(p11, carry)
    for bit in tl.static_range(32):
        low = ((p0 >> bit) & 1) + ((p1 >> bit) & 1) * 2 + ((p2 >> bit) & 1) * 4 + ((p3 >> bit) & 1) * 8
        mid = ((p4 >> bit) & 1) * 16 + ((p5 >> bit) & 1) * 32 + ((p6 >> bit) & 1) * 64 + ((p7 >> bit) & 1) * 128
        high = ((p8 >> bit) & 1) * 256 + ((p9 >> bit) & 1) * 512 + ((p10 >> bit) & 1) * 1024 + ((p11 >> bit) & 1) * 2048
        tl.store(out + (query * words + w) * 32 + bit, low + mid + high, mask=w < words)


def sums(synapses: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """int64 synapses [units, words] and int32 codes [n, active], -1 for silent, to int32 [n, 64 words], all on one device."""
    halves = synapses.view(torch.int32)  # [units, 2 words]; the low half first on every machine that has a GPU
    words = halves.shape[1]
    found = torch.empty((len(codes), words * (WORD_BITS // 2)), dtype=torch.int32, device=synapses.device)
    codes = torch.nn.functional.pad(codes, (0, codes.shape[1] % 2), value=-1)  # rows go in two by two
    if len(codes):
        _sums[(len(codes), triton.cdiv(words, _BLOCK))](halves, codes, found, codes.shape[1], words, BLOCK=_BLOCK)
    return found
