"""Anti-entropy: every 30 to 60 seconds, and when asked, compare with each partner and mend what differs.

The same round is repair, hand-off, joining and draining: owners noted as incomplete go first, then what each partner shares, then what is
here and belongs to others, which is given to them and let go. A round is bounded; one that had to leave something out is followed at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from ndml.crdt.digests import BUCKETS
from ndml.errors import NdmlError, OwnerUnavailable, RequestMalformed
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.placement import owner_key
from ndml.runtime import metrics, semconv
from ndml.runtime.log import get_logger
from ndml.runtime.telemetry import count_here
from services.memory_node.records import Owner
from services.memory_node.replication.owners import Catalog, Survey, owner_of
from services.memory_node.replication.ports import Clock, LocalStore, Partner, PartnerOf, Shares, Sleep
from services.memory_node.replication.reconcile import Mended, Reconciler, brief
from services.memory_node.replication.settings import SweepSection
from services.memory_node.replication.tracing import RepairSpans

log = get_logger(__name__)

_T = TypeVar("_T")


@dataclass(slots=True)
class Pass:
    """What a round did with one partner. `left`: owners that it had to leave as they were; `whole`: everything shared was looked at;
    `down`: the partner was not asked, for the consensus nodes do not hear of it."""

    whole: bool = False
    down: bool = False
    differed: int = 0
    left: int = 0
    error: NdmlError | None = None

    @property
    def clean(self) -> bool:
        """The partner and this node have the same of all that they share, as of some moment in the round."""
        return self.whole and not self.left and self.error is None


@dataclass(slots=True)
class Round:
    """One round. `coming`: owners held here that each node is still to serve; `foreign`: owners here that belong to others, and of these
    `dropped` ones are gone now."""

    epoch: int
    passes: dict[str, Pass] = field(default_factory=dict)
    coming: dict[str, int] = field(default_factory=dict)
    held: int = 0
    foreign: int = 0
    dropped: int = 0
    repaired: int = 0
    unrepaired: int = 0

    @property
    def clean(self) -> bool:
        """Every partner was reached and has what we have; nothing foreign is left."""
        return all(each.clean for each in self.passes.values()) and not self.unrepaired and self.foreign == self.dropped

    @property
    def unfinished(self) -> bool:
        """There is more to do than a round may."""
        return any(each.error is None and not each.whole for each in self.passes.values())


class Repairs:
    """Owners noted as incomplete, oldest first; past the bound the rounds have to find them. Belongs to the event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._owners: OrderedDict[Owner, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._owners)

    def add(self, owner: Owner) -> bool:
        """False where there is no room: then it is forgotten here."""
        if owner not in self._owners and len(self._owners) >= self._most:
            return False
        self._owners[owner] = None
        return True

    def take(self, most: int) -> list[Owner]:
        return [self._owners.popitem(last=False)[0] for _ in range(min(most, len(self._owners)))]


