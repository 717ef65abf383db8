"""Every set of kernels gives the reference's bits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp.kernels.native import NativeKernels, library
from ndml.btsp.kernels.ports import MOST_ACTIVE, Kernels, words_for
from ndml.btsp.kernels.reference import ReferenceKernels, hadamard, splitmix64
from ndml.btsp.kernels.torch_ops import TorchKernels
from ndml.btsp.kernels.vectorised import VectorisedKernels

TRUTH = ReferenceKernels()
NATIVE = pytest.param(
    lambda: NativeKernels(library()), id="native", marks=pytest.mark.skipif(library() is None, reason="the C kernels were not built here")
)
OTHERS = [
    NATIVE,
    pytest.param(VectorisedKernels, id="vectorised"),
    pytest.param(lambda: TorchKernels("cpu"), id="torch"),
]
Make = Callable[[], Kernels]


def on_host(synapses: Any) -> np.ndarray:
    return synapses if isinstance(synapses, np.ndarray) else synapses.cpu().numpy().view(np.uint64)


def from_host(kernels: Kernels, synapses: np.ndarray) -> Any:
    return kernels.from_host(synapses.copy()) if isinstance(kernels, TorchKernels) else synapses.copy()


@st.composite
def memories(draw: st.DrawFn) -> dict[str, Any]:
    """Half-filled synapses, codes with silent units, neurons to change."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    neurons, units = draw(st.sampled_from([3, 64, 130, 700])), draw(st.integers(1, 80))
    n, active = draw(st.integers(0, 5)), draw(st.integers(0, units))
    words = words_for(neurons)
    synapses = np.zeros((units, words), np.uint64)
    synapses.view(np.uint8)[:, : neurons // 8] = rng.integers(0, 256, (units, neurons // 8))
    codes = np.array([rng.permutation(units)[:active] for _ in range(n)], np.int32).reshape(n, active)
    codes[rng.random(codes.shape) < 0.2] = -1
    up, down = rng.integers(-1, neurons, (2, n, draw(st.integers(0, 6)))).astype(np.int32)
    return {"synapses": synapses, "codes": codes, "up": up, "down": down, "neurons": neurons}


@pytest.mark.parametrize("make", OTHERS)
@settings(max_examples=30, deadline=None)
@given(memory=memories(), k=st.integers(1, 40), flip=st.booleans())
def test_sums_strongest_and_store_are_the_references(make: Make, memory: dict[str, Any], k: int, flip: bool) -> None:
    kernels, k = make(), min(k, memory["neurons"])
    mine = from_host(kernels, memory["synapses"])
    assert np.array_equal(kernels.sums(mine, memory["codes"]), TRUTH.sums(memory["synapses"], memory["codes"]))
    for ours, theirs in zip(
        kernels.strongest(mine, memory["codes"], k), TRUTH.strongest(memory["synapses"], memory["codes"], k), strict=True
    ):
        assert ours.dtype == np.int32 and np.array_equal(ours, theirs)
    change = (memory["codes"], memory["up"], memory["down"], flip)
    kernels.store(mine, *change)
    TRUTH.store(memory["synapses"], *change)
    assert np.array_equal(on_host(mine), memory["synapses"])
    assert kernels.ones(mine) == TRUTH.ones(memory["synapses"])


@pytest.mark.parametrize("make", OTHERS)
@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(0, 5),
    rounds=st.integers(1, 35),
    log_width=st.integers(0, 7),
    log_half=st.integers(0, 7),
    size=st.sampled_from([0, 1, 200]),
    seed=st.integers(0, 99),
)
def test_codes_are_the_references(make: Make, n: int, rounds: int, log_width: int, log_half: int, size: int, seed: int) -> None:
    rng, width, half = np.random.default_rng(seed), 1 << log_width, 1 << min(log_half, log_width)
    vectors = rng.integers(-size, size + 1, (n, width)).astype(np.int16)  # size 0 and 1: ties everywhere
    signs = rng.choice(np.array([-1, 1], np.int16), (rounds, width))
    assert np.array_equal(make().encode(vectors, signs, half), TRUTH.encode(vectors, signs, half))


