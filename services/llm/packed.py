"""Linear layers whose weights lie as oneDNN's kernels read them.

torch keeps weights row by row, and a CPU that embeds one question spends much of the pass on putting them in order, anew each time. Here
that is done once (`python tests/perf/bench_embed.py` shows both). The operators are those that torch's own compiler writes for a CPU; where
they are missing or answer otherwise, layers stay as they were.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

from ndml.runtime.log import get_logger

log = get_logger(__name__)

_SAME = 1e-4  # between sums of some hundred products in another order


class PackedLinear(nn.Module):
    """As the nn.Linear that it is made from, for float32 on a CPU; forward only. `weight` is opaque."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, rows: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        packed: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")
        return packed


@torch.inference_mode()
def pack(network: nn.Module) -> int:
    """Replaces the linear layers of a network for inference where that is faster here; gives how many."""
    found = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children() if _fits(child)]
    if not found or not torch.backends.mkldnn.is_available() or not _works(found[0][2]):  # type: ignore[no-untyped-call]
        return 0
    count = len(found)
    while found:  # the list lets go of each as it is replaced: never twice all weights in memory
        parent, name, linear = found.pop()
        setattr(parent, name, PackedLinear(linear))
    return count


def _fits(module: nn.Module) -> TypeGuard[nn.Linear]:
    # Subclasses (quantised layers, adapters) have reasons of their own.
    return type(module) is nn.Linear and module.weight.dtype == torch.float32 and module.weight.device.type == "cpu"


def _works(linear: nn.Linear) -> bool:
    rows = torch.linspace(-1, 1, 2 * linear.in_features).reshape(2, -1)
    try:
        return bool((PackedLinear(linear)(rows) - linear(rows)).abs().max() <= _SAME)
    except (RuntimeError, AttributeError) as error:  # another build of torch
        log.info("linear_layers_not_packed", why=" ".join(str(error).split())[:200])
        return False
