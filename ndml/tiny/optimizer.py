"""Muon for matrices: momentum whose directions all get one length. torch's own works in bfloat16, thirty times slower on most CPUs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_FACTORS = (3.4445, -4.7750, 2.0315)  # of the quintic that drives singular values towards one (K. Jordan, Muon)
_ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """For parameters of two dimensions. A step has the size that AdamW's would have at the same rate."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.0) -> None:
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; matrices of one shape go through one batched product."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                shapes.setdefault(matrix.shape, []).append(matrix)
            for matrices in shapes.values():
                self._move(matrices, group["lr"], group["momentum"], group["decay"])

    def _move(self, matrices: list[Tensor], rate: float, momentum: float, decay: float) -> None:
        ahead = []
        for matrix in matrices:
            if matrix.grad is None:
                raise ValueError(f"a matrix of shape {tuple(matrix.shape)} has no gradient: give Muon only what the loss depends on")
            state = self.state[matrix]
            if not state:
                state["momentum"] = torch.zeros_like(matrix)
            state["momentum"].lerp_(matrix.grad, 1 - momentum)
            ahead.append(matrix.grad.lerp(state["momentum"], momentum))
        moves = even_out(torch.stack(ahead)) * (0.2 * max(matrices[0].shape) ** 0.5)
        for matrix, move in zip(matrices, moves, strict=True):
            matrix.mul_(1 - rate * decay).sub_(move, alpha=rate)


def even_out(matrices: Tensor) -> Tensor:
    """(N, A, B): the same directions, singular values all near one."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    a, b, c = _FACTORS
    for _ in range(_ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    even: Tensor = x.mT if tall else x
    return even
