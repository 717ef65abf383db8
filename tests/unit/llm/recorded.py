"""What llama.cpp's server, LM Studio, vLLM, Ollama and Anthropic send, byte for byte in their shapes: statuses, headers, fields that
OpenAI's API does not have.

Taken from what they document, from their sources, and from what users recorded in bug trackers (the places stand at each); the texts are
ours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

WORDS = ["Auf ", "dem Regal ", "am Fens", "ter 🙂", "."]
SAID = "".join(WORDS)


@dataclass(frozen=True)
class Recorded:
    """One answer."""

    body: str
    status: str = "200 OK"
    kind: str = "text/event-stream"


def _stream(*events: dict[str, Any], done: bool = True) -> Recorded:
    lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    return Recorded("".join(lines) + ("data: [DONE]\n\n" if done else ""))


def _json(status: str, body: dict[str, Any], kind: str = "application/json; charset=utf-8") -> Recorded:
    return Recorded(json.dumps(body, ensure_ascii=False), status, kind)


_TIMINGS = {
    "cache_n": 236,
    "prompt_n": 1,
    "prompt_ms": 30.958,
    "prompt_per_token_ms": 30.958,
    "prompt_per_second": 32.301828283480845,
    "predicted_n": 5,
    "predicted_ms": 661.064,
    "predicted_per_token_ms": 18.887542857142858,
    "predicted_per_second": 52.94494935437416,
}
_USAGE = {"completion_tokens": 5, "prompt_tokens": 31, "total_tokens": 36}


def _llama(choices: list[dict[str, Any]], kind: str = "chat.completion.chunk", **more: Any) -> dict[str, Any]:
    head = {"created": 1781492231, "id": "chatcmpl-qC6laQHbZ2CmxNvJ4NoB1L93LcVF7nfe", "model": "gemma-4-31B-it-UD-Q6_K_XL.gguf"}
    return {"choices": choices} | head | {"system_fingerprint": "b9554-d403f00ec", "object": kind} | more


def _piece(finish: str | None = None, logprobs: Any = None, **delta: Any) -> dict[str, Any]:
    choice = {"finish_reason": finish, "index": 0, "delta": delta}
    return choice | ({"logprobs": logprobs} if logprobs else {})


def _chances(token: str) -> dict[str, Any]:
    one = {"id": 27, "token": token, "bytes": list(token.encode()), "logprob": -0.00125}
    return {"content": [one | {"top_logprobs": [one, {"id": 9, "token": "é", "bytes": [195, 169], "logprob": -7.5}]}]}


_LLAMA_START = _llama([_piece(role="assistant", content=None)])
_LLAMA_WORDS = [_llama([_piece(content=word)]) for word in WORDS]
_LLAMA_ENDS = [_llama([_piece("length")]), _llama([], usage=_USAGE, timings=_TIMINGS)]
_OVERFLOW = {
    "code": 400,
    "message": "request (4390 tokens) exceeds the available context size (4096 tokens), try increasing it",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 4390,
    "n_ctx": 4096,
}
_LOADING = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
_OLD_OVERFLOW = {"code": 400, "message": _OVERFLOW["message"], "type": "invalid_request_error"}


def _lmstudio(choices: list[dict[str, Any]], kind: str = "chat.completion.chunk", **more: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-um3b2l9t12bzrtha63q8", "object": kind, "created": 1747835957, "model": "gemma-2-2b-it"}
    return head | {"system_fingerprint": "gemma-2-2b-it", "choices": choices} | more


def _part(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _call(**call: Any) -> dict[str, Any]:
    return _lmstudio([_part(tool_calls=[{"index": 0} | call])])


_LM_START = [_lmstudio([_part(role="assistant", content=word)]) for word in WORDS[:1]]
_LM_WORDS = [_lmstudio([_part(content=word)]) for word in WORDS[1:]]
_LM_INFO = {"arch": "gemma2", "quant": "Q4_K_M", "format": "gguf", "context_length": 4096}
_LM_STATS = {"tokens_per_second": 51.43, "time_to_first_token": 0.111, "generation_time": 0.954, "stop_reason": "eosFound"}
_TOO_LONG = "Input does not fit in context length. The input has 31430 tokens, but the context length only supports 30000 tokens."
_KEEP = "Trying to keep the first 14538 tokens when context the overflows. The model is loaded with context length of only 2048 tokens"


def _vllm(choices: list[dict[str, Any]], kind: str = "chat.completion.chunk", **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-8b2b91720edd4372b0579e89255b4828",
        "object": kind,
        "created": 1772423572,
        "model": "qwen3_8b",
        "choices": choices,
    } | more


def _bit(finish: str | None = None, stop: int | str | None = None, **delta: Any) -> dict[str, Any]:
    ends = {"stop_reason": stop} if finish else {}
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish} | ends | {"token_ids": None}


def _vllm_error(kind: str, code: int, message: str) -> dict[str, Any]:
    """As before autumn 2025; since then without `object`, and under `error` in a body too."""
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


_VLLM_START = _vllm([_bit(role="assistant", content="")], prompt_token_ids=None)
_VLLM_WORDS = [_vllm([_bit(content=word)]) for word in WORDS[:-1]]
_VLLM_USAGE = _vllm([], usage={"prompt_tokens": 31, "total_tokens": 36, "completion_tokens": 5})
_VLLM_ENDS = [_vllm([_bit("length", content=WORDS[-1])]), _VLLM_USAGE]
_VLLM_LONG = (
    "This model's maximum context length is 16384 tokens. However, you requested 122946 tokens (112946 in the messages, 10000 in the "
    "completion). Please reduce the length of the messages or completion."
)
_VLLM_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


def _thinking(field: str) -> list[dict[str, Any]]:
    return [_vllm([_bit(**{field: "The shelf, "})]), _vllm([_bit(**{field: "I think."})])]


def _vllm_call(**call: Any) -> dict[str, Any]:
    return _vllm([_bit(tool_calls=[call])])


def _ollama(choices: list[dict[str, Any]], kind: str = "chat.completion.chunk", model: str = "qwen3:4b", **more: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-299", "object": kind, "created": 1766880000, "model": model, "system_fingerprint": "fp_ollama"}
    return head | {"choices": choices} | more


def _slice(content: str = "", finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"index": 0, "delta": {"role": "assistant", "content": content} | delta, "finish_reason": finish}


_OLLAMA_WORDS = [_ollama([_slice(word)]) for word in WORDS]
_OLLAMA_ENDS = [_ollama([_slice("", "length")]), _ollama([], usage=_USAGE)]


def _ollama_error(status: str, message: str, kind: str = "api_error") -> Recorded:
    return _json(status, {"error": {"message": message, "type": kind, "param": None, "code": None}}, "application/json")


def _claude(*events: dict[str, Any]) -> Recorded:
    lines = [f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    return Recorded("".join(lines))


def _claude_block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    head = {"type": "content_block_start", "index": index, "content_block": start}
    return [
        head,
        *({"type": "content_block_delta", "index": index, "delta": d} for d in deltas),
        {"type": "content_block_stop", "index": index},
    ]


_CLAUDE_USAGE = {"input_tokens": 20, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 11, "output_tokens": 1}
_CLAUDE_MESSAGE = {"id": "msg_01", "type": "message", "role": "assistant", "model": "claude", "content": [], "stop_reason": None}
_CLAUDE_START = {"type": "message_start", "message": _CLAUDE_MESSAGE | {"stop_sequence": None, "usage": _CLAUDE_USAGE}}
_CLAUDE_ENDS = [
    {"type": "message_delta", "delta": {"stop_reason": "max_tokens", "stop_sequence": None}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]
_CLAUDE_TEXT = _claude_block(2, {"type": "text", "text": ""}, *({"type": "text_delta", "text": word} for word in WORDS))

RECORDED: dict[str, Recorded] = {
    # ggml-org/llama.cpp: tools/server/tests/unit/test_chat_completion.py; usage in a chunk of its own since #15443
    "llamacpp": _stream(_LLAMA_START, *_LLAMA_WORDS, *_LLAMA_ENDS),
    # before it: usage and timings in the chunk that ends the answer
    "llamacpp_2025": _stream(_LLAMA_START, *_LLAMA_WORDS, _llama([_piece("length")], usage=_USAGE, timings=_TIMINGS)),
    "llamacpp_logprobs": _stream(_LLAMA_START, *(_llama([_piece(None, _chances(w), content=w)]) for w in WORDS), *_LLAMA_ENDS),
    # a model that thinks first (openai-php/client #780), with timings in each chunk and the progress of the prompt (#15827)
    "llamacpp_thinks": _stream(
        _llama([_piece(role="assistant", content=None)], prompt_progress={"total": 237, "cache": 0, "processed": 128, "time_ms": 181}),
        _llama([_piece(reasoning_content="The shelf, ")], timings=_TIMINGS),
        _llama([_piece(reasoning_content="I think.")], timings=_TIMINGS),
        *_LLAMA_WORDS,
        *_LLAMA_ENDS,
    ),
    "llamacpp_whole": _json(
        "200 OK",
        _llama(
            [{"finish_reason": "length", "index": 0, "message": {"role": "assistant", "content": SAID}}],
            "chat.completion",
            usage=_USAGE,
            timings=_TIMINGS,
        ),
    ),
    "llamacpp_loading": _json("503 Service Unavailable", {"error": _LOADING}),
    "llamacpp_key": _json("401 Unauthorized", {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}}),
    "llamacpp_path": _json("404 Not Found", {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}),
    "llamacpp_overflow": _json("400 Bad Request", {"error": _OVERFLOW}),
    # #14566, #15780: 200, and the error as an event; before #16109 in a field that event streams do not have
    "llamacpp_overflow_event": _stream({"error": _OVERFLOW}, done=False),
    "llamacpp_overflow_field": Recorded(f"error: {json.dumps(_OLD_OVERFLOW)}\n\ndata: [DONE]\n\n"),
    # #19774: the context is full while the answer is written
    "llamacpp_full": _stream(
        _LLAMA_START, *_LLAMA_WORDS[:2], {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}}
    ),
    # lmstudio-ai/lmstudio-js #320: no usage unless asked; since then in a chunk of its own
    "lmstudio": _stream(*_LM_START, *_LM_WORDS, _lmstudio([_part("length")]), _lmstudio([], usage=_USAGE, stats={})),
    "lmstudio_nousage": _stream(*_LM_START, *_LM_WORDS, _lmstudio([_part("length")])),
    # lmstudio-bug-tracker #601, and the REST API's own stats and model_info
    "lmstudio_whole": _json(
        "200 OK",
        _lmstudio(
            [
                {
                    "index": 0,
                    "logprobs": None,
                    "finish_reason": "length",
                    "message": {"role": "assistant", "content": SAID, "tool_calls": []},
                }
            ],
            "chat.completion",
            usage=_USAGE,
            stats=_LM_STATS,
            model_info=_LM_INFO,
            runtime={"name": "llama.cpp-linux-x86_64-avx2", "version": "1.3.0", "supported_formats": ["gguf"]},
        ),
    ),
    "lmstudio_tools": _stream(
        _lmstudio([_part(role="assistant", content="Let me look.")]),
        _call(id="365174485", type="function", function={"name": "weather", "arguments": ""}),
        _call(type="function", function={"name": "", "arguments": '{"city"'}),
        _call(type="function", function={"name": "", "arguments": ': "Porto"}'}),
        _lmstudio([_part("tool_calls")]),
    ),
    # #618: a path that it does not know is answered with 200
    "lmstudio_path": _json("200 OK", {"error": "Unexpected endpoint or method. (POST /chat/completions)"}),
    # aaif-goose/goose #11318; lmstudio-bug-tracker #546 in the words of before
    "lmstudio_overflow": Recorded(f"event: error\ndata: {json.dumps({'error': {'message': _TOO_LONG}, 'message': _TOO_LONG})}\n\n"),
    "lmstudio_overflow_2025": Recorded(f"event: error\ndata: {json.dumps({'error': _KEEP})}\n\n"),
    "lmstudio_unloaded": Recorded('event: error\ndata: {"error": {"message": "Model is unloaded."}, "message": "Model is unloaded."}\n\n'),
    "lmstudio_nomodel": _json(
        "404 Not Found",
        {
            "error": {
                "message": "No models loaded. Please load a model in the developer page or use the `lms load` command.",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            }
        },
    ),
    "lmstudio_cannot_load": _json("400 Bad Request", {"error": 'Failed to load model "gpt-oss-20b". Error: Error loading model.'}),
    # vllm-project/vllm #35705: the last word and the end in one chunk, with vLLM's own `stop_reason`
    "vllm": _stream(_VLLM_START, *_VLLM_WORDS, *_VLLM_ENDS),
    # a reasoning parser: `reasoning_content` up to 2025, `reasoning` since (BerriAI/litellm #24019)
    "vllm_thinks_2025": _stream(_VLLM_START, *_thinking("reasoning_content"), *_VLLM_WORDS, *_VLLM_ENDS),
    "vllm_thinks": _stream(_VLLM_START, *_thinking("reasoning"), *_VLLM_WORDS, *_VLLM_ENDS),
    # all tokens went into thinking: `content` is null (recorded of GLM-4.7 with max_tokens 10)
    "vllm_thought_only": _stream(_VLLM_START, *_thinking("reasoning"), _vllm([_bit("length", reasoning=" So")]), _VLLM_USAGE),
    "vllm_whole": _json(
        "200 OK",
        _vllm(
            [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": SAID, "refusal": None, "tool_calls": [], "reasoning": "The shelf."},
                    "logprobs": None,
                    "finish_reason": "length",
                    "stop_reason": None,
                    "token_ids": None,
                }
            ],
            "chat.completion",
            service_tier=None,
            system_fingerprint=None,
            usage=_USAGE | {"prompt_tokens_details": None},
            prompt_logprobs=None,
            kv_transfer_params=None,
        ),
        "application/json",
    ),
    # the name without arguments first; `stop_reason` is a token id where a token of the model's own ended the answer
    "vllm_tools": _stream(
        _VLLM_START,
        _vllm_call(id="chatcmpl-tool-2f0e", type="function", index=0, function={"name": "weather"}),
        _vllm_call(index=0, function={"arguments": '{"city"'}),
        _vllm_call(index=0, function={"arguments": ': "Porto"}'}),
        _vllm([_bit("tool_calls", 151645, content="")]),
        _VLLM_USAGE,
    ),
    # vLLM #4667, #20409, and QAnything's; #24495 has the body of today
    "vllm_overflow_2025": _json("400 Bad Request", _vllm_error("BadRequestError", 400, _VLLM_LONG), "application/json"),
    "vllm_overflow": _json("400 Bad Request", {"error": _vllm_error("BadRequestError", 400, _VLLM_LONG)}, "application/json"),
    "vllm_overflow_event": _stream({"error": _vllm_error("BadRequestError", 400, _VLLM_LONG)}),
    # recorded nowhere: the object of a body, with nothing around it, as an event, should something between us pass it on so
    "vllm_overflow_bare": _stream(_vllm_error("BadRequestError", 400, _VLLM_LONG)),
    "vllm_nomodel": _json("404 Not Found", _vllm_error("NotFoundError", 404, "The model `served` does not exist."), "application/json"),
    "vllm_key": _json("401 Unauthorized", {"error": "Unauthorized"}, "application/json"),
    "vllm_path": _json("404 Not Found", {"detail": "Not Found"}, "application/json"),
    "vllm_dead": _stream({"error": {"message": _VLLM_DEAD, "type": "Internal Server Error", "param": None, "code": 500}}),
    "vllm_dies": _stream(_VLLM_START, *_VLLM_WORDS[:2], {"error": {"message": _VLLM_DEAD, "type": "InternalServerError", "code": 500}}),
    # vLLM's and SGLang's engines have a reason "abort", of a request that they dropped (SGLang: format_finish_reason)
    "vllm_aborts": _stream(_VLLM_START, *_VLLM_WORDS[:2], _vllm([_bit("abort", content="")]), _VLLM_USAGE),
    # ollama/ollama: openai/openai.go, middleware/openai.go; each chunk has the role again
    "ollama": _stream(*_OLLAMA_WORDS, *_OLLAMA_ENDS),
    # dirac-run/dirac #227, jeremychone/rust-genai #106
    "ollama_thinks": _stream(
        _ollama([_slice(reasoning="The shelf, ")]), _ollama([_slice(reasoning="I think.")]), *_OLLAMA_WORDS, *_OLLAMA_ENDS
    ),
    "ollama_whole": _json(
        "200 OK",
        _ollama(
            [{"index": 0, "message": {"role": "assistant", "content": SAID, "reasoning": "The shelf."}, "finish_reason": "length"}],
            "chat.completion",
            usage=_USAGE,
        ),
        "application/json",
    ),
    "ollama_calls": _stream(
        _ollama(
            [
                _slice(
                    tool_calls=[
                        {"id": "call_x1", "index": 0, "type": "function", "function": {"name": "weather", "arguments": '{"city":"Porto"}'}}
                    ]
                )
            ]
        ),
        _ollama([_slice("", "tool_calls")]),
        _ollama([], usage=_USAGE),
    ),
    # netease-youdao/QAnything #555; since autumn 2025 the type says what the status says
    "ollama_nomodel_2024": _ollama_error("404 Not Found", 'model "served" not found, try pulling it first'),
    "ollama_nomodel": _ollama_error("404 Not Found", "model 'served' not found", "not_found_error"),
    "ollama_notools": _ollama_error(
        "400 Bad Request", "registry.ollama.ai/library/qwen3:4b does not support tools", "invalid_request_error"
    ),
    "ollama_memory": _ollama_error("500 Internal Server Error", "model requires more system memory (8.1 GiB) than is available (5.2 GiB)"),
    # its runner dies in an answer: the writer reads no error there, and makes an empty chunk of it
    "ollama_breaks": _stream(*_OLLAMA_WORDS[:2], _ollama([_slice()], model=""), done=False),
    # platform documentation, "Streaming messages", extended thinking: its text and its signature are no text of the answer
    "claude_thinks": _claude(
        _CLAUDE_START,
        *_claude_block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "The shelf, "},
            {"type": "thinking_delta", "thinking": "I think."},
            {"type": "signature_delta", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"},
        ),
        {"type": "ping"},
        *_claude_block(1, {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"}),
        *_CLAUDE_TEXT,
        *_CLAUDE_ENDS,
    ),
}
