"""A language model in this process that remembers.

    python examples/integrated.py                                   the boxed model, with a memory suite of its own
    python examples/integrated.py --model PATH --address HOST:PORT  any causal LM, with a suite that runs (`make run`)

The suite's processes end with the script. Memories are kept where --data names a folder.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from ndml import NDMLIntegratedLLM


async def talk(model: NDMLIntegratedLLM) -> None:
    """Tell it something, ask for it in another conversation, look at what stands behind the answer."""
    ann = {"user_id": "ann"}
    await model.chat_completion([{"role": "user", "content": "My cat is called Miso. I live in Lisbon."}], ann | {"session_id": "monday"})
    model.flush()  # what was said is written behind the answer; here it is asked for at once
    answer = await model.chat_completion([{"role": "user", "content": "What is my cat called?"}], ann | {"session_id": "tuesday"}, 32)
    print("answer:   ", answer)
    for memory in answer.citations:
        print("because:  ", memory.text)

    memory = model.memory_gateway
    await memory.add_memory_async("The harbour pool opens at six.", ann, salience=0.6)
    for found, score in await memory.retrieve_memories_async("When can I go swimming?", ann, k=1):
        print(f"retrieved: {found.text} ({score:.2f})")
    print("kept:     ", (await memory.periodic_maintenance(ann))["clusters_total"], "clusters of memories looked at")


def look_inside(model: NDMLIntegratedLLM) -> None:
    """A forward pass that reads memory, beside the same pass without any."""
    ids = model.tokenizer("What is my cat called?", return_tensors="pt")["input_ids"]
    read = model(ids, context={"user_id": "ann"}, update_memory=False)
    alone = model(ids, update_memory=False)  # nobody's memory: the model itself
    change = float((read.logits - alone.logits).abs().max())
    print(f"forward:   {len(read.retrieved_memories[0])} memories read by {read.way}, logits move by up to {change:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ndml-tiny", help="ndml-tiny, a folder, or a hub id")
    parser.add_argument("--address", default="", help="of a running suite; none: one is started")
    parser.add_argument("--data", default="", help="folder that keeps the memories of an own suite")
    given = parser.parse_args()
    config = {"address": given.address, "data_dir": given.data}
    with NDMLIntegratedLLM(given.model, memory_config=config) as model, tempfile.TemporaryDirectory() as folder:
        asyncio.run(talk(model))
        look_inside(model)
        path = Path(folder) / "ann.jsonl"
        saved = model.save_memory_checkpoint(path, {"user_id": "ann"})
        taken = model.load_memory_checkpoint(path, {"user_id": "bob"})
        print(f"checkpoint: {saved} memories of ann saved, {taken} given to bob")


if __name__ == "__main__":
    main()
