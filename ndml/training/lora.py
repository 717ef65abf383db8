"""Low-rank changes of the model itself, by peft: trained beside a reader or alone, merged at the end into a model that needs no peft."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ndml.disk import sync_directory
from ndml.errors import FieldInvalid, NotAvailable
from ndml.training.config import Lora


class Changes:
    """The layers that were put into a model. The model stays the same object: what hooks it sees them."""

    def __init__(self, model: nn.Module, lora: Lora) -> None:
        """Raises NotAvailable without peft, FieldInvalid for names of layers that the model has not."""
        try:
            from peft import LoraConfig, get_peft_model
        except ModuleNotFoundError as error:
            raise NotAvailable(
                f"LoRA is by {error.name}, which is not installed: pip install 'ndml[train]', or set lora.rank to 0"
            ) from error
        wanted = LoraConfig(
            task_type="CAUSAL_LM",
            r=lora.rank,
            lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a factor: fractions are fine
            lora_dropout=lora.dropout,
            target_modules=list(lora.targets) or "all-linear",
        )
        try:
            self._wrapped: Any = get_peft_model(model, wanted)
        except ValueError as error:
            raise FieldInvalid(f"lora.targets {list(lora.targets)} do not fit this model: {error}", field="lora.targets") from error
        self._model = model
        self.learning(False)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by name."""
        return {name: p for name, p in self._model.named_parameters() if p.requires_grad}

    def learning(self, on: bool) -> None:
        """Dropout on or off; everything else of the model stays in evaluation mode, in which it will be used."""
        for name, module in self._model.named_modules():
            if "lora_dropout" in name:
                module.train(on)

    def put(self, tensors: dict[str, Tensor]) -> None:
        """Values for `parameters`."""
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(tensors[name])

    def merge(self, directory: Path, tokenizer: Any) -> None:
        """Write the changed model as one of its own kind, whole or not at all. The changes are used up."""
        draft = directory.with_name(directory.name + ".part")
        shutil.rmtree(draft, ignore_errors=True)
        merged = self._wrapped.merge_and_unload()
        merged.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        shutil.rmtree(directory, ignore_errors=True)  # of the same run, killed before it could say that this was done
        draft.rename(directory)
        sync_directory(directory.parent)
