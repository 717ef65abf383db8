"""`relax` on tensors, for many networks on a GPU. torch is imported when it is asked for, never with the package."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ndml.crdt.oscillator import HIGH, I64, LOW, SHIFT, SUPPLY, Relax, start


def relaxing(device: str = "cuda", *, triton: bool | None = None) -> Relax:
    """A `Relax` that runs on `device`. `triton`: by the Triton kernel, which must be installed; None: on CUDA where it is."""
    import torch

    on = torch.device(device)
    kernel = (_triton_kernel(needed=bool(triton)) if triton or (triton is None and on.type == "cuda") else None) or partial(_relax, torch)

    def call(resistive: I64, capacitive: I64, steps: int) -> tuple[I64, I64]:
        pull, push = (torch.as_tensor(np.ascontiguousarray(each), device=on) for each in (resistive, capacitive))
        last, lapse = kernel(pull, push, steps)
        return last.cpu().numpy(), lapse.cpu().numpy()

    return call


def _relax(torch: Any, pull: Any, push: Any, steps: int) -> tuple[Any, Any]:
    """Couplings [B, n, n] to (last, lapse) [B, n]. Products and sums, not matmul: CUDA has none for int64."""
    count, n, _ = pull.shape
    v = torch.as_tensor(start(n), device=pull.device).repeat(count, 1)
    charging = torch.ones_like(v, dtype=torch.bool)
    last, lapse = torch.full_like(v, -1), torch.zeros_like(v)
    pulls, pushes = pull.sum(dim=2), push.sum(dim=2)
    for step in range(steps):
        f = SUPPLY * charging - v
        together = ((pull * v[:, None, :]).sum(dim=2) - pulls * v) >> SHIFT
        apart = ((push * f[:, None, :]).sum(dim=2) - pushes * f) >> SHIFT
        v = v + ((f + together + apart) >> SHIFT)
        up = charging & (v >= HIGH)
        lapse = torch.where(up & (last >= 0), step - last, lapse)
        last = torch.where(up, step, last)
        charging = torch.where(charging, ~up, v <= LOW)
    return last, lapse


def _triton_kernel(*, needed: bool) -> Any:
    """The Triton kernel's entry, or None where Triton is neither installed nor needed."""
    try:
        from ndml.crdt.oscillator_triton import relax
    except ModuleNotFoundError as error:
        if needed or error.name is None or error.name.partition(".")[0] != "triton":
            raise
        return None
    return relax
