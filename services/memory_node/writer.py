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
    """Looks at the log now and then: a long one is moved into the store; an idle one is emptied.

    scrub_s: how often it is emptied while writes go on, where it has what was deleted or replaced meanwhile.
    """

    def __init__(self, store: Store, scrub_s: float = 5.0) -> None:
        self._store = store
        self._scrub_s = scrub_s
        self._seen = self._clean = -1
        self._scrubbed = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpointer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        """One look. Idle: nothing was written since the one before."""
        settings, committer = self._store.settings, self._store.committer
        sequence, removed = committer.last_sequence, committer.removed_at
        idle, self._seen = sequence == self._seen, sequence
        if idle and self._store.log_bytes():
            self._store.checkpoint(empty_log=True)
        elif removed > self._clean and time.monotonic() - self._scrubbed >= self._scrub_s:
            self._scrubbed = time.monotonic()
            # Most of it beside the writer, so that what keeps it out is short.
            self._store.checkpoint(empty_log=False)
            if self._store.checkpoint(empty_log=True):
                self._clean = removed
        elif self._store.log_bytes() > settings.checkpoint_bytes:
            self._store.checkpoint(empty_log=False)

    def _run(self) -> None:
        while not self._stop.wait(self._store.settings.checkpoint_interval_s):
            self.look()
