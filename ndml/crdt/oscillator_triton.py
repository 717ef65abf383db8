"""`relax` as a Triton kernel: one launch for all steps, voltages stay in registers. `TRITON_INTERPRET=1` runs it on a CPU, slowly.

A program takes a block of networks. Every voltage is held twice, along rows and along columns of the coupling matrix, so that no step has
to turn one into the other: couplings are symmetric, and a sum over rows is what a sum over columns is.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from ndml.crdt.oscillator import HIGH, LOW, SHIFT, SUPPLY, start

# By name: type checkers would want it installed, and it exists for Linux alone.
triton: Any = import_module("triton")
tl: Any = import_module("triton.language")

_LINKS = 512
"""Links of a program: four a thread of four warps, as many 64-bit couplings of either kind as registers hold beside the voltages."""


@triton.jit  # type: ignore[untyped-decorator]
def _charging(v: Any, charging: Any, HIGH: tl.constexpr, LOW: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.where(charging == 1, (v < HIGH).to(tl.int64), (v <= LOW).to(tl.int64))


@triton.jit  # type: ignore[untyped-decorator]
def _relax(  # type: ignore[no-untyped-def]
    pull: Any,
    push: Any,
    begin: Any,
    last_out: Any,
    lapse_out: Any,
    count: Any,
    steps: Any,
    NETWORKS: tl.constexpr,
    CELLS: tl.constexpr,
    SUPPLY: tl.constexpr,
    HIGH: tl.constexpr,
    LOW: tl.constexpr,
    SHIFT: tl.constexpr,
):
    network = tl.program_id(0).to(tl.int64) * NETWORKS + tl.arange(0, NETWORKS)[:, None, None]
    row = tl.arange(0, CELLS)[None, :, None]
    column = tl.arange(0, CELLS)[None, None, :]
    links = network * CELLS * CELLS + row * CELLS + column  # [NETWORKS, CELLS, CELLS]
    there = network < count
    r = tl.load(pull + links, mask=there, other=0)
    c = tl.load(push + links, mask=there, other=0)
    own = tl.load(begin + row + network * 0)  # [NETWORKS, CELLS, 1]
    other = tl.load(begin + column + network * 0)  # [NETWORKS, 1, CELLS]
    own_on = own * 0 + 1
    other_on = other * 0 + 1
    last = own * 0 - 1
    lapse = own * 0
    for step in range(steps):
        f = own_on * SUPPLY - own
        g = other_on * SUPPLY - other
        pulled = r * (other - own)
        pushed = c * (g - f)
        # The same links seen from the other end have the other sign.
        own_moved = (tl.sum(pulled, axis=2) >> SHIFT) + (tl.sum(pushed, axis=2) >> SHIFT)
        other_moved = (tl.sum(-pulled, axis=1) >> SHIFT) + (tl.sum(-pushed, axis=1) >> SHIFT)
        own += (f + own_moved[:, :, None]) >> SHIFT
        other += (g + other_moved[:, None, :]) >> SHIFT
        up = (own_on == 1) & (own >= HIGH)
        lapse = tl.where(up & (last >= 0), step - last, lapse)
        last = tl.where(up, step, last)
        own_on = _charging(own, own_on, HIGH, LOW)
        other_on = _charging(other, other_on, HIGH, LOW)
    tl.store(last_out + network * CELLS + row, last, mask=there)
    tl.store(lapse_out + network * CELLS + row, lapse, mask=there)


def relax(pull: torch.Tensor, push: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 couplings [B, n, n], symmetric, to (last, lapse) [B, n], as `ndml.crdt.oscillator.Relax`, all on one device."""
    count, n, _ = pull.shape
    cells = triton.next_power_of_2(n)
    room = (0, cells - n, 0, cells - n)  # cells without links, whose results are cut off
    pull, push = (torch.nn.functional.pad(each, room).contiguous() for each in (pull, push))
    begin = torch.nn.functional.pad(torch.as_tensor(start(n), device=pull.device), (0, cells - n))
    last = torch.empty((count, cells), dtype=torch.int64, device=pull.device)
    lapse = torch.empty_like(last)
    networks = max(1, _LINKS // (cells * cells))
    if count:
        _relax[(triton.cdiv(count, networks),)](
            *(pull, push, begin, last, lapse, count, steps, networks, cells, SUPPLY, HIGH, LOW, SHIFT),
        )
    return last[:, :n].contiguous(), lapse[:, :n].contiguous()
