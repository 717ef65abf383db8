from ndml.wire import error_to_status as to_status
from ndml.wire import rpc_error_to_ndml as from_rpc_error
from ndml.wire import status_to_error as from_status

__all__ = ["from_rpc_error", "from_status", "to_status"]
