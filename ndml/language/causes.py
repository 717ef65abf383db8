"""Which earlier turns a text names as a cause or as an effect, with the words that say so. Rules of English, no model.

A link needs a marker ("because", "due to", "that is why", "so we ...") and something that points to the turn: a pronoun or a bare reply,
which mean the turn before, or content words of the marked clause that an earlier turn has too. That one was said after the other is no
evidence. What no rule reads has no cause, and most has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

from ndml.language.sentences import sentences
from ndml.language.statements import is_question
from ndml.language.terms import terms

LOOKED_BACK = 8
"""Earlier turns that a clause may mean by its words."""
MOST_CAUSES = 2
"""Of one text: what caused it, and what it explains."""
EVIDENCE_CHARS = 200
_ASKED_BACK = 3
"""Turns between a question for a reason and its answer, the answer counted."""
_SHARE = 0.5
"""Of a clause's content words, what an earlier turn has of them, two of these side by side in both."""
_FEWEST = 2
"""Content words of a turn that can have a cause or be one."""
_READ_CHARS, _TURN_CHARS, _SENTENCES = 600, 2000, 6


class Turn(NamedTuple):
    """What was said earlier in the same session."""

    speaker: str
    text: str


class Cause(NamedTuple):
    """place: of the earlier turn among those given. explains: the text tells why that turn is so; else it came about because of that turn.

    weight: part of the marked clause's content words that the turn has, 1 where a pronoun or a bare reply points to it. evidence: from the
    text itself, EVIDENCE_CHARS at most.
    """

    place: int
    explains: bool
    weight: float
    evidence: str


def _rule(*parts: str) -> re.Pattern[str]:
    return re.compile("".join(parts), re.IGNORECASE)


_MARKED = _rule(
    r"\b(?:because|since|so|therefore|hence|consequently|due|owing|account|caused|cause|reason|why|result|resulted|led|triggered|after|"
    r"(?:remedy|fix|mend|repair|solve|avoid|prevent)(?= (?:it|this|that)\b|,))\b"
)
_IT = r"(?:that|this|it)"
_LEADS = r"(?:(?:well|yes|no|oh|ah|and|but|mainly|mostly|simply|probably|partly|sadly|only|just),? )*"
_WHY = _rule(r"\b(?:why|for what reason|how come|on what ground|(?:what|which) (?:is|was|were|are) the (?:reason|cause|ground))\b")
# How a question for a reason is answered: "since" tells a time elsewhere.
_REPLIES = _rule(
    r"^", _LEADS, r"(?:because|since|due to)\b|\b(?:because|the (?:reason|cause) (?:is|was)|(?:do|does|did) (?:it|that|so) since)\b"
)
_BARE = _rule(rf"^{_LEADS}", r"because (?!of (?:that|this|it)\b)[^,]*$")
_EXPLAINS = _rule(
    rf"^{_LEADS}(?:",
    rf"(?:{_IT}|which)(?:['’]s| is| was| happened| happens| broke| failed)? (?:only |all |just )?(?:because\b|due to\b|caused by\b)",
    rf"|(?:the |its |my |our )?(?:root )?(?:reason|cause)(?: (?:for|of|behind) {_IT})?(?: (?:is|was) simple)?(?::| (?:is|was) (?!why\b))",
    rf"|what (?:caused|did) {_IT}\b",
    r"|I (?:say|said|do|did|chose|took) (?:so|it|that|this) because\b",
    r"|because (?!of (?:that|this|it)\b)[^,]*$)",
)
_FOLLOWS = _rule(
    rf"^{_LEADS}(?:",
    rf"(?:{_IT}(?:['’]s| is| was)|which (?:is|was)) why\b",
    rf"|(?:because of|due to|owing to|as a result of) {_IT}\b",
    r"|(?:as a result|consequently|therefore|hence|for (?:that|this) reason)\b",
    r"|(?:to (?:fix|mend|repair|solve|avoid|prevent) (?:it|this|that)|as a remedy),? (?:I|we)\b",
    r"|so,? (?:I|we) (?:have |had |then |just |also )?"
    r"(?:[a-z]+ed|made|took|put|set|gave|wrote|let|sent|built|cut|kept|chose|bought|sold)\b)",
)
_CAUSE_BEHIND = _rule(r",? (?:because of|because|due to|owing to|on account of|caused by|as a result of) ")
_EFFECT_BEHIND = _rule(
    r"[,;] (?:and )?(?:so (?=(?:I|we|he|she|they|it|the|my|our)\b(?! must\b))"
    r"|(?:therefore|hence|consequently|as a result),? |(?:that|which) (?:is|was) why )",
    r"|,? (?:(?:which|and (?:this|that)) )?(?:caused|led to|triggered|resulted in) ",
)
_EFFECT_FIRST = _rule(r"^(?:the )?(?:reason|cause) (?:for|of|behind) ([^:,]{4,80}): ")
_CAUSE_FIRST = _rule(r"^(?:because of|because|since|due to) ([^,]+), ")
_WENT_WRONG = (
    r"\b(?:fail|broke|break|crash|stopped|stops|hung|hang|leak|lost|ran out|run out|died|collaps|froze|burn|flood|fell|slow|late\b|ill\b|"
    r"sick|wrong|missed|cancel|postpone|delay|full\b|down\b|red\b|error|trouble|damage|could not|couldn't|did not|didn't|never)"
)
_TROUBLE = _rule(_WENT_WRONG)
_FAILURE_FIRST = _rule(rf"^after ([^,]*{_WENT_WRONG}[^,]*?),? (?=(?:I|we)\b)")


