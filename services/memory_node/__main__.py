"""`python -m services.memory_node [--config FILE] [--print-config]`."""

from ndml.runtime.service import run_service
from services.memory_node.main import build
from services.memory_node.settings import NodeSettings

run_service("ndml-memory-node", NodeSettings, build)