class Sweeper:
    """Runs the rounds. `mark`, `request` and the figures belong to the event loop."""

    def __init__(
        self,
        store: LocalStore,
        shares: Shares,
        catalog: Catalog,
        reconciler: Reconciler,
        partner_of: PartnerOf,
        settings: SweepSection,
        *,
        clock: Clock,
        sleep: Sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._shares = shares
        self._catalog = catalog
        self._reconciler = reconciler
        self._partner_of = partner_of
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._repairs = Repairs(settings.repairs_kept)
        self._asked = asyncio.Event()
        self._whole_asked = "started"  # what happened while this node was down is not known
        self._retry_s = 0.0
        self._spans = RepairSpans()
        self._turn = asyncio.Lock()
        self._under_way = 0
        self.last: Round | None = None
        self._ended_at: float | None = None

    @property
    def behind(self) -> int:
        """Owners whose copies are known to differ."""
        return len(self._repairs) + (0 if self.last is None else sum(each.left for each in self.last.passes.values()))

    @property
    def last_round_s(self) -> float:
        """Seconds since the last round that looked at everything; negative: none yet."""
        return -1.0 if self._ended_at is None else self._clock() - self._ended_at

    @property
    def under_way(self) -> int:
        """Owners that the present round has found to differ and has not come to yet."""
        return self._under_way

    def mark(self, owner: Owner, traceparents: Iterable[str] = ()) -> None:
        """The owner is known to be incomplete here: it is mended soon. `traceparents`: of requests whose updates showed it."""
        if self._repairs.add(owner):
            self._spans.behind(owner, traceparents)
            self._asked.set()
        else:
            self.request("repairs_kept")

    def request(self, why: str) -> None:
        """Have a round soon: the placement changed, a partner came back, updates were lost. `why`: for the trace of what it mends."""
        self._whole_asked = self._whole_asked or why
        self._asked.set()

    async def run(self) -> None:
        """Rounds without end."""
        settings = self._settings
        while True:
            if self.last is not None and self.last.unfinished:
                self.request("unfinished")
            why = await self._due(self._rng.uniform(settings.least_interval_s, settings.most_interval_s))
            try:
                if why:
                    self._retry_unless_reached(await self.round(why), why)
                else:
                    await self.repair()
            except NdmlError as error:
                log.warning("round_failed", **brief(error))
            await self._sleep(settings.least_gap_s)

    def _retry_unless_reached(self, done: Round, why: str) -> None:
        """Who asked for the round does not ask again: where it did not reach a partner that is not known to be down, it is owed still."""
        missed = any(each.error is not None and not each.down for each in done.passes.values())
        owed = missed and (why != "interval" or self._retry_s > 0)
        self._retry_s = min(2 * self._retry_s or self._settings.retry_s, self._settings.least_interval_s) if owed else 0.0

    async def _due(self, pause: float) -> str:
        """Wait until something is to be done; why a whole round is, "" where noted owners are all."""
        try:
            async with asyncio.timeout(min(pause, self._retry_s * self._rng.uniform(0.5, 1.0)) if self._retry_s else pause):
                await self._asked.wait()
        except TimeoutError:
            self._whole_asked = self._whole_asked or ("retry" if self._retry_s else "interval")
        self._asked.clear()
        why, self._whole_asked = self._whole_asked, ""
        return why

    async def repair(self) -> Round:
        """Mend the owners that are noted as incomplete, nothing else. Raises NdmlError of the store."""
        async with self._turn:
            done = Round(self._shares.epoch)
            self._spans.begin("behind")
            await self._repair(done)
        return done

    async def round(self, why: str = "asked") -> Round:
        """One round, now; a second one waits for the first. Raises NdmlError of the store; a partner's stand in the result."""
        async with self._turn:
            done = Round(self._shares.epoch)
            self._spans.begin(why)
            await self._note_unsettled()
            await self._repair(done)
            await self._compare_all(done)
            await self._hand_over(done)
        self.last = done
        if all(each.whole for each in done.passes.values()):
            self._ended_at = self._clock()
        metrics.REPLICATION_ROUNDS.labels("clean" if done.clean else "behind").inc()
        return done

    # Owners noted as incomplete

    async def _note_unsettled(self) -> None:
        """Digests tell nothing where copies are equal and only what is known of authors lags; until that is told, reads go elsewhere."""
        for owner in await self._store.call(lambda reader: reader.unsettled(self._settings.round_owners)):
            self._repairs.add(owner)

    async def _repair(self, done: Round) -> None:
        marked = self._repairs.take(self._settings.round_owners)
        results = await self._side_by_side(marked, self._repair_one)
        for owner, ok in zip(marked, results, strict=True):
            done.repaired += ok
            if not ok:
                self._repairs.add(owner)
        done.unrepaired = len(self._repairs)

    async def _repair_one(self, owner: Owner) -> bool:
        """Mend with every other copy. True when every living one was reached, and at least one where there are any."""
        copies = self._shares.copies(*owner)
        if self._shares.node_id not in copies:
            return True  # not ours, or no longer: the hand-over sees to it
        alive = {member.node_id for member in self._shares.partners() if member.alive}
        others = [node_id for node_id in copies if node_id != self._shares.node_id]
        reached = [await self._mend(owner, node_id) for node_id in others if node_id in alive]
        await self._settle(owner, reached, [node_id for node_id in others if node_id not in alive])
        return bool(reached or not others) and all(each is not None and each.covered for each in reached)

    async def _settle(self, owner: Owner, reached: Collection[Mended | None], absent: Collection[str]) -> None:
        """Where nobody can be asked for a missing update the gap stays. Once the copies are equal reads need not remember it: the one that
        is away has as much of what it wrote itself."""
        digests = {each.digest if each is not None and each.covered else b"" for each in reached}
        if len(absent) > 1 or len(digests) != 1 or b"" in digests:
            return
        if await self._store.call(lambda reader: reader.shown(owner) != reader.heads(owner)):
            await self._store.settle(owner, digests.pop(), next(iter(absent), ""))

    # What is shared with each partner

    async def _compare_all(self, done: Round) -> None:
        for member in self._shares.partners():
            survey = await self._catalog.survey()
            done.held, done.foreign, done.coming = survey.held, len(survey.foreign), dict(survey.coming)
            result = done.passes[member.node_id] = Pass()
            if not member.alive:
                result.down, result.error = True, OwnerUnavailable(f"{member.node_id} is down")
                continue
            try:
                await self._compare(member.node_id, survey, result)
            except NdmlError as error:
                result.error = error
                log.info("partner_not_compared", partner=member.node_id, **brief(error))

    async def _compare(self, node_id: str, survey: Survey, result: Pass) -> None:
        partner = self._partner_of(node_id)
        shared = survey.shared_with(node_id)
        request = rpb.CompareBucketsRequest(node_id=self._shares.node_id, digests=b"".join(shared.digests()), epoch=survey.epoch)
        began_ns = time.time_ns()
        answer = await partner.compare(request)
        if answer.epoch != survey.epoch:
            # Shares differ between epochs: what differs now need not be different.
            raise OwnerUnavailable(f"{node_id} has epoch {answer.epoch} and this node {survey.epoch}: they settle by themselves")
        differing = set(answer.differing)
        if any(bucket >= BUCKETS for bucket in differing):
            raise RequestMalformed(f"buckets are numbered 0 to {BUCKETS - 1}", field="differing")
        if not differing:
            result.whole = True
            return
        with self._spans.digest(node_id, began_ns):
            owners, whole = await self._differing_owners(node_id, partner, survey, differing)
            result.differed = len(owners)
            count_here(semconv.DIFFERING, len(owners))
            outcomes = await self._side_by_side(list(owners), lambda owner: self._mend(owner, node_id, claimed=owners[owner]))
        result.left = sum(outcome is None or not (outcome.covered and outcome.complete) for outcome in outcomes)
        result.whole = whole

    async def _differing_owners(
        self, node_id: str, partner: Partner, survey: Survey, differing: Collection[int]
    ) -> tuple[dict[Owner, int], bool]:
        """Owners that differ with the partner's records of each, and whether these are all: a round takes a bounded number, and believes
        no endless list."""
        settings, shared = self._settings, survey.shared_with(node_id)
        ours = {key: digest for bucket in differing for key, digest in shared.owners(bucket).items()}
        found: dict[Owner, int] = {}
        listed = 0
        async for message in partner.list_owners(rpb.ListOwnersRequest(shared_with=self._shares.node_id, buckets=sorted(differing))):
            listed += max(1, len(message.owners))
            for state in message.owners:
                if state.records and ours.pop(owner_key(state.tenant, state.user), b"") != state.digest:
                    found[owner_of(state)] = state.records
            if len(found) >= settings.round_owners or listed > settings.most_records:
                return dict(islice(found.items(), settings.round_owners)), False
        room = settings.round_owners - len(found)
        found |= dict.fromkeys((_owner_from(key) for key in islice(ours, room)), 0)
        return found, len(ours) <= room

    async def _mend(self, owner: Owner, node_id: str, *, fetch: bool = True, claimed: int | None = None) -> Mended | None:
        """None: it failed, and the log says why."""
        try:
            with self._spans.repair(owner, node_id) as tell:
                async with asyncio.timeout(self._settings.owner_limit_s):
                    done = await self._reconciler.mend(owner, self._partner_of(node_id), fetch=fetch, claimed=claimed)
                tell(done.fetched, done.pushed)
            return done
        except TimeoutError:
            log.warning("owner_not_mended", partner=node_id, reason="sweep.owner_limit_s")
        except NdmlError as error:
            log.info("owner_not_mended", partner=node_id, **brief(error))
        return None

    # What is here and belongs to others

    async def _hand_over(self, done: Round) -> None:
        if not self._shares.partners():
            return
        survey = await self._catalog.survey()
        foreign = list(islice(survey.foreign, self._settings.round_owners))
        done.foreign = len(survey.foreign)
        done.dropped = sum(await self._side_by_side(foreign, self._give))
        if done.dropped:
            self._catalog.forget()
        if done.foreign > len(foreign):
            self.request("foreign_left")

    async def _give(self, owner: Owner) -> bool:
        """Give the owner to all its copies; when every one has all that is here, let it go. Nothing is written to it here meanwhile."""
        copies = self._shares.copies(*owner)
        if not copies or self._shares.node_id in copies:
            return False
        given = [await self._mend(owner, node_id, fetch=False) for node_id in copies]
        digests = {each.digest if each is not None and each.covered else b"" for each in given}
        if len(digests) != 1 or b"" in digests or self._shares.copies(*owner) != copies:
            return False
        return await self._store.drop(owner, digests.pop())

    async def _side_by_side(self, owners: Collection[Owner], work: Callable[[Owner], Awaitable[_T]]) -> list[_T]:
        room = asyncio.Semaphore(self._settings.owners_at_once)

        async def one(owner: Owner) -> _T:
            async with room:
                try:
                    return await work(owner)
                finally:
                    self._under_way -= 1

        self._under_way += len(owners)
        return await asyncio.gather(*(one(owner) for owner in owners))


def _owner_from(key: bytes) -> Owner:
    """The owner of an `owner_key`."""
    tenant = 4 + int.from_bytes(key[:4], "big")
    return Owner(key[4:tenant].decode(), key[tenant:].decode())
