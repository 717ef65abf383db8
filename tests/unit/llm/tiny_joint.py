"""A joint encoder of some thousand weights, trained in seconds: it knows five colours, in words and as images of them."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "yellow": (230, 220, 30), "black": (10, 10, 10)}
DIMENSION = 16
_SAID = ("a picture of a {} boat", "the {} boat", "{}")
_SIDE, _STEPS = 16, 240
_WORDS = ["<pad>", "<start>", "<end>", "<unk>", "a", "an", "the", "picture", "of", "boat", *COLOURS]


def picture(colour: str, seed: int = 0, kind: str = "PNG") -> bytes:
    """A file with an image of that colour, a little noise in it."""
    noise = torch.randint(-25, 26, (_SIDE, _SIDE, 3), generator=torch.Generator().manual_seed(seed))
    pixels = (torch.tensor(COLOURS[colour]) + noise).clamp(0, 255).to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, kind)
    return file.getvalue()


def tiny_joint(folder: Path) -> Path:
    """Train it and save it to `folder`, as transformers does; returns the folder."""
    torch.manual_seed(0)
    tokenizer, images, model = _tokenizer(), CLIPImageProcessor(size={"shortest_edge": _SIDE}, crop_size=_SIDE), _model()
    names, seeds = list(COLOURS), range(8)
    seen = [Image.open(io.BytesIO(picture(name, seed))) for seed in seeds for name in names]
    pixels = images(seen, return_tensors="pt")["pixel_values"].reshape(len(seeds), len(names), 3, _SIDE, _SIDE)
    said = [said.format(name) for said in _SAID for name in names]
    words = tokenizer(said, padding="max_length", max_length=16, return_tensors="pt")["input_ids"].reshape(len(_SAID), len(names), 16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(_STEPS):
        texts, batch = words[step % len(_SAID)], pixels[step % len(seeds)]
        loss = model(input_ids=texts, attention_mask=(texts != 0).long(), pixel_values=batch, return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for part in (tokenizer, images, model.eval()):
        part.save_pretrained(folder)
    return folder


def _model() -> CLIPModel:
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return CLIPModel(
        CLIPConfig(
            text_config={**small, **ends, "vocab_size": len(_WORDS), "max_position_embeddings": 16},
            vision_config={**small, "image_size": _SIDE, "patch_size": 8},
            projection_dim=DIMENSION,
        )
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<start>", eos_token="<end>", unk_token="<unk>", pad_token="<pad>", model_max_length=16
    )
