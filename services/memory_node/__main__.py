import os

# One thread each for BLAS and OpenMP, before either is loaded: a search is small, and threads that wait for each other on two cores
# made batch searches several times slower.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from ndml.runtime.service import run_service  # noqa: E402
from services.memory_node.main import build  # noqa: E402
from services.memory_node.settings import NodeSettings  # noqa: E402

if __name__ == "__main__":
    run_service("ndml-memory-node", NodeSettings, build)
