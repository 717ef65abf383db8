"""Teaching a frozen language model to read memory: adapters, projectors and LoRA, with a control beside every score.

    config.py       what a run is, from YAML                               standard library, yaml
    data.py         episodes: memories, questions, answers; JSONL          ndml.fusion.readout
    entities.py     facts about entities that nobody has seen before       standard library
    base.py         the small model for them: syntax, no facts             torch, transformers, tokenizers
    models.py       loading what is to be trained with                     torch, transformers
    examples.py     episodes as tokens, and where an answer stands         torch
    readers.py      one step's pass for each way to read                   torch
    lora.py         low-rank changes of the model itself                   peft
    evaluation.py   exact matches, without memory, with another's memory   torch
    states.py       where a run stands, on disk, whole or not at all       torch, safetensors
    trainer.py      the loop                                               torch
    worker.py       `python -m ndml.training`: a run as a process          torch

Nothing here is imported by the services; `ndml train` runs it as a process of its own.
"""
