"""Simulated users: what each tells, corrects and asks, in sessions, among small talk. The same seed gives the same words.

Every value is of the test side of `ndml.tiny.words` and belongs to one user alone, who says it in one fact alone: an answer with another's
value is a leak, one with a value that was replaced is out of date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from ndml.btsp.salience import STOP_WORDS
from ndml.tiny import lists
from ndml.tiny.grammar import USER, Subject, say
from ndml.tiny.relations import BY_NAME, RELATIONS, Relation
from ndml.tiny.scenes import Fact
from ndml.tiny.smalltalk import CHATTER, CLOSERS, HELD_OUT_OPENERS, LEADS, OPENERS, ORDERS, TAILS, TALK
from ndml.tiny.words import Words


def plain(text: str) -> str:
    """Words in lower case, one blank apart: what texts are compared by."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def says(text: str, value: str) -> bool:
    """Whether the words of `value` stand in `text`."""
    return f" {plain(value)} " in f" {plain(text)} "


SESSION = (4, 8)
"""Messages of a session, fewest and most."""
HELD_OUT = 0.3
"""Share of statements, and of questions, in phrasings that the model's training never saw."""
_OTHERS = 0.3  # share of facts about somebody else than the user
_TRIES = 400
_SPOKEN = frozenset(
    word
    for text in (
        *(text for r in RELATIONS for text in (*r.statements, *r.changes, *r.questions, r.answer)),
        *(text for answer, asked in TALK for text in (answer, *asked)),
        *(lists.KIN + lists.ANIMALS + lists.NAMED + lists.FAVOURITES + lists.EVENTS + lists.THINGS + lists.MEALS + lists.ATTRIBUTES),
    )
    for word in plain(text).split()
)
"""Words that any answer may have: no value is made of them alone."""
_SHORTEST = 3  # letters and digits of a value: fewer stand in any answer
_OF_NOTHING = {"{I} switched to {v}."}  # what is corrected: with a made-up value nobody could tell
_ASKED_IN_THE_SAME_WORDS = {"project", "project name"}  # as another relation's questions
_TOLD = tuple(r for r in RELATIONS if r.name != "age")  # there are too few ages for each user to have one alone
_ATTRIBUTES = {
    "names": lists.KIN + lists.ANIMALS + lists.NAMED,
    "favourites": lists.FAVOURITES,
    "events": lists.EVENTS,
    "things": lists.THINGS,
    "meals": lists.MEALS,
}
_KINDS = {"tell": 0.32, "correct": 0.12, "ask": 0.34, "ask unknown": 0.05, "ask another's": 0.06, "talk": 0.11}
_INSIDE = re.compile(r"(?:My|The|We|In|On|At|For|As|If|By|Note|Please|Right|There|Now)\b")
_PRONOUNS = ("", "her", "his", "their")


@dataclass(frozen=True, slots=True)
class Told:
    """A fact as it was last told.

    message   the user's message that told it, counted from 0; session: the session of that message
    held_out  in a phrasing that the model's training never saw
    old       values that it had before
    marked    of a correction: the words say that something changed ("I moved to …"), not the new value alone
    """

    fact: Fact
    text: str
    message: int
    session: int
    held_out: bool
    old: tuple[str, ...] = ()
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """`kind`: fact, corrected, unknown (nobody told it), another's (only another user told it); `told` for the first two."""

    kind: str
    fact: Fact
    held_out: bool
    told: Told | None = None

    def is_old(self, text: str) -> bool:
        """Whether a value that was replaced stands in it."""
        return self.told is not None and any(says(text, old) for old in self.told.old)


@dataclass(frozen=True, slots=True)
class Message:
    """What a user says in one turn; `number` counts the user's messages from 0."""

    user: int
    session: int
    number: int
    text: str
    told: tuple[Told, ...] = ()
    question: Question | None = None


class Values:
    """Values of which none stands in another, whoever they are for."""

    def __init__(self, random: Random) -> None:
        self.words = Words(random, test=True)
        self._taken: list[str] = []  # plain, a blank at each end

    def new(self, kind: str) -> str:
        """A value of a kind, or of no kind where those are all taken. Raises ValueError where there is none left."""
        if kind == "person":  # nobody is called by a number, as a value of any other kind may be
            return self.name()
        return self._first(lambda attempt: self.words.value(kind) if attempt < _TRIES else self.words.anything())

    def name(self) -> str:
        """A person's name, which belongs to one user as a value does. Raises ValueError as `new`."""
        return self._first(lambda _: self.words.person())

    def _first(self, draw: Callable[[int], str]) -> str:
        for attempt in range(2 * _TRIES):
            value = draw(attempt)
            words = f" {plain(value)} "
            usable = len(words.replace(" ", "")) >= _SHORTEST and not set(words.split()) <= (_SPOKEN | STOP_WORDS)
            if usable and not any(words in t or t in words for t in self._taken):
                self._taken.append(words)
                return value
        raise ValueError(f"no value is left beside {len(self._taken)}: ask for fewer users or fewer messages")


