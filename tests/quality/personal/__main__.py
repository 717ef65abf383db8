"""How well the suite remembers people: `make eval-personal`.

python -m tests.quality.personal [--users 20] [--messages 80] [--seed 1] [--markdown FILE] [--json FILE] [--plot FILE] [--errors FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import psutil

from ndml.client import AsyncNdmlClient
from ndml.testing import Suite
from tests.perf.tables import as_json, as_markdown
from tests.quality.personal import page
from tests.quality.personal.dialogues import World
from tests.quality.personal.scoring import Outcome
from tests.quality.personal.stream import Stream, options


async def talk(address: str, stream_of: argparse.Namespace) -> tuple[list[Outcome], Stream]:
    """The dialogues of a seed through a running suite."""
    dialogues = World(stream_of.seed, stream_of.users).dialogues(stream_of.messages)
    async with AsyncNdmlClient(address) as client:
        stream = Stream(client, dialogues)
        return await stream.run(lambda text: print(text, flush=True)), stream


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--messages", type=int, default=80, help="of each user")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--errors", type=Path, help="write what was read and answered where it was not right")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Suite(options(Path(folder))) as suite:
        outcomes, stream = asyncio.run(talk(suite.grpc_address, given))
    seconds = time.monotonic() - began
    part, points = page.part(outcomes, stream.leaks), page.curve(outcomes, given.messages)
    for row in part.targets:
        print(f"{'met   ' if row.met else 'MISSED'} {row.path}: {row.ours}   [{row.reference}]   target {row.target}")
    for leak in stream.leaks:
        print(leak)
    if given.json:
        machine = {"cores": psutil.cpu_count(), "python": platform.python_version(), "seconds": round(seconds)}
        run = {"users": given.users, "messages": given.messages, "seed": given.seed, "chats": stream.chats}
        given.json.write_text(json.dumps({**as_json([part], machine), "run": run, "curve": points}, indent=1) + "\n")
    if given.markdown:
        above = page.ABOVE.format(users=given.users, messages=given.messages, chats=stream.chats, seconds=seconds)
        given.markdown.write_text(as_markdown([part], above) + "\n" + page.BELOW + "\n")
    if given.plot:
        page.draw(points, given.plot)
    if given.errors:
        given.errors.write_text(page.errors(outcomes))
    return 0 if all(row.met for row in part.targets) else 1


if __name__ == "__main__":
    sys.exit(main())
