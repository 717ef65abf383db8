"""The writer's thread: takes what queued while the last commit was under way, commits it as one group, hands the outcome on.

And the checkpointer's: moves the log into the store beside it, so that no commit pays for it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from ndml.errors import Draining, Overloaded
from ndml.runtime import metrics
from services.memory_node.commit import Commit, Signatures, WriteJob
from services.memory_node.store import Store

_COMMIT_BATCH = metrics.BATCH_SIZE.labels("commit")


class Writer:
    """Bounded queue and one thread. `on_commit` is called on that thread, in commit order, after the data is on disk."""

    def __init__(self, store: Store, on_commit: Callable[[Commit], None], signatures: Signatures | None = None) -> None:
        self._store = store
        self._signatures = signatures
        self._on_commit = on_commit
        self._queue: deque[tuple[WriteJob, int]] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Commit what is queued, then end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, jobs: Sequence[WriteJob]) -> list[WriteJob]:
        """Queue the jobs; returns those that no longer fit. Raises Draining after stop()."""
        limit = self._store.settings.queue_operations
        with self._changed:
            if self._stopping:
                raise Draining("this node is stopping: repeat the write with the same request_id")
            taken = 0
            for job in jobs:
                # One that is larger than the whole queue is let in when it is alone.
                if self._waiting and self._waiting + job.weight > limit:
                    break
                self._queue.append((job, job.size()))
                self._waiting += job.weight
                taken += 1
            self._changed.notify()
        return list(jobs[taken:])

    @property
    def weight(self) -> int:
        """Traces that wait to be written."""
        return self._waiting

    def overloaded(self) -> Overloaded:
        return Overloaded(f"{self._waiting} traces wait to be written (store.queue_operations): come back shortly")

    def _run(self) -> None:
        while jobs := self._take():
            started = time.perf_counter()
            commit = self._commit(jobs)
            metrics.COMMIT_DURATION.observe(time.perf_counter() - started)
            _COMMIT_BATCH.observe(sum(job.weight for job in jobs))
            self._on_commit(commit)
            if self._store.log_bytes() > self._store.settings.log_limit_bytes:
                # While writes keep coming the log can be emptied only between two of them.
                self._store.checkpoint(empty_log=True)

    def _commit(self, jobs: Sequence[WriteJob]) -> Commit:
        if self._signatures is None:
            return self._store.committer.commit(jobs)
        good, refused = self._signatures.screen(jobs)
        commit = self._store.committer.commit(good)
        self._signatures.seal(commit)
        commit.jobs = [*good, *(each.job for each in refused)]
        commit.results += [each.error for each in refused]
        return commit

    def _take(self) -> list[WriteJob]:
        """The next group, within the bounds of a commit; empty when stopped and drained."""
        settings = self._store.settings
        jobs: list[WriteJob] = []
        weight = size = 0
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            while self._queue:
                job, job_bytes = self._queue[0]
                if jobs and (weight + job.weight > settings.commit_operations or size + job_bytes > settings.commit_bytes):
                    break
                self._queue.popleft()
                jobs.append(job)
                weight, size = weight + job.weight, size + job_bytes
            self._waiting -= weight
        return jobs


class Checkpointer:
    """Looks at the log's length now and then: a long one is moved into the store; an idle one is emptied.

    Emptying also removes what deleted traces left in the log.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpointer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        settings = self._store.settings
        seen = -1
        while not self._stop.wait(settings.checkpoint_interval_s):
            sequence = self._store.committer.last_sequence
            idle, seen = sequence == seen, sequence
            if idle and self._store.log_bytes():
                self._store.checkpoint(empty_log=True)
            elif self._store.log_bytes() > settings.checkpoint_bytes:
                self._store.checkpoint(empty_log=False)
