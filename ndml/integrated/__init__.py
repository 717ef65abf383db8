"""A language model in this process that remembers: `from ndml import NDMLIntegratedLLM`. Needs `pip install 'ndml[integrated]'`.

config.py       memory_config, every key with its reason
suite.py        the memory suite: one that runs, or one of our own, started and stopped with the model
projection.py   vectors of fewer or more components than the suite's
recall.py       what of the found memories the model reads
learning.py     what was said becomes memories, behind the answer
gateway.py      `memory_gateway`: add, retrieve, maintain, save, load
model.py        the model: chat, and a forward pass that reads memory
"""

from ndml.integrated.config import MemoryConfig
from ndml.integrated.gateway import MemoryGateway
from ndml.integrated.model import Answer, MemoryOutput, NDMLIntegratedLLM

__all__ = ["Answer", "MemoryConfig", "MemoryGateway", "MemoryOutput", "NDMLIntegratedLLM"]
