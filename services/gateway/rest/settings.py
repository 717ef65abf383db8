"""Knobs of the REST door."""

from __future__ import annotations

from pydantic import Field

from ndml.runtime.settings import Section


class RestSettings(Section):
    """The REST server of the gateway."""

    enabled: bool = Field(True, description="Serve REST beside gRPC.")
    host: str = Field("127.0.0.1", description="Address to listen on. Loopback by default: opening it to a network is a decision.")
    port: int = Field(7780, ge=0, le=65535, description="REST port. 0: any free one.")
    tls: bool = Field(
        True, description="By TLS where tls.cert_file is set. False: plain text, for a proxy beside the process that ends TLS."
    )
    max_body_bytes: int = Field(32 << 20, ge=1024, description="Largest request body; the same as the largest gRPC message.")
    body_budget_bytes: int = Field(128 << 20, ge=1024, description="Bytes of all bodies held at once; beyond it: OVERLOADED.")
    body_timeout_s: float = Field(30.0, gt=0, description="A body must be in by then: a client that trickles bytes may not hold memory.")
    thread_above_bytes: int = Field(16 << 10, ge=0, description="Larger JSON is converted in a thread: 16 KiB of hits take some 10 ms.")
    max_query_fields: int = Field(256, ge=1, description="Fields in a query string; each costs a look-up, no request message has as many.")
    max_timeout_s: float = Field(3600.0, gt=0, description="Largest deadline that ndml-timeout-ms may ask for.")
    chat_max_bytes: int = Field(1 << 20, ge=1024, description="POST /chat gathers the answer; a model that goes on beyond is broken.")
    max_embeddings: int = Field(2048, ge=1, description="Texts of one POST /v1/embeddings, as OpenAI's own servers take.")
    model_aliases: dict[str, str] = Field(
        {"default": ""},
        description="On the OpenAI routes: names of models that stand for another, or for the one that is configured (empty). "
        'The name "*" stands for every name that is not here: clients that insist on gpt-4o then talk to what there is.',
    )
    max_connections: int = Field(4096, ge=1, description="Open connections; one more is answered 503. Each costs a socket and some 10 kB.")
    keep_alive_s: int = Field(60, ge=1, description="An idle connection is closed after this; above the 55 s of many load balancers.")
    drain_s: float = Field(10.0, ge=0, description="On stop: calls under way may finish this long before they are cancelled.")
