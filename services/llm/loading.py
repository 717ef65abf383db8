"""A causal LM from disk or hub into memory: device, precision, quantisation, layers over several devices."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from ndml.errors import ModelUnavailable
from services.llm.encoder import pick_device
from services.llm.model_files import explained, resolve
from services.llm.settings import ChatSection

transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def load(settings: ChatSection) -> tuple[str, Any, Any]:
    """(id, tokenizer, network ready to infer). Takes seconds to minutes. Raises ModelUnavailable."""
    name, source = resolve(settings.model)
    device = pick_device(settings.device, "chat.device")
    given: dict[str, Any] = {"dtype": "float32" if settings.dtype == "auto" and device.type == "cpu" else settings.dtype}
    if settings.quantization != "none":
        given["quantization_config"] = quantization(settings.quantization, device)
    if settings.spread:
        given["device_map"] = _spread(device)
    elif settings.quantization != "none":
        given["device_map"] = {"": device}  # what quantises puts the weights where they stay
    with explained("chat.model", settings.model):
        tokenizer = AutoTokenizer.from_pretrained(source)
        network: Any = AutoModelForCausalLM.from_pretrained(source, **given)
        return name, tokenizer, (network if "device_map" in given else network.to(device)).eval()


def quantization(bits: str, device: torch.device) -> BitsAndBytesConfig:
    """What transformers takes for `bits`, int8 or int4. Raises ModelUnavailable where bitsandbytes is not here."""
    if not _installed("bitsandbytes"):
        raise ModelUnavailable(f"chat.quantization={bits} takes bitsandbytes, which is not installed here: pip install it, or set none")
    if bits == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    computed_in = torch.bfloat16 if device.type == "cuda" else torch.float32
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=computed_in, bnb_4bit_quant_type="nf4")  # type: ignore[no-untyped-call]


def _spread(device: torch.device) -> str:
    if device.type != "cuda":
        raise ModelUnavailable("chat.spread=true is for GPUs, and there is none here: set it to false")
    if not _installed("accelerate"):
        raise ModelUnavailable("chat.spread=true takes accelerate, which is not installed here: pip install accelerate")
    return "auto"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
