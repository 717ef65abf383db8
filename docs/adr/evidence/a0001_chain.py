"""What nesting costs: grpc.aio interceptors that do nothing, and the whole chain of NDML in one object. For ADR 1."""

import asyncio
import statistics
import time
from typing import Any

import grpc

from ndml.internal.v1 import llm_pb2
from ndml.runtime.admission import Limits
from ndml.runtime.auth import AnonymousAuthenticator
from ndml.runtime.call import Call
from ndml.runtime.interceptors import Chain, ChainOptions, Method
from ndml.runtime.validation import ProtoValidator

CALLS, ROUNDS, STAGES = 2_000, 7, 8


class Nothing(grpc.aio.ServerInterceptor):
    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)

        async def run(request: bytes, context: Any) -> Any:
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(run)


async def echo(request: Any, _: Any) -> Any:
    return request


async def round_trip(interceptors: int) -> float:
    """Microseconds of a call, one caller."""
    server = grpc.aio.server(interceptors=[Nothing() for _ in range(interceptors)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", {"C": grpc.unary_unary_rpc_method_handler(echo)}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/a.B/C")
        for _ in range(200):
            await call(b"x")
        began = time.process_time()
        for _ in range(CALLS):
            await call(b"x")
        took = time.process_time() - began
    await server.stop(0)
    return took / CALLS * 1e6


async def chain() -> float:
    """Microseconds of NDML's chain: metrics, log, errors, admission, tenancy, parsing, the proto's rules, deadline."""
    method = Method("/a.B/C", llm_pb2.EmbedRequest, llm_pb2.EmbedRequest, echo, False, False)
    whole = Chain(ChainOptions(AnonymousAuthenticator(), True, Limits(100), 30.0, 1.0), ProtoValidator(), lambda: True)
    data = llm_pb2.EmbedRequest(texts=["a"]).SerializeToString()
    began = time.process_time()
    for _ in range(CALLS):
        await whole.unary(method, data, Call("/a.B/C"))
    return (time.process_time() - began) / CALLS * 1e6


async def main() -> None:
    none, some, whole = [], [], []
    for _ in range(ROUNDS):
        none.append(await round_trip(0))
        some.append(await round_trip(STAGES))
        whole.append(await chain())
    bare, nested = statistics.median(none), statistics.median(some)
    print(f"CPU of a call, client included: {bare:.0f} us bare, {nested:.0f} us with {STAGES} empty interceptors")
    print(f"  {(nested - bare) / STAGES:.1f} us for each interceptor, {nested - bare:.0f} us for {STAGES}")
    print(f"the whole chain of NDML: {statistics.median(whole):.0f} us")


asyncio.run(main())
