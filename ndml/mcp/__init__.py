"""A user's memory as tools of the Model Context Protocol, over stdio and streamable HTTP. Needs the extra `mcp`."""

from ndml.mcp.server import build_server
from ndml.mcp.serving import HttpOptions, serve_http, serve_stdio
from ndml.mcp.tools import MemoryTools

__all__ = ["HttpOptions", "MemoryTools", "build_server", "serve_http", "serve_stdio"]
