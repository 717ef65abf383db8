"""Two memories in, a search, a chat, and an error with its reason. Settings by environment: see README.md."""

import os
import sys
from pathlib import Path

from ndml.client import DEFAULT_ADDRESS, ClientOptions, NdmlClient, Tls
from ndml.errors import NdmlError


def connect() -> NdmlClient:
    """A client as the environment says."""
    authorities = os.environ.get("NDML_CA")
    return NdmlClient(
        os.environ.get("NDML_ADDRESS", DEFAULT_ADDRESS),
        user=os.environ.get("NDML_USER", "ann"),
        token=os.environ.get("NDML_TOKEN", ""),
        timeout_s=float(os.environ.get("NDML_TIMEOUT_S", "10")),
        options=ClientOptions(tls=Tls(roots=Path(authorities)) if authorities else None),
    )


def converse(memory: NdmlClient) -> None:
    """The same request_id writes once, so this program may run again. The client passes consistency tokens on by itself."""
    print("added", memory.add("I live in Lisbon.", request_id="lisbon").trace_id)
    print("added", memory.add("My dog Pixel hates the vacuum cleaner.", request_id="pixel").trace_id)
    for hit in memory.search("Where do I live?", k=2):
        print(f"{hit.score:.3f} {hit.memory.text}")

    print("chat: ", end="")
    with memory.chat("Where do I live?") as answer:
        for piece in answer:
            print(piece, end="", flush=True)
    print()
    for citation in answer.citations:
        print(f"cited [{citation.number}] {citation.text}")

    try:
        memory.search("x", k=-1)
    except NdmlError as error:
        for broken in error.violations:
            print(f"refused: {error.code.name} {error.reason} {broken.field}: {broken.description}")


if __name__ == "__main__":
    try:
        with connect() as client:
            converse(client)
    except NdmlError as error:
        sys.exit(f"error: {error.code.name} {error.reason} {error}")
