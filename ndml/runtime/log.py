"""Structured logs: JSON lines (or a readable console), trace ids bound, to stderr and to a rotating file where one is set."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path
from typing import Any

import structlog
from opentelemetry import trace

from ndml.runtime.settings import LogSettings


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Logger of a module: `log.info("event_name", key=value)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def _add_trace_ids(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def configure_logging(settings: LogSettings, service: str, instance: str) -> None:
    """Route structlog and the standard library's logging through one formatter. Call once, before anything logs."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_ids,
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    handlers: list[logging.Handler] = [_with_format(logging.StreamHandler(sys.stderr), shared, console, service, instance)]
    if settings.file is not None:
        Path(settings.file).parent.mkdir(parents=True, exist_ok=True)
        rotating = logging.handlers.RotatingFileHandler(settings.file, maxBytes=settings.file_max_bytes, backupCount=settings.file_backups)
        handlers.append(_with_format(rotating, shared, False, service, instance))
    logging.basicConfig(level=settings.level.upper(), handlers=handlers, force=True)
    for noisy in ("faiss", "httpx", "uvicorn.access", "opentelemetry", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _with_format(
    handler: logging.Handler, shared: list[structlog.typing.Processor], console: bool, service: str, instance: str
) -> logging.Handler:
    def add_service(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"], event["instance"] = service, instance
        return event

    last: structlog.typing.Processor = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    steps: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, add_service]
    if not console:
        steps.append(structlog.processors.format_exc_info)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*steps, last]))
    return handler
