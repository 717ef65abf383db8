"""Memories as a spiking network: the index's own synapses, recall by the kernels, a file and a key that another program can use."""

from __future__ import annotations

import base64
import importlib.util
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndml.btsp.associative import AssociativeIndex, AssociativeOptions
from ndml.btsp.code import CodeOptions, SparseCoder
from ndml.btsp.kernels.ports import I32
from ndml.btsp.neuromorphic import Exported, ExportOptions, Learned, bits, export, learned, masked
from ndml.btsp.spiking import read_nir
from ndml.errors import EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid

simulated = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("nir", "nirtorch", "snntorch", "torch"))), reason="needs ndml[neuromorphic]"
)
F32 = NDArray[np.float32]
CODE = CodeOptions(16, units=256, active=16)


def keys_of(count: int) -> list[bytes]:
    return [row.tobytes() for row in np.random.default_rng(7).integers(0, 256, (count, 16), np.uint8)]


def vectors_of(count: int, dimension: int = 16, seed: int = 0) -> F32:
    found = np.random.default_rng(seed).standard_normal((count, dimension))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def codes_of(count: int, seed: int = 0) -> I32:
    return SparseCoder(CODE).encode(vectors_of(count, seed=seed))


@settings(max_examples=12, deadline=None)
@given(count=st.integers(1, 40), plateaus=st.integers(1, 3), seed=st.integers(0, 99))
def test_the_synapses_are_those_of_the_associative_index(count: int, plateaus: int, seed: int) -> None:
    options = AssociativeOptions(CODE, neurons=128, plateaus=plateaus, feedback=True)
    codes, keys = codes_of(count, seed), keys_of(count)
    index = AssociativeIndex(options, SparseCoder(CODE))
    index.store(codes, keys)
    memory = learned(codes, keys, options, 0.45)
    drive = bits(codes, 256).astype(int) @ memory.network.weights.astype(int)
    assert memory.network.weights.mean() == index.density
    best = np.sort(drive, axis=1)[:, -plateaus:].sum(1) / (plateaus * 16)
    assert best.astype(np.float32).tolist() == index.familiarity(codes).tolist()


@settings(max_examples=12, deadline=None)
@given(count=st.integers(1, 60), plateaus=st.integers(1, 4), silent=st.floats(0, 0.9), firing=st.sampled_from([0.0, 0.2, 0.45]))
def test_packed_and_plain_integers_recall_the_same(count: int, plateaus: int, silent: float, firing: float) -> None:
    codes = codes_of(count)
    memory = learned(codes, keys_of(count), AssociativeOptions(CODE, neurons=512, plateaus=plateaus, feedback=True), firing)
    cues = masked(codes, silent, np.random.default_rng(3))
    assert ((cues < 0).sum(1) == int(silent * 16)).all()
    (fired, completed), (plain, back) = memory.recall(cues), memory.network.recall(bits(cues, 256))
    assert completed is not None
    assert back is not None
    assert np.array_equal(fired, plain)
    assert np.array_equal(completed, back)


def test_more_neurons_fire_than_the_kernels_count_at_once() -> None:
    forward, backward = np.full((8, 64 * 2), 2**64 - 1, np.uint64), np.full((8192, 8), 2**64 - 1, np.uint64)
    memory = Learned(forward, backward, np.zeros((1, 1), np.int32), 8, 8192, 0, Fraction(1, 2))
    fired, completed = memory.recall(np.zeros((1, 1), np.int32))
    assert (int(fired.sum()), completed is not None and completed.all()) == (8192, True)


def written(folder: Path, count: int = 30, **options: object) -> tuple[Exported, Path, Path]:
    path, key_path = folder / "x.nir", folder / "x.nir.json"
    embeddings = [(3 * row).astype("<f4").tobytes() for row in vectors_of(count, 24)]
    done = export(embeddings, keys_of(count), path, key_path, {"model": "m"}, ExportOptions(**options))  # type: ignore[arg-type]
    return done, path, key_path


