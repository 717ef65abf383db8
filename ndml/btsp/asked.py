"""Which one-valued property a question asks for: "Which city do I live in?" asks where the speaker lives, as "I moved to Rome" tells it.

A question is put as the statement that would answer it ("I live in ..."), and the rules of `slots` read that. English, no model; most
questions ask for no slot.
"""

from __future__ import annotations

import re

from ndml.btsp.slots import Slot, Slots, plainly, slots

_ASKS = r"^(?:(?:at|on|in|under|for) )?(?P<wh>who|whom|what|which|where|when|how (?:much|many))(?P<noun>(?: [a-z]\w*){0,3}?)"
_WHO = r"(?P<who>I|we|he|she|they|(?:my|our|his|her|their) [\w-]+|(?!my\b|our\b)[A-Z]\w+(?:'s [\w-]+)?)"
_IS = re.compile(rf"{_ASKS}(?: (?:is|are|was|were)|'s) (?P<rest>[^?]{{2,60}})$", re.IGNORECASE)
_IS_DOING = re.compile(rf"{_ASKS} (?:am|is|are|was|were) {_WHO} (?P<verb>[a-z]+ing)(?P<rest>[^?]{{0,60}})$", re.IGNORECASE)
_DOES = re.compile(rf"{_ASKS} (?:do|does|did) {_WHO} (?P<verb>[a-z]+)(?P<rest>[^?]{{0,60}})$", re.IGNORECASE)
_AM = re.compile(rf"{_ASKS} (?:am|is|are|was|were) {_WHO} (?P<rest>[a-z]+(?: [a-z]+)?)$", re.IGNORECASE)
_COSTS = re.compile(r"^how much (?:may|can|could|should) (?P<what>(?:the|my|our) [\w -]{2,40}) cost$", re.IGNORECASE)
_WHEN = re.compile(r" (?:on|around|as of|in|at|by) (?:the )?\d.*$", re.IGNORECASE)
"""A day at the end: of what time the answer is, not what it is."""
_SPACES = re.compile(r"\s+")
_VALUE = "Something"
_PLACED = ("where", "when")
_MOST_CHARS = 200
_OPEN = frozenset(("value", "place", "day", "time"))
"""Kinds that the value decides, which a question does not have."""


def asked_slots(question: str) -> frozenset[Slot]:
    """Slots that an answer would give, as `open_slots` names them; none of most questions, nor of a text over 200 characters."""
    if len(question) > _MOST_CHARS:
        return frozenset()
    return frozenset(slot for answer in _answers(question) for slot in open_slots(slots(answer)))


def open_slots(given: Slots) -> frozenset[Slot]:
    """The slots of a statement without what only their values say of them."""
    return frozenset(Slot(slot.whose, "" if slot.kind in _OPEN else slot.kind, slot.what) for slot in given)


def _answers(question: str) -> list[str]:
    """Statements that may answer it."""
    asked = _SPACES.sub(" ", _WHEN.sub("", plainly(question.strip().rstrip("? ")))).strip()
    found = _IS_DOING.match(asked) or _DOES.match(asked)
    if found:
        verb = f"am {found['verb']}" if found.re is _IS_DOING else found["verb"]
        return _done(found["who"], verb, found["rest"].strip(), found["noun"].strip(), placed=found["wh"].casefold() in _PLACED)
    if found := _COSTS.match(asked):
        return [f"{found['what']} may cost {_VALUE}"]
    return [*_been(asked), *_is(asked)]


def _been(asked: str) -> list[str]:
    """ "Which bank am I with", "under which number am I reached"."""
    found = _AM.match(asked)
    if not found or not found["noun"]:
        return []
    return [f"{_VALUE} is the{found['noun']} {found['who']} am {found['rest']}", f"{found['who']} am {found['rest']} at {_VALUE}"]


def _is(asked: str) -> list[str]:
    found = _IS.match(asked)
    if not found:
        return []
    return [f"{found['rest']} is {place}{_VALUE}" for place in (("in ", "") if found["wh"].casefold() == "where" else ("",))]


def _done(who: str, verb: str, rest: str, noun: str, *, placed: bool) -> list[str]:
    answers = [f"{who} {verb} {rest} {_VALUE}", f"{who} {verb} {_VALUE} {rest}"]
    if placed:
        answers += [f"{who} {verb} {rest} in {_VALUE}", f"{who} {verb} {rest} at {_VALUE}"]
    if noun:
        answers += [f"{_VALUE} is the {noun} {who} {verb} {rest}", f"{who} {verb} {noun} {rest} {_VALUE}"]
    return [_SPACES.sub(" ", answer).strip() for answer in answers]
