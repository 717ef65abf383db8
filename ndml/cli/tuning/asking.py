"""Asks the suite: what each question finds under which weights, which memories there are, and which weights are in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ndml.cli.records import Judged
from ndml.client import Filter, NdmlClient, RankingWeights
from ndml.errors import FieldInvalid, InvalidArgument, NotAvailable, OwnerUnavailable, TraceNotFound

TUNED = ("dense", "lexical", "late", "late_context", "links", "session", "date", "speaker", "asks", "another")
"""Signals whose share is the weight times what was found, in the order in which the node adds them up."""
LEFT_ALONE = {
    "slot": "looks at the 32 that lead alone, and other weights let others lead",
    "newest": "moves a memory to another one's place: no weight times a find",
    "salience": "stands inside dense",
    "strength": "stands inside dense",
}
SHIPPED = {
    "dense": 2.0, "lexical": 1.0, "late": 1.5, "late_context": 3.0, "links": 1.0, "session": 0.3,
    "date": 3.0, "speaker": 1.0, "asks": 0.5, "another": 3.0, "slot": 2.0, "newest": 1.0,
}  # fmt: skip
"""The memory node's own defaults: where the search for the weights in force begins."""
_SAME = 2e-3
"""Difference of two shares, or of their larger one, that rounding may make."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question found, best first."""

    ids: tuple[str, ...]
    scores: tuple[float, ...]
    shares: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, slots=True)
class Asker:
    """Searches with k hits."""

    client: NdmlClient
    k: int

    def answer(self, asked: Judged, weights: Mapping[str, float] | None = None) -> Answer:
        """By the weights in force, or by these. Raises FieldInvalid with the line where the question is refused, OwnerUnavailable where
        only a part of the memory answered."""
        until = Filter(said_until=asked.at) if asked.at else None
        given = RankingWeights(**weights) if weights else None
        try:
            found = self._client(asked).search(asked.query, k=self.k, explain=True, mode="full", filter=until, weights=given)
        except InvalidArgument as error:
            field = ".".join(filter(None, [f"line {asked.line}", *(row.field for row in error.violations[:1])]))
            raise FieldInvalid(f"line {asked.line}: {error.message}", field=field) from None
        if found.stats.partial:
            raise OwnerUnavailable(f"line {asked.line}: a part of the memory did not answer, so its ranking says nothing: try again later")
        return Answer(*zip(*((hit.memory.trace_id, hit.score, hit.signals) for hit in found), strict=True)) if found else Answer((), (), ())

    def check_ids(self, asked: Judged, answer: Answer) -> None:
        """Raises FieldInvalid for an id that is no memory of the question's user."""
        for trace_id in sorted(asked.helpful.difference(answer.ids)):
            try:
                self._client(asked).get(trace_id)
            except TraceNotFound:
                whose = f"no memory {trace_id} of this user: it was deleted, or is another --user's; leave it out"
                raise FieldInvalid(f"line {asked.line}: {whose}", field=f"line {asked.line}.helpful") from None

    def _client(self, asked: Judged) -> NdmlClient:
        return self.client.scoped(user=asked.scope.user, agent=asked.scope.agent, session=asked.scope.session)

    def in_force(self, asked: Sequence[Judged], usual: Sequence[Answer]) -> dict[str, float]:
        """The weights that the `usual` answers were ranked by, so that searches with them give the same; a signal that none of them shows
        is left out, and stays as it is in force: it may hold back what would otherwise be among the hits.

        A signal's share under a weight of ours tells its weight in force, once those that the node adds up before it are known. Raises
        NotAvailable where no weights give the same answers.
        """
        seen = {name for answer in usual for shares in answer.shares for name in shares}
        weights = {name: weight for name, weight in SHIPPED.items() if name in seen}
        firsts = (next((i for i, answer in enumerate(usual) if any(name in s for s in answer.shares)), None) for name in SHIPPED)
        probes = sorted({first for first in firsts if first is not None})
        for _ in range(len(SHIPPED) + 1):
            pairs = [(usual[i], self.answer(asked[i], weights)) for i in probes]
            wrong = _first_difference(pairs)
            if wrong is None:
                return weights
            name, ratio = wrong
            if name not in weights:
                break
            weights[name] = min(float(f"{weights[name] * ratio:.4g}"), 1.0 if name == "newest" else 10.0)
        raise NotAvailable("no weights give the rankings of this suite: memories were written meanwhile, or it is of another release")


def _first_difference(pairs: Sequence[tuple[Answer, Answer]]) -> tuple[str, float] | None:
    """The first signal whose shares differ between answers to the same question, and what its weight must be multiplied by."""
    for name in SHIPPED:
        shares = [
            (mine[trace_id].get(name, 0.0), other.get(name, 0.0))
            for usual, ours in pairs
            for mine in (dict(zip(usual.ids, usual.shares, strict=True)),)
            for trace_id, other in zip(ours.ids, ours.shares, strict=True)
            if trace_id in mine
        ]
        if not any(abs(usual - ours) > _SAME * max(1.0, abs(usual), abs(ours)) for usual, ours in shares):
            continue
        usual_share, our_share = max(shares, key=lambda pair: abs(pair[1]))
        return name, usual_share / our_share if our_share else 1.0
    return None