@simulated
@pytest.mark.parametrize("neuron", ["lif", "threshold"])
def test_an_export_is_run_from_its_file_and_its_key_decodes_it(tmp_path: Path, neuron: str) -> None:
    done, path, key_path = written(tmp_path, neuron=neuron, plateaus=2, cues=10)
    assert done.parity is not None
    assert (done.parity.cues, done.parity.differing, done.missed) == (10, 0, 0.0)
    assert done.parity.spikes > 20
    assert done.nbytes == path.stat().st_size
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.nir", "x.nir.json"]
    key = json.loads(key_path.read_text())
    coder = SparseCoder(CodeOptions(**key["code"]), np.frombuffer(base64.b64decode(key["mean"]), "<f4"))
    cue = bits(coder.encode(vectors_of(30, 24)[4:5]), key["code"]["units"])[0]
    # As somebody with the two files alone would: the layer's weights, the key's threshold, the key's names.
    fired = np.flatnonzero(read_nir(path).nodes["ff"].weight @ cue > key["threshold"])
    assert set(key["traces"][keys_of(30)[4].hex()]) <= set(fired.tolist())
    assert (key["model"], key["completion"]) == ("m", "7/20")


@simulated
def test_without_feedback_nothing_is_completed(tmp_path: Path) -> None:
    done, path, key_path = written(tmp_path, feedback=False)
    assert done.completed is None
    assert done.parity is not None
    assert done.parity.differing == 0
    assert set(read_nir(path).nodes) == {"input", "ff", "ca1", "output"}
    assert json.loads(key_path.read_text())["completion"] is None


@simulated
def test_identical_and_zero_vectors_are_a_network_too(tmp_path: Path) -> None:
    one, none = np.ones(24, "<f4").tobytes(), np.zeros(24, "<f4").tobytes()
    done = export([one] * 20 + [none], keys_of(21), tmp_path / "x.nir", tmp_path / "x.json", {}, ExportOptions())
    # A twin's depressing plateau may clear a neuron; what it stood for is brought back by the other nineteen.
    assert done.parity is not None
    assert (done.parity.differing, done.completed) == (0, 1.0)


@simulated
@pytest.mark.parametrize(
    ("field", "error", "embeddings"),
    [
        ("embedding", EmbeddingDimensionMismatch, [b"\0" * 8, b"\0" * 12]),
        ("embedding", EmbeddingDimensionMismatch, [b"\0" * 6] * 2),
        ("embedding", EmbeddingNotFinite, [np.array([1, np.nan], "<f4").tobytes()] * 2),
        ("traces", FieldInvalid, []),
        ("traces", FieldInvalid, [np.ones(2, "<f4").tobytes()] * 700),
    ],
)
def test_what_cannot_be_exported_leaves_no_file(tmp_path: Path, field: str, error: type[FieldInvalid], embeddings: list[bytes]) -> None:
    small = ExportOptions(max_synapses=8192 * 2 * 512)
    with pytest.raises(error) as raised:
        export(embeddings, keys_of(len(embeddings)), tmp_path / "x.nir", tmp_path / "x.json", {}, small)
    assert raised.value.violations[0].field == field
    assert list(tmp_path.iterdir()) == []


@simulated
def test_a_folder_that_is_not_there_and_options_out_of_range_name_the_field(tmp_path: Path) -> None:
    with pytest.raises(FieldInvalid) as raised:
        export([b"\0" * 8], keys_of(1), tmp_path / "no" / "x.nir", tmp_path / "x.json", {}, ExportOptions())
    assert raised.value.violations[0].field == "file"
    with pytest.raises(FieldInvalid) as raised:
        learned(codes_of(2), [b"short", b"keys"], AssociativeOptions(CODE), 0.45)
    assert raised.value.violations[0].field == "keys"
    for name, value in (("plateaus", 0), ("firing", 1.0), ("cues", 0), ("silent", -0.1), ("neuron", "izhikevich")):
        with pytest.raises(FieldInvalid) as raised:
            ExportOptions(**{name: value})  # type: ignore[arg-type]
        assert raised.value.violations[0].field == name
