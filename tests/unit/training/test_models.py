"""The embedder of a training, in a process of its own as a training is."""

from __future__ import annotations

import subprocess
import sys

LOADED = """
from ndml.training import models
print(models.embedder("all-MiniLM-L6-v2")(["one", "two"]).shape)
"""


def test_an_embedder_is_loaded_without_a_word_of_what_nobody_asked_for() -> None:
    """peft and bitsandbytes come with it, and have warnings for other uses."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(2, 384)\n", "")