def causes(speaker: str, text: str, earlier: Callable[[], Sequence[Turn]]) -> list[Cause]:
    """Earlier turns of the session that `text`, said by `speaker`, names as its cause or explains; at most MOST_CAUSES, one a turn.

    earlier: gives the turns before it, the last said last; asked only where the text alone does not rule a cause out.
    """
    read = text[:_READ_CHARS]
    if not _MARKED.search(read):
        return []
    said = [span.text for span in islice(sentences(read), _SENTENCES)]
    before = earlier() if said and _may_name(said) else ()
    turns = before[-LOOKED_BACK:]
    if not turns:
        return []
    found = _opening(speaker, said[0], turns) or [each for sentence in said for each in _clauses(sentence, turns)]
    left = len(before) - len(turns)
    once = {each.place: each._replace(place=left + each.place) for each in reversed(found)}
    return list(once.values())[::-1][:MOST_CAUSES]


def _may_name(said: Sequence[str]) -> bool:
    """Whether there is anything in these sentences that an earlier turn could be meant by."""
    if any(rule.search(said[0]) for rule in (_EXPLAINS, _FOLLOWS, _REPLIES)):
        return True
    return any(_TROUBLE.search(clause) for sentence in said for clauses in _split(sentence) for clause in clauses)


def _opening(speaker: str, sentence: str, turns: Sequence[Turn]) -> list[Cause]:
    """What the beginning of a turn points to: a question for a reason that it answers, else the turn before."""
    if is_question(sentence):
        return []
    last, evidence = len(turns) - 1, sentence[:EVIDENCE_CHARS]
    asked = next((i for i in range(last, max(last - _ASKED_BACK, -1), -1) if _asks_why(turns[i])), None)
    if asked is not None and turns[asked].speaker != speaker and (_REPLIES.search(sentence) or _EXPLAINS.match(sentence)):
        return [Cause(asked, True, 1.0, evidence)]
    if not _tells(turns[last]):
        # "Because ..." by itself answers whatever somebody else has just asked.
        return [Cause(last, True, 1.0, evidence)] if turns[last].speaker != speaker and _BARE.match(sentence) else []
    if _EXPLAINS.match(sentence):
        return [Cause(last, True, 1.0, evidence)]
    return [Cause(last, False, 1.0, evidence)] if _FOLLOWS.match(sentence) else []


def _clauses(sentence: str, turns: Sequence[Turn]) -> list[Cause]:
    """Turns that have the words of a cause or of an effect that the sentence names."""
    if is_question(sentence):
        return []
    found: list[Cause] = []
    for cause, effect in _split(sentence):
        for clause, other, explains in ((cause, effect, False), (effect, cause, True)):
            meant = _meant(clause, turns)
            # A turn that has the words of both says all of it already.
            if meant is not None and _part(frozenset(terms(other)), _terms_of(turns[meant[0]])) < _SHARE:
                found.append(Cause(meant[0], explains, meant[1], sentence[:EVIDENCE_CHARS]))
    return found


def _split(sentence: str) -> Iterator[tuple[str, str]]:
    """(cause, effect) as the first marker divides the sentence."""
    if first := _CAUSE_FIRST.match(sentence) or _FAILURE_FIRST.match(sentence):
        yield first[1], sentence[first.end() :]
    elif first := _EFFECT_FIRST.match(sentence):
        yield sentence[first.end() :], first[1]
    elif behind := _CAUSE_BEHIND.search(sentence):
        yield sentence[behind.end() :], sentence[: behind.start()]
    elif behind := _EFFECT_BEHIND.search(sentence):
        yield sentence[: behind.start()], sentence[behind.end() :]


def _meant(clause: str, turns: Sequence[Turn]) -> tuple[int, float] | None:
    """The last turn that has enough of the clause's content words, and what part of them."""
    if not _TROUBLE.search(clause):
        return None
    said = terms(clause)
    wanted, names = frozenset(said), frozenset(pairwise(said))
    for place in range(len(turns) - 1, -1, -1):
        has = _terms_of(turns[place])
        part = _part(wanted, has)
        if part >= _SHARE and names & frozenset(pairwise(has)) and not is_question(turns[place].text):
            return place, part
    return None


def _terms_of(turn: Turn) -> list[str]:
    return terms(turn.text[:_TURN_CHARS])


def _part(wanted: frozenset[str], has: Sequence[str]) -> float:
    return len(wanted.intersection(has)) / len(wanted) if wanted else 0.0


def _asks_why(turn: Turn) -> bool:
    return "?" in turn.text[:_TURN_CHARS] and _WHY.search(turn.text[:_TURN_CHARS]) is not None


def _tells(turn: Turn) -> bool:
    """Whether there is something in the turn that can have a cause or be one."""
    text = turn.text[:_TURN_CHARS]
    return not is_question(text) and len(frozenset(terms(text))) >= _FEWEST
