"""How a language model reads memory: five ways behind one interface, each exactly the identity when there is nothing to read.

    readout.py      what was recalled, as the ways take it              numpy
    prompt.py       quoted text in a system message, within a budget    standard library
    families.py     what a loaded causal LM is and allows, measured     torch
    states.py       caches and recurrent states: copy, join, mix, keep  torch
    decoding.py     prefill, join, step: a batch of requests under way  torch
    prefix.py       soft prefix: vectors -> input embeddings            torch
    adapter.py      gated cross-attention on chosen blocks, by hooks    torch
    knn.py          next tokens looked up in the user's own text        torch, FAISS where it is
    checkpoints.py  trained projectors and adapters on disk             torch, safetensors
    ways.py         `Fusion`: one request's plan, a batch's context     torch

`readout` and `prompt` import neither torch nor transformers; nothing here knows grpc. The evidence for each way is in docs/science.
"""
