"""Two memories in, one question: run it against `make run`."""

import os

from ndml.client import DEFAULT_ADDRESS, NdmlClient

with NdmlClient(os.environ.get("NDML_ADDRESS", DEFAULT_ADDRESS), user="ann") as memory:
    memory.add("I moved to Lisbon in May.", speaker="Ann")
    memory.add("My dog Pixel hates the vacuum cleaner.", speaker="Ann")
    for hit in memory.search("Where does Ann live?", k=2):
        print(f"{hit.score:.3f}  {hit.memory.text}")
