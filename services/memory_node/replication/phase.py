"""Joining and leaving the suite. Both are rounds of the sweep until nothing is left to move; the node says itself when it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from ndml.errors import FieldInvalid, NdmlError
from ndml.placement import MemberPhase
from ndml.runtime.log import get_logger
from services.memory_node.replication.ports import LocalStore, Shares, Sleep
from services.memory_node.replication.reconcile import brief
from services.memory_node.replication.settings import PhaseSection
from services.memory_node.replication.sweep import Round, Sweeper

log = get_logger(__name__)


class Membership(Protocol):
    """This node's own word on how it takes part (services/memory_node/heartbeat.py)."""

    @property
    def phase(self) -> MemberPhase: ...

    async def set_phase(self, phase: MemberPhase) -> object:
        """Durable when it returns. Raises FieldInvalid, OSError."""
        ...


class PhaseKeeper:
    """Run it as a task. `pause(True)` makes the node refuse its owners' callers until `pause(False)`."""

    def __init__(
        self,
        membership: Membership,
        store: LocalStore,
        shares: Shares,
        sweeper: Sweeper,
        pause: Callable[[bool], None],
        settings: PhaseSection,
        *,
        sleep: Sleep,
    ) -> None:
        self._membership = membership
        self._store = store
        self._shares = shares
        self._sweeper = sweeper
        self._pause = pause
        self._settings = settings
        self._sleep = sleep
        self._changed = asyncio.Event()
        self._left = 0

    @property
    def phase(self) -> MemberPhase:
        """By this node's own word."""
        return self._membership.phase

    @property
    def to_move(self) -> int:
        """Owners still to be handed over while joining, leaving or gone; 0 in an active node."""
        return 0 if self.phase is MemberPhase.ACTIVE else max(self._left, self._sweeper.under_way)

    async def set(self, phase: MemberPhase) -> MemberPhase:
        """Begin to leave, or to join again. What is so already, or on its way, stays. Returns the phase now. Raises FieldInvalid."""
        now = self.phase
        if phase is MemberPhase.LEAVING and now in (MemberPhase.ACTIVE, MemberPhase.JOINING):
            if not any(partner.stays for partner in self._shares.partners()):
                raise FieldInvalid("no other member could take over what this node has: add one first", field="phase")
            survey = self._sweeper.last
            self._left = 0 if survey is None else survey.held
            await self._say(phase)
        elif phase is MemberPhase.JOINING and now in (MemberPhase.LEAVING, MemberPhase.LEFT):
            await self._say(phase)
        elif phase not in (MemberPhase.LEAVING, MemberPhase.JOINING):
            raise FieldInvalid("LEAVING drains the node, JOINING brings it back; the other phases it takes by itself", field="phase")
        self._changed.set()
        return self.phase

    async def run(self) -> None:
        """Do what the phase asks for, without end; a drain that a restart cut short goes on."""
        while True:
            try:
                if self.phase is MemberPhase.JOINING:
                    await self._join()
                elif self.phase is MemberPhase.LEAVING:
                    await self._leave()
                elif self.phase is MemberPhase.LEFT:
                    await self._empty()
            except (NdmlError, OSError) as error:
                log.warning(
                    "phase_stuck", phase=self.phase.name, **(brief(error) if isinstance(error, NdmlError) else {"error": str(error)})
                )
            # The heartbeat may change the phase by itself, so it is looked at without being told.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.retry_s):
                    await self._changed.wait()
            self._changed.clear()

    async def _join(self) -> None:
        """One try: a whole round, with nothing left of what any living partner shares."""
        if self._shares.phase is not MemberPhase.JOINING:
            return  # the others do not know yet: they would not compare what is to come here
        done = await self._sweeper.round()
        self._left = _left(done)
        # Of a single copy nobody else has what a dead partner has.
        needed = frozenset(done.passes) if self._shares.replication_factor == 1 else frozenset()
        if done.epoch == self._shares.epoch and _has_all(done, needed):
            await self._say(MemberPhase.ACTIVE)

    async def _leave(self) -> None:
        """One try: a whole round beside the users, then a last one without them."""
        if self._shares.phase is not MemberPhase.LEAVING or not await self._gave_all():
            return
        self._pause(True)
        try:
            await self._written()
            if await self._gave_all() and self.phase is MemberPhase.LEAVING:
                await self._say(MemberPhase.LEFT)
                await self._arrived(MemberPhase.LEFT)
        finally:
            self._pause(False)
        self._sweeper.request("left")

    async def _empty(self) -> None:
        """What is left here belongs to others: the rounds hand it over and let it go."""
        done = self._sweeper.last
        self._left = 0 if done is None else max(0, done.foreign - done.dropped)

    async def _gave_all(self) -> bool:
        done = await self._sweeper.round()
        self._left = _left(done)
        taking = frozenset(node_id for node_id, owners in done.coming.items() if owners)
        return done.epoch == self._shares.epoch and _has_all(done, taking) and any(each.clean for each in done.passes.values())

    async def _written(self) -> None:
        """What was let in before the pause is on disk: the writes, then what they in turn had written. Others' writes go on meanwhile."""
        for _ in range(2):
            await self._store.written()

    async def _arrived(self, phase: MemberPhase) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.pause_s):
                while self._shares.phase is not phase:
                    await self._sleep(self._settings.poll_s)

    async def _say(self, phase: MemberPhase) -> None:
        was = self.phase
        await self._membership.set_phase(phase)
        log.info("phase_set", phase=phase.name, was=was.name, left=self._left)


def _has_all(done: Round, needed: frozenset[str]) -> bool:
    """Every partner is equal; one that is down may be missing unless it is `needed`, for the other copies have what it has."""
    reached = all(each.clean or (each.down and node_id not in needed) for node_id, each in done.passes.items())
    return reached and needed <= done.passes.keys() and not done.unrepaired


def _left(done: Round) -> int:
    """Owners still to be moved, as far as the round could tell: of a partner that it did not reach all that are to come there."""
    left = sum(each.left if each.error is None else done.coming.get(node_id, 0) for node_id, each in done.passes.items())
    return left + max(0, done.foreign - done.dropped)