@pytest.mark.parametrize("make", OTHERS)
@settings(max_examples=20, deadline=None)
@given(
    keys=st.lists(st.integers(0, 2**128 - 1), max_size=40), plateaus=st.integers(1, 4), extra=st.integers(0, 60), choices=st.integers(1, 5)
)
def test_recruitment_is_the_references(make: Make, keys: list[int], plateaus: int, extra: int, choices: int) -> None:
    seeds = np.frombuffer(b"".join(key.to_bytes(16, "little") for key in keys), "<u8").reshape(-1, 2)
    loads = [np.zeros(2 * plateaus + extra, np.int32) for _ in range(2)]
    (up, down), (theirs_up, theirs_down) = (
        kernels.recruit(seeds, load, plateaus, choices) for kernels, load in zip((make(), TRUTH), loads, strict=True)
    )
    assert np.array_equal(up, theirs_up) and np.array_equal(down, theirs_down) and np.array_equal(loads[0], loads[1])
    assert loads[0].sum() == up.size
    assert not (up[:, :, None] == down[:, None, :]).any() and all(len(set(row)) == plateaus for row in up.tolist())


@pytest.mark.parametrize("make", OTHERS)
def test_the_largest_code_does_not_overflow_the_counters(make: Make) -> None:
    kernels = make()
    synapses = np.full((MOST_ACTIVE, 8), np.uint64(2**64 - 1))
    codes = np.arange(MOST_ACTIVE, dtype=np.int32)[None]
    assert (kernels.sums(from_host(kernels, synapses), codes) == MOST_ACTIVE).all()
    neurons, sums = kernels.strongest(from_host(kernels, synapses), codes, 3)
    assert neurons.tolist() == [[0, 1, 2]] and (sums == MOST_ACTIVE).all()


def test_the_reference_is_what_the_books_say() -> None:
    assert [splitmix64(0x9E3779B97F4A7C15 * n % 2**64) for n in (1, 2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]  # Vigna's seed 0
    matrix = hadamard(16)
    assert np.array_equal(matrix @ matrix.T, 16 * np.eye(16))
    assert all(matrix[i, j] == (-1) ** (i & j).bit_count() for i in range(16) for j in range(16))


@pytest.mark.skipif(library() is None, reason="the C kernels were not built here")
def test_native_calls_let_other_threads_run() -> None:
    kernels = NativeKernels(library())
    synapses = np.zeros((1024, 2048), np.uint64)
    codes = np.tile(np.arange(1024, dtype=np.int32), (64, 1))
    inside, seen = threading.Event(), list[bool]()

    def work() -> None:
        inside.set()
        kernels.strongest(synapses, codes, 1)
        inside.clear()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # a thread that holds the lock is not asked for it within this test
    try:
        for _ in range(5):  # with the lock held it can never be seen; without, only where this thread is late by a whole call
            worker = threading.Thread(target=work)
            worker.start()
            inside.wait()
            seen.append(inside.is_set())
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert any(seen)


TRITON = """
import numpy as np, torch
from ndml.btsp.kernels.reference import ReferenceKernels
from ndml.btsp.kernels.triton_ops import sums
rng = np.random.default_rng(0)
for units, words, n, active in ((40, 8, 2, 17), (300, 72, 1, 33)):
    synapses = rng.integers(0, 2**64, (units, words), dtype=np.uint64)
    codes = np.array([rng.permutation(units)[:active] for _ in range(n)], np.int32)
    codes[rng.random(codes.shape) < 0.2] = -1
    ours = sums(torch.as_tensor(synapses.view(np.int64)), torch.as_tensor(codes)).numpy()
    assert np.array_equal(ours, ReferenceKernels().sums(synapses, codes)), (units, words)
print("equal")
"""


def test_the_triton_kernel_is_the_references() -> None:
    pytest.importorskip("triton", reason="triton is not installed: pip install triton (Linux)")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}  # read when triton is imported, hence a process of its own
    done = subprocess.run([sys.executable, "-c", TRITON], capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "equal", done.stderr[-2000:]
