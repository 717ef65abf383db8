"""A CLIP- or SigLIP-like model as a `JointEncoder`: whatever transformers loads that has features of texts and of images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from ndml.errors import ModelUnavailable
from services.llm.encoder import pick_device
from services.llm.model_files import explained, resolve
from services.llm.ports import Floats, Media, Unreadable

_MOST_PIXELS = 1 << 24
"""Of one image: a small file may unpack to gigabytes."""
_UNBOUNDED = 1 << 24


class HuggingFaceJointEncoder:
    """Texts and images. One thread at a time."""

    media = ("image",)

    def __init__(self, network: Any, tokenizer: Any, images: Any, device: torch.device) -> None:
        self._network, self._tokenizer, self._images, self._device = network, tokenizer, images, device
        limit = getattr(getattr(network.config, "text_config", None), "max_position_embeddings", None)
        limits = [int(each) for each in (tokenizer.model_max_length, limit) if each and each < _UNBOUNDED]
        self._max_tokens = min(limits, default=64)
        self.dimension = int(self.encode_texts(["warm"]).shape[1])

    @classmethod
    def load(cls, model: str, device: str) -> HuggingFaceJointEncoder:
        """Read weights, tokenizer and how images are prepared; takes seconds. Raises ModelUnavailable."""
        _, source = resolve(model)
        where = pick_device(device, "joint.device")
        with explained("joint.models", model):
            network: Any = AutoModel.from_pretrained(source)
            if not (hasattr(network, "get_text_features") and hasattr(network, "get_image_features")):
                raise ModelUnavailable(
                    f"joint.models: {model!r} has no features of both texts and images: name a CLIP- or SigLIP-like model"
                )
            tokenizer = AutoTokenizer.from_pretrained(source)
            images = AutoImageProcessor.from_pretrained(source)  # type: ignore[no-untyped-call]
            return cls(network.to(where).eval(), tokenizer, images, where)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """See `JointEncoder`. Padded to full length where the model was trained so (SigLIP), which tokenizers do not say."""
        padding = "max_length" if "siglip" in str(self._network.config.model_type) else True
        tokens = self._tokenizer(list(texts), padding=padding, truncation=True, max_length=self._max_tokens, return_tensors="pt")
        return self._features(
            self._network.get_text_features, {key: tokens[key] for key in ("input_ids", "attention_mask") if key in tokens}
        )

    def encode_media(self, media: Sequence[Media]) -> Floats:
        """See `JointEncoder`."""
        seen = [_image(each, place) for place, each in enumerate(media)]
        return self._features(self._network.get_image_features, self._images(seen, return_tensors="pt"))

    def _features(self, features: Any, given: Mapping[str, torch.Tensor]) -> Floats:
        with torch.inference_mode():
            found = features(**{key: value.to(self._device) for key, value in given.items()})
            pooled: torch.Tensor = found if isinstance(found, torch.Tensor) else found.pooler_output
            unit: Floats = normalize(pooled.float(), dim=1).cpu().numpy().astype(np.float32)
        return unit


def _image(media: Media, place: int) -> Image.Image:
    """Raises Unreadable."""
    try:
        with Image.open(io.BytesIO(media.data)) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise Unreadable(place, f"{opened.width} x {opened.height} pixels, at most {_MOST_PIXELS}: send a smaller image")
            return opened.convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise Unreadable(
            place, f"no image that can be read ({' '.join(str(error).split())[:200]}): send a whole PNG, JPEG or WebP"
        ) from None
