"""A joint encoder, small but trained: words find the images that they name, and what it cannot read is said."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ndml.errors import DeadlinePassed, FieldInvalid, ModelUnavailable, ModelUnknown, Overloaded
from services.llm.joint import JointQueue
from services.llm.models import joint_loader
from services.llm.ports import Floats, Media
from services.llm.settings import JointSection
from tests.unit.llm.tiny_joint import COLOURS, DIMENSION, picture, tiny_joint

PNG = "image/png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_joint(tmp_path_factory.mktemp("joint"))


@pytest.fixture
async def queue(folder: Path) -> AsyncIterator[JointQueue]:
    settings = JointSection(models={"colours": str(folder)}, batch=2)
    made = JointQueue(settings, joint_loader(settings), lambda: None)
    await made.start()
    yield made
    await made.stop()


async def test_words_are_nearest_to_the_images_that_they_name(queue: JointQueue) -> None:
    encoder = queue.encoders["colours"]
    assert (encoder.dimension, encoder.media) == (DIMENSION, ("image",))
    texts = [f"the {colour} boat" for colour in COLOURS]
    images = [Media("image/jpeg", picture(colour, 99, "JPEG")) for colour in COLOURS]
    vectors = np.stack([np.frombuffer(vector, "<f4") for vector in await queue.embed("colours", texts, images, None)])
    assert vectors.shape == (2 * len(COLOURS), DIMENSION) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = vectors[: len(COLOURS)] @ vectors[len(COLOURS) :].T
    assert cosines.argmax(axis=1).tolist() == list(range(len(COLOURS)))
    [again] = await queue.embed("colours", [], images[:1], None)
    assert np.allclose(np.frombuffer(again, "<f4"), vectors[len(COLOURS)], atol=1e-5), "whatever else is in the batch"


@pytest.mark.parametrize(
    ("media", "field", "why"),
    [
        (Media(PNG, b"no image"), "contents[3].data", "no image that can be read"),
        (Media(PNG, picture("red")[:100]), "contents[3].data", "no image that can be read"),
        (Media("audio/wav", b"RIFF"), "contents[3].media_type", "reads image, not audio/wav"),
    ],
)
async def test_what_it_cannot_read_is_said_where_it_stands(queue: JointQueue, media: Media, field: str, why: str) -> None:
    with pytest.raises(FieldInvalid, match=why) as refused:
        await queue.embed("colours", [], [*(Media(PNG, picture("red")) for _ in range(3)), media], None)
    assert refused.value.violations[0].field == field


async def test_an_image_that_unpacks_to_too_much_is_refused_before_it_does(queue: JointQueue, tmp_path: Path) -> None:
    Image.new("1", (5000, 5000)).save(tmp_path / "large.png")
    with pytest.raises(FieldInvalid, match="5000 x 5000 pixels"):
        await queue.embed("colours", [], [Media(PNG, (tmp_path / "large.png").read_bytes())], None)


async def test_a_space_that_is_not_configured_is_named(queue: JointQueue) -> None:
    with pytest.raises(ModelUnknown, match=r"'clip' .*has colours"):
        await queue.embed("clip", ["x"], [], None)


async def test_a_model_that_is_none_is_refused_at_start(tmp_path: Path) -> None:
    settings = JointSection(models={"clip": str(tmp_path / "nowhere")})
    with pytest.raises(ModelUnavailable, match="does not exist"):
        await JointQueue(settings, joint_loader(settings), lambda: None).start()


class Slow:
    """Answers when it is let."""

    dimension, media = 1, ("image",)

    def __init__(self) -> None:
        self.let = threading.Event()

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        assert self.let.wait(30)
        return np.ones((len(texts), 1), np.float32)

    def encode_media(self, media: Sequence[Media]) -> Floats:
        raise RuntimeError("out of memory")


async def test_who_does_not_fit_is_refused_and_who_cannot_wait_is_told() -> None:
    slow = Slow()
    queue = JointQueue(JointSection(models={"s": "x"}, queue=2), lambda: {"s": slow}, lambda: None)
    await queue.start()
    waiting = asyncio.ensure_future(queue.embed("s", ["a"], [], None))
    await asyncio.sleep(0)
    with pytest.raises(DeadlinePassed):
        await queue.embed("s", ["b"], [], 0.01)
    others = [asyncio.ensure_future(queue.embed("s", ["c"], [], None)) for _ in range(2)]
    done = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
    [refused] = done[0]
    assert isinstance(refused.exception(), Overloaded)
    slow.let.set()
    assert await waiting == [np.ones(1, "<f4").tobytes()]
    await asyncio.gather(*others, return_exceptions=True)
    with pytest.raises(ModelUnavailable, match="joint encoder failed"):
        await queue.embed("s", [], [Media(PNG, b"x")], None)
    await queue.stop()
