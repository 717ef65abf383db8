"""Signing on the writer's thread: others' updates are judged before a group commits, this node's are signed before anybody hears of them.

A crash between the commit and the signature harms nobody: nobody has seen the update, and it is signed when the node starts again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ndml.errors import FieldInvalid, NdmlError, Overloaded, StoreUnavailable
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime import metrics
from services.memory_node.commit import Commit, Refused, WriteJob
from services.memory_node.reader import Reader
from services.memory_node.records import Owner
from services.memory_node.replication.ledger import in_parts
from services.memory_node.replication.parts import own_part
from services.memory_node.replication.ports import Admitted
from services.memory_node.replication.signing import Notary
from services.memory_node.store import Store

_PAGE = 256
"""Updates signed in one turn of the chains: some 25 ms."""


class Seals:
    """Signatures of commit.py around a Notary, which it closes. `open` before the first commit; one thread, but for `kept`."""

    def __init__(self, notary: Notary, *, accepts_records: bool = False) -> None:
        self.notary = notary
        self._accepts_records = accepts_records
        self._reader: Reader | None = None
        self._signed = 0

    def open(self, store: Store) -> None:
        """Sign what a crash left unsigned. Raises StoreUnavailable."""
        self._reader = store.reader()
        self._sign({}, store.committer.last_sequence)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self.notary.close()

    def trust_of(self, replica: int) -> int:
        return self.notary.trust_of(replica)

    def kept(self, owner: Owner, trace_ids: Sequence[bytes]) -> list[rpb.OwnerUpdate]:
        return self.notary.kept(owner, trace_ids)

    def mends(self, owner: Owner, trace_ids: Sequence[bytes]) -> list[rpb.OwnerUpdate]:
        return [in_parts(update) for update in self.notary.kept(owner, trace_ids)]

    def screen(self, jobs: Sequence[WriteJob]) -> tuple[list[WriteJob], list[Refused]]:
        strangers = [job for job in jobs if isinstance(job.action, pb.MergeAction) and not job.checked]
        if not strangers:
            return list(jobs), []
        try:
            for job in strangers:
                self._mend(job)
            strangers = [job for job in strangers if not job.checked]
            refused, extra = self._judge(strangers)
        except NdmlError as error:
            refused, extra = [Refused(job, error) for job in strangers], []
        out = {id(each.job) for each in refused}
        return [job for job in jobs if id(job) not in out] + extra, refused

    def _mend(self, job: WriteJob) -> None:
        """A read found copies that differ: as in a repair, what is signed is joined and the rest is not, whatever stands before it."""
        assert isinstance(job.action, pb.MergeAction)
        updates = job.action.updates
        if not updates or job.action.records or not all(update.leaves for update in updates):
            return
        good = self.notary.inspect(updates)
        self.notary.keep(good)
        names = {update.replica: update.node_id for update in good}
        named = [rpb.OwnerUpdate(tenant=job.owner.tenant, user=job.owner.user, replica=one, node_id=name) for one, name in names.items()]
        records = [record for update in good for record in update.records]
        job.action, job.checked = pb.MergeAction(updates=named, records=records), True

    def _judge(self, strangers: list[WriteJob]) -> tuple[list[Refused], list[WriteJob]]:
        """Jobs that do not go on, and joins of what may be joined apart from them."""
        refused = self._slowed(strangers)
        out = {id(each.job) for each in refused}
        strangers = [job for job in strangers if id(job) not in out]
        updates = sorted((u for job in strangers for u in _signed(job)), key=lambda update: (update.replica, update.counter))
        assert self._reader is not None, "screened before it was opened"
        heads = {owner: self._reader.heads(owner) for owner in {Owner(update.tenant, update.user) for update in updates}}
        verdicts = {_key(each.update): each for each in self.notary.judge(updates, heads)}
        self._count(verdicts.values())
        whole: set[bytes] = set()
        for job in strangers:
            error = self._refusal(job, verdicts)
            if error is None:
                whole |= {_key(update) for update in _signed(job)}
            else:
                refused.append(Refused(job, error))
        extra = [each.update for key, each in verdicts.items() if each.join and key not in whole]
        return refused, [_join(update) for update in extra]

    def _slowed(self, jobs: Sequence[WriteJob]) -> list[Refused]:
        """Jobs of authors that have written too much: nothing is lost, what a gateway cannot bring comes on the stream, at its pace."""
        refused = []
        for job in jobs:
            names = {update.node_id for update in _signed(job)}
            wait_s, name = max(((self.notary.rates.wait_s(name), name) for name in names), default=(0.0, ""))
            if wait_s > 0:
                metrics.AUTHORS_SLOWED.labels("refused").inc()
                text = f"node {name!r} writes more than this one takes (replication.signing.author_updates_per_s): come back then"
                refused.append(Refused(job, Overloaded(text, retry_after_s=wait_s)))
        return refused

    def _count(self, verdicts: Iterable[Admitted]) -> None:
        """Only what is signed well and new counts against an author: another's forgeries and replays must not use up what it may say."""
        for name, updates in Counter(each.update.node_id for each in verdicts if each.new).items():
            self.notary.rates.took(name, updates)

    def _refusal(self, job: WriteJob, verdicts: dict[bytes, Admitted]) -> NdmlError | None:
        assert isinstance(job.action, pb.MergeAction)
        if (job.action.records or job.action.heads) and not self._accepts_records:
            text = "updates are signed here, and these records are not (an operator's restore needs replication.signing.accept_restore)"
            return FieldInvalid(text, field="merge.records")
        for i, update in enumerate(job.action.updates):
            if _is_question(update):
                continue
            verdict = verdicts[_key(update)]
            if not verdict.join and verdict.settled:
                return FieldInvalid(f"this update of node {update.node_id!r} is not taken: the log says why", field=f"merge.updates[{i}]")
            if not verdict.join:
                return Overloaded("the update waits for what it builds on: come back shortly")
        return None

    def seal(self, commit: Commit) -> None:
        placed = {job.update.counter: job for job in commit.jobs if job.update is not None and job.update.counter}
        try:
            self._sign(placed, commit.last_sequence)
            for job, result in zip(commit.jobs, commit.results, strict=True):
                if job.update is not None and not isinstance(result, NdmlError):
                    self._complete(job)
            joined = [job for job, result in zip(commit.jobs, commit.results, strict=True) if isinstance(result, pb.MergeResult)]
            if others := [update for job in joined for update in _signed(job) if update.signature]:
                self.notary.keep(others)
        except StoreUnavailable as error:
            # It stands and cannot be shown: the caller repeats it.
            shown = [job.update is not None or isinstance(job.action, pb.MergeAction) for job in commit.jobs]
            commit.results = [error if one else result for one, result in zip(shown, commit.results, strict=True)]

    def _sign(self, placed: dict[int, WriteJob], last: int) -> None:
        """Everything in the journal, in order; of jobs whose update is asked for that one."""
        assert self._reader is not None, "sealed before it was opened"
        while rows := self._reader.journal(self._signed, _PAGE):
            jobs = [placed.get(row.sequence) for row in rows]
            updates = [self._reader.update_of(row) if job is None else _whole(job) for row, job in zip(rows, jobs, strict=True)]
            for job, signed in zip(jobs, self.notary.sign_all(updates), strict=True):
                if job is not None:
                    job.repeated = [record.trace_id for record in _whole(job).records if own_part(record, signed.replica) is None]
                    job.update = signed
            self._signed = rows[-1].sequence
        self.notary.sealed = last

    def _complete(self, job: WriteJob) -> None:
        """What was there before goes along as its authors signed it."""
        update = _whole(job)
        repeated = job.repeated if update.counter else [record.trace_id for record in update.records]
        others = self.notary.kept(job.owner, repeated) if repeated else []
        signed = [update, *others] if update.counter else others
        job.update, job.more = (signed[0], signed[1:]) if signed else (None, [])


def _whole(job: WriteJob) -> rpb.OwnerUpdate:
    assert job.update is not None
    return job.update


def _signed(job: WriteJob) -> list[rpb.OwnerUpdate]:
    assert isinstance(job.action, pb.MergeAction)
    return [update for update in job.action.updates if not _is_question(update)]


def _is_question(update: rpb.OwnerUpdate) -> bool:
    """It says nothing; its sender wants to hear the author's head."""
    return not (update.records or update.counter or update.previous or update.envelope)


def _key(update: rpb.OwnerUpdate) -> bytes:
    return update.SerializeToString(deterministic=True)


def _join(update: rpb.OwnerUpdate) -> WriteJob:
    job = WriteJob(Owner(update.tenant, update.user), pb.MergeAction(updates=[update]))
    job.checked = True
    return job