@dataclass(slots=True)
class _Person:
    """A user so far. `unasked`: what was corrected and has not been asked since."""

    number: int
    cast: tuple[str, ...]
    known: dict[object, Told] = field(default_factory=dict)
    unasked: list[object] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)


class World:
    """Users who do not know of each other."""

    def __init__(self, seed: int, users: int) -> None:
        self._random = Random(seed)
        self._values = Values(self._random)
        self._people = [_Person(n, tuple(self._values.name() for _ in range(3))) for n in range(users)]

    def dialogues(self, messages: int) -> list[list[Message]]:
        """`messages` messages of each user, in sessions that take turns."""
        session = 0
        while any(len(person.messages) < messages for person in self._people):
            for person in self._people:
                for _ in range(min(self._random.randint(*SESSION), messages - len(person.messages))):
                    person.messages.append(self._message(person, session))
            session += 1
        return [person.messages for person in self._people]

    def _message(self, person: _Person, session: int) -> Message:
        number = len(person.messages)
        if number == 0:
            told = self._told(person, session, BY_NAME["own name"], Subject())
            return Message(person.number, session, number, told.text, (told,))
        kind = self._random.choices(list(_KINDS), list(_KINDS.values()))[0]
        earlier = [key for key, told in person.known.items() if told.session < session]
        if kind == "ask" and earlier:
            return self._asked(person, session, earlier)
        if kind == "ask unknown" and (fact := self._unknown(person)):
            return self._question(person, session, Question("unknown", fact, self._held_out()))
        if kind == "ask another's" and (fact := self._of_another(person)):
            return self._question(person, session, Question("another's", fact, self._held_out()))
        if kind == "talk":
            return Message(person.number, session, number, self._talk())
        changeable = [key for key in earlier if person.known[key].fact.relation.changes]
        if kind == "correct" and changeable:
            told = [self._corrected(person, session, self._random.choice(changeable))]
        else:
            told = [self._told(person, session) for _ in range(2 if self._random.random() < 0.12 else 1)]
        return Message(person.number, session, number, self._among_talk(" ".join(t.text for t in told)), tuple(told))

    def _held_out(self) -> bool:
        return self._random.random() < HELD_OUT

    def _told(self, person: _Person, session: int, relation: Relation | None = None, subject: Subject | None = None) -> Told:
        relation, subject, attribute = self._free(person, relation, subject)
        fact = Fact(relation, subject, attribute, self._values.new(relation.values))
        held_out = self._held_out()
        text = self._said(fact, relation.said(held_out))
        told = person.known[fact.key] = Told(fact, text, len(person.messages), session, held_out)
        return told

    def _free(self, person: _Person, relation: Relation | None, subject: Subject | None) -> tuple[Relation, Subject, str]:
        """What this user has not spoken of; now and then close to what it has."""
        for _ in range(_TRIES):
            near = self._random.choice(list(person.known.values())).fact if person.known and self._random.random() < 0.3 else None
            of = relation or (near.relation if near else self._random.choice(_TOLD))
            about = subject or (self._subject(person.cast) if of.people else Subject())
            attribute = self._attribute(of)
            if not self._taken(person, Fact(of, about, attribute, "")):
                return of, about, attribute
        raise ValueError(f"user {person.number} has told everything there is to tell: ask for fewer messages")

    def _taken(self, person: _Person, fact: Fact) -> bool:
        """Whether a question for it could be meant for something that the user has told."""
        known = (told.fact for told in person.known.values())
        alike = any(f.subject == fact.subject and fact.attribute and f.attribute == fact.attribute for f in known)
        return fact.key in person.known or alike or fact.attribute in _ASKED_IN_THE_SAME_WORDS

    def _corrected(self, person: _Person, session: int, key: object) -> Told:
        before = person.known[key]
        of = before.fact.relation
        marked = self._random.random() < 0.75
        held_out = not marked and self._held_out()
        fact = Fact(of, before.fact.subject, before.fact.attribute, self._values.new(of.values))
        changes = [change for change in of.changes if change not in _OF_NOTHING]
        text = self._said(fact, changes if marked else of.said(held_out))
        told = Told(fact, text, len(person.messages), session, held_out, (*before.old, before.fact.value), marked)
        person.known[key] = told
        person.unasked = [k for k in person.unasked if k != key] + [key]
        return told

    def _asked(self, person: _Person, session: int, earlier: Sequence[object]) -> Message:
        """Something of an earlier session: every other time, what was corrected then."""
        waiting = [key for key in person.unasked if key in earlier]
        key = waiting[0] if waiting and self._random.random() < 0.5 else self._random.choice(earlier)
        person.unasked = [k for k in person.unasked if k != key]
        told = person.known[key]
        kind = "corrected" if told.old else "fact"
        return self._question(person, session, Question(kind, told.fact, self._held_out(), told))

    def _unknown(self, person: _Person) -> Fact | None:
        """Something that the user has not told, every other time of a kind that it has."""
        for _ in range(_TRIES):
            near = self._random.random() < 0.5
            relation = self._random.choice(list(person.known.values())).fact.relation if near else self._random.choice(_TOLD)
            subject = self._subject((*person.cast, self._values.words.person())) if relation.people else Subject()
            fact = Fact(relation, subject, self._attribute(relation), "")
            if not self._taken(person, fact):
                return fact
        return None

    def _of_another(self, person: _Person) -> Fact | None:
        """What another user has told, of which this one has not spoken."""
        others = [t.fact for p in self._people if p is not person for t in p.known.values() if not self._taken(person, t.fact)]
        return self._random.choice(others) if others else None

    def _question(self, person: _Person, session: int, question: Question) -> Message:
        templates = question.fact.relation.asked(question.held_out)
        text = say(self._random.choice(templates), question.fact.subject, USER, "", question.fact.attribute).text
        draw = self._random.random()
        if draw < 0.12:
            owner = question.fact.subject.owner
            named = text.startswith("I ") or (owner != USER and text.startswith(owner))
            text = _after(self._random.choice(HELD_OUT_OPENERS if question.held_out else OPENERS), text, named)
        elif draw < 0.2:
            text += self._random.choice(CLOSERS)
        return Message(person.number, session, len(person.messages), text, (), question)

    def _subject(self, cast: Sequence[str]) -> Subject:
        if self._random.random() >= _OTHERS:
            return Subject()
        owner = self._random.choice((USER, *cast))
        return Subject(owner, self._random.choice(lists.KIN) if owner == USER or self._random.random() < 0.2 else "")

    def _attribute(self, relation: Relation) -> str:
        if relation.attributes == "nouns":
            return self._values.words.noun()
        return self._random.choice(_ATTRIBUTES[relation.attributes]) if relation.attributes else ""

    def _said(self, fact: Fact, templates: Sequence[str]) -> str:
        """The statement as the user says it, every third time with words around it."""
        template, pronoun = self._random.choice(templates), self._random.choice(_PRONOUNS)
        text = say(template, fact.subject, USER, fact.value, fact.attribute, pronoun).text
        draw = self._random.random()
        if draw < 0.2:
            return _after(self._random.choice(LEADS), text, _INSIDE.match(text) is None)
        if draw < 0.3 and text.endswith(f"{fact.value}."):
            return text[:-1] + self._random.choice(TAILS) + "."
        return text

    def _among_talk(self, text: str) -> str:
        before = self._chatter() + " " if self._random.random() < 0.2 else ""
        return before + text + (" " + self._chatter() if self._random.random() < 0.15 else "")

    def _talk(self) -> str:
        draw = self._random.random()
        if draw < 0.5:
            return self._random.choice(self._random.choice(TALK)[1])
        return self._chatter() if draw < 0.8 else self._filled(self._random.choice(ORDERS))

    def _chatter(self) -> str:
        return self._filled(self._random.choice(CHATTER))

    def _filled(self, template: str) -> str:
        words = self._values.words
        return template.replace("{w}", words.anything()).replace("{n}", words.person())


def _after(lead: str, text: str, named: bool) -> str:
    """A sentence after words that open it: its first word keeps its capital where it names somebody, is I, or the lead has ended."""
    return lead + (text if named or lead.endswith(("! ", "? ", ". ")) else text[0].lower() + text[1:])
