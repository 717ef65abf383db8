"""The memory behind a model: a running suite, or one of our own. One of our own ends with the object, the interpreter, or its death."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

from ndml.errors import ModelUnavailable
from ndml.integrated.config import MemoryConfig
from ndml.testing import Suite, SuiteError, SuiteOptions


class OwnSuite:
    """One gateway, one memory node, one consensus node and the embedder, as processes on free loopback ports.

    They end with `stop`, when this object is collected, when the interpreter ends, and by themselves when it dies.
    """

    def __init__(self, config: MemoryConfig) -> None:
        """Blocks until it serves. Raises ModelUnavailable, with the end of the log, where it does not start."""
        made = "" if config.data_dir else tempfile.mkdtemp(prefix="ndml-")
        llm = {"CHAT__MODEL": ""}  # the language model is here: theirs would be a second one
        if config.embedding_model:
            llm["EMBEDDING__MODEL"] = config.embedding_model
        options = SuiteOptions(
            data_dir=Path(config.data_dir or made).expanduser(),
            memory_nodes=1,
            consensus_nodes=1,
            settings={"llm": llm},
            log_level="warning",
            ready_timeout_s=config.ready_timeout_s,
        )
        suite = Suite(options)
        self._end = weakref.finalize(self, _ended, suite, made)
        try:
            suite.start()
        except SuiteError as error:
            self.stop()
            raise ModelUnavailable(f"the memory suite did not start: {error}") from error
        self.address = suite.grpc_address

    def stop(self) -> None:
        """Drain and end the processes; again: nothing."""
        self._end()


def _ended(suite: Suite, made: str) -> None:
    suite.stop()
    if made:
        shutil.rmtree(made, ignore_errors=True)
