"""What models do: embedding, chat, and what chats leave in memory."""

from __future__ import annotations

from .panels import Dashboard, Panel, Query, Row
from .queries import over, quantile, quantiles, rate

_EMBEDDING = Row(
    "Embedding",
    (
        Panel(
            "Texts embedded",
            "ops",
            "A second, by process. Flat with a queue behind it is the model's limit: more replicas, or a GPU.",
            (Query(rate("ndml_embedded_texts_total", "job, instance"), "{{job}} {{instance}}"),),
        ),
        Panel(
            "Found in the gateway's cache",
            "percentunit",
            "Share of texts whose vector was known. Low is normal for new memories; high for repeated questions.",
            (
                Query(
                    " / ".join((rate("ndml_embed_cache_total", "instance", 'result="hit"'), rate("ndml_embed_cache_total", "instance"))),
                    "{{instance}}",
                ),
            ),
            most=1,
        ),
        Panel(
            "Embed calls",
            "s",
            "As the llm service answers them. Far above the batch's time is queueing: more replicas.",
            quantiles("ndml_rpc_duration_seconds", 'method="/ndml.internal.v1.LlmService/Embed"'),
        ),
        Panel(
            "Failed calls of the llm service",
            "reqps",
            "OVERLOADED: its queue is full. MODEL_UNAVAILABLE: the model failed, its log says why.",
            (
                Query(
                    rate("ndml_rpc_errors_total", "method, reason", 'method=~"/ndml[.]internal[.]v1[.]LlmService/.+"'),
                    "{{method}} {{reason}}",
                ),
            ),
        ),
    ),
)

_GENERATING = Row(
    "Chat",
    (
        Panel(
            "Tokens",
            "ops",
            "Read and written a second. An upstream that does not tell counts none.",
            (Query(rate("ndml_generation_tokens_total", "kind"), "{{kind}}"),),
        ),
        Panel(
            "To the first piece of an answer",
            "s",
            "What a user waits before he reads. Grows with the queue: raise chat.max_concurrent where memory allows, or add replicas.",
            quantiles("ndml_generation_first_piece_seconds"),
        ),
        Panel(
            "Batch sizes, p95",
            "short",
            "What shared one step of the model. Growing with load is right; 1 under load: callers ask one after the other.",
            (Query(quantile(0.95, "ndml_batch_size", "queue", 'queue=~"embed|generate|score"'), "{{queue}}"),),
        ),
        Panel(
            "Waiting",
            "short",
            "embed: texts, generate: chats, learning: turns that are yet to be written. At their bound calls are refused.",
            (Query(over("ndml_queue_depth", "job, queue", more='queue=~"embed|generate|learning"'), "{{job}} {{queue}}"),),
        ),
        Panel(
            "Recalls for chats",
            "ops",
            "failed: the model answered without memory, runbook NdmlChatWithoutMemory. Mostly nothing: users have few memories yet.",
            (Query(rate("ndml_chat_recalls_total", "outcome"), "{{outcome}}"),),
            stacked=True,
        ),
        Panel(
            "What became of sentences",
            "ops",
            "written and reinforced are memory; ignored had nothing to keep; failed is lost, runbook NdmlLearningLost.",
            (Query(rate("ndml_learned_statements_total", "outcome"), "{{outcome}}"),),
            stacked=True,
        ),
    ),
)

CHAT = Dashboard("ndml-chat", "NDML models and chat", "Embedding, generation, and what chats leave in memory.", (_EMBEDDING, _GENERATING))
