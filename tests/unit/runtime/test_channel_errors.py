"""What a failed call means where no server said anything."""

from __future__ import annotations

import grpc
import pytest

from ndml.errors import InternalFault, NdmlError, Unavailable
from ndml.wire import rpc_error_to_ndml


@pytest.mark.parametrize(
    ("code", "details", "meant"),
    [
        (grpc.StatusCode.INTERNAL, "Internal error from Core", Unavailable),
        (grpc.StatusCode.INTERNAL, "a fault of the server's", InternalFault),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", Unavailable),
    ],
)
def test_a_lost_connection_is_unavailable_however_grpc_words_it(code: grpc.StatusCode, details: str, meant: type[NdmlError]) -> None:
    error = rpc_error_to_ndml(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details, None))
    assert isinstance(error, meant) and details in error.message
