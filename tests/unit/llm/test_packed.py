"""Packed linear layers answer as those that they replace, and only such are replaced."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from services.llm import packed
from services.llm.encoder import HuggingFaceEncoder
from services.llm.packed import PackedLinear, pack


class Scaled(nn.Linear):
    """A layer with a mind of its own."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Sequential(nn.Linear(40, 8, bias=False), Scaled(8, 8)), nn.LayerNorm(8)).eval()


@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (3, 5, 24), (0, 24)])
def test_answers_as_before(shape: tuple[int, ...]) -> None:
    made, rows = network(), torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = made(rows)
        assert pack(made) == 2
        assert torch.allclose(made(rows), before, atol=1e-5)


def test_leaves_what_is_more_than_a_linear_layer() -> None:
    made = network()
    pack(made)
    assert type(made[0]) is PackedLinear and type(made[2][0]) is PackedLinear
    assert type(made[2][1]) is Scaled and type(made[3]) is nn.LayerNorm
    assert pack(made) == 0


def test_leaves_other_types_of_numbers() -> None:
    assert pack(network().to(torch.bfloat16)) == 0


@pytest.mark.parametrize("wrong", ["raises", "differs"])
def test_a_torch_whose_operator_is_another_keeps_its_layers(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    def forward(self: PackedLinear, rows: torch.Tensor) -> torch.Tensor:
        if wrong == "raises":
            raise RuntimeError("no such operator")
        return torch.zeros(*rows.shape[:-1], 40)

    monkeypatch.setattr(packed.PackedLinear, "forward", forward)
    made = network()
    assert pack(made) == 0
    assert type(made[0]) is nn.Linear


def test_the_embedder_is_packed(minilm: HuggingFaceEncoder) -> None:
    layers = [type(module) for module in minilm._network.modules()]
    assert PackedLinear in layers and nn.Linear not in layers
