"""Only what pyproject.toml cannot say: the C kernels are optional. Without a compiler the package installs and uses numpy instead."""

from __future__ import annotations

import sys

from setuptools import Extension, setup

FLAGS = [] if sys.platform == "win32" else ["-O3", "-std=gnu11", "-Wno-psabi"]

KERNELS = {
    "ndml.btsp.kernels._native": "ndml/btsp/kernels/native.c",
    "ndml.crdt._oscillator": "ndml/crdt/oscillator.c",
    "services.memory_node.signals._late": "services/memory_node/signals/late.c",
}

setup(ext_modules=[Extension(name, [source], extra_compile_args=FLAGS, optional=True) for name, source in KERNELS.items()])
