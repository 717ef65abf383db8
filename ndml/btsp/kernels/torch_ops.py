"""The kernels on tensors, for a GPU. torch is imported when a `TorchKernels` is made, never with the package.

Reads (encode, sums, strongest) run on the device for a whole batch, sums by Triton on CUDA where it is installed. Plasticity depends on the
order of the traces, so `store` goes through them one by one, some twenty microseconds of launches each; `recruit` stays on the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ndml.btsp.kernels.choose import cpu_kernels
from ndml.btsp.kernels.ports import I16, I32, U16, U64, WORD_BITS

_BLOCK_BYTES = 256 << 20
"""Largest temporary tensor: a small part of any GPU's memory, and large enough to fill it with work."""


class TorchKernels:
    """`Kernels` whose synapses are an int64 tensor; codes and results are numpy arrays."""

    def __init__(self, device: str = "cuda", *, triton: bool | None = None) -> None:
        """`triton`: sum by the Triton kernel; None: on CUDA where it is installed."""
        import torch

        self._torch: Any = torch
        self._device = torch.device(device)
        self._summing = _triton_sums(self._device.type == "cuda") if triton is None or triton else None
        self.name = "torch" if self._summing is None else "triton"
        self.recruit = cpu_kernels().recruit

    def zeros(self, rows: int, words: int) -> Any:
        return self._torch.zeros((rows, words), dtype=self._torch.int64, device=self._device)

    def ones(self, synapses: Any) -> int:
        step = max(1, _BLOCK_BYTES // (8 * synapses.shape[1]))
        blocks = (synapses[at : at + step] for at in range(0, len(synapses), step))
        return sum(int(((block >> bit) & 1).sum()) for block in blocks for bit in range(WORD_BITS))

    def encode(self, vectors: I16, signs: I16, half: int) -> I32:
        torch = self._torch
        given = torch.as_tensor(vectors, device=self._device).int()  # [n, width]
        turns = torch.as_tensor(signs, device=self._device).int()  # [rounds, width]
        places = torch.arange(half - 1, -1, -1, device=self._device)
        found = []
        for part in given.split(max(1, _BLOCK_BYTES // (4 * signs.size))):
            sums = _transform(torch, part[:, None, :] * turns).reshape(len(part), signs.size // half, half)  # [b, blocks, half]
            best = (sums.abs() * half + places).argmax(dim=2)  # no two alike: the first of equals wins
            won = sums.gather(2, best[..., None])[..., 0]
            found.append(2 * (best + half * torch.arange(sums.shape[1], device=self._device)) + (won < 0))
        codes: I32 = torch.cat(found).int().cpu().numpy()  # split gives one part at least, empty if need be
        return codes

    def sums(self, synapses: Any, codes: I32) -> U16:
        found: U16 = self._sums(synapses, codes).cpu().numpy().astype(np.uint16)
        return found

    def strongest(self, synapses: Any, codes: I32, k: int) -> tuple[I32, I32]:
        sums = self._sums(synapses, codes).long()  # [n, neurons]
        count = sums.shape[1]
        ranks = sums * count + self._torch.arange(count - 1, -1, -1, device=self._device)  # no two alike
        best = ranks.topk(k, dim=1, sorted=True).values
        return (count - 1 - best % count).int().cpu().numpy(), (best // count).int().cpu().numpy()

    def store(self, synapses: Any, codes: I32, up: I32, down: I32, flip: bool) -> None:
        for code, gained, lost in zip(codes, up, down, strict=True):
            rows = self._torch.as_tensor(code[code >= 0], device=self._device).long()
            for neuron in gained[gained >= 0].tolist():
                column, bit = synapses[rows, neuron // WORD_BITS], _bit(neuron)
                synapses[rows, neuron // WORD_BITS] = column ^ bit if flip else column | bit
            for neuron in lost[lost >= 0].tolist():
                column, bit = synapses[rows, neuron // WORD_BITS], _bit(neuron)
                synapses[rows, neuron // WORD_BITS] = column ^ bit if flip else column & ~bit

    def from_host(self, synapses: U64) -> Any:
        """Synapses that another set of kernels filled, on this device."""
        return self._torch.as_tensor(synapses.view(np.int64)).to(self._device)

    def _sums(self, synapses: Any, codes: I32) -> Any:
        """int32 [n, neurons] on the device."""
        torch = self._torch
        units = torch.as_tensor(np.ascontiguousarray(codes), device=self._device)
        if self._summing is not None:
            return self._summing(synapses, units)
        found = torch.zeros((len(codes), synapses.shape[1], WORD_BITS), dtype=torch.int32, device=self._device)
        step = max(1, _BLOCK_BYTES // (8 * max(1, codes.shape[1]) * synapses.shape[1]))
        for at in range(0, len(codes), step):
            some = units[at : at + step]
            rows = synapses[some.clamp(min=0).long()] * (some >= 0)[..., None]  # [b, active, words]
            for bit in range(WORD_BITS):
                found[at : at + step, :, bit] = ((rows >> bit) & 1).sum(dim=1)
        return found.reshape(len(codes), synapses.shape[1] * WORD_BITS)


def _bit(neuron: int) -> int:
    """The neuron's bit as a signed 64-bit number."""
    bit = 1 << neuron % WORD_BITS
    return bit - (1 << WORD_BITS) if bit >> (WORD_BITS - 1) else bit


def _transform(torch: Any, x: Any) -> Any:
    """Walsh-Hadamard transform along the last axis, a power of two."""
    width, h = x.shape[-1], 1
    while h < width:
        pairs = x.reshape(*x.shape[:-1], width // (2 * h), 2, h)
        x = torch.stack([pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]], dim=-2).reshape(x.shape)
        h *= 2
    return x


def _triton_sums(wanted: bool) -> Any:
    """The Triton kernel's entry, or None where it is not wanted or Triton is not installed."""
    if not wanted:
        return None
    try:
        from ndml.btsp.kernels.triton_ops import sums
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "triton":
            raise
        return None
    return sums
