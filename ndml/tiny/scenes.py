"""A scene: what stands in memory and a conversation about it, with the right answers. The same seed gives the same scene."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random

from ndml.tiny import lists
from ndml.tiny.grammar import ASSISTANT, USER, Phrase, Subject, say
from ndml.tiny.relations import RELATIONS, Relation
from ndml.tiny.smalltalk import ADVERBS, CHATTER, CLOSERS, FRAMES, HELD_OUT_OPENERS, LEADS, NOTED, OPENERS, ORDERS, TAILS, TALK, UNKNOWN
from ndml.tiny.words import Pieces, Words

FIRST_DAY = date(2019, 1, 1)
_PRONOUNS = ("", "her", "his", "their")
_REPEATED = 0.04  # share of statements that say again what was said
_NO_NAME = re.compile(r"(My|The|We|In|On|At|For|As|If)\b")  # what a sentence may begin with and loses its capital inside another
# Where a statement can be shortened, where it takes an adverb, and which of its words are not slots.
_IS = re.compile(r"^(\{I\}|\{my\} \{k\}) (\{am\}|is)(?= )")
_VERB = re.compile(r"(?<=^\{I\} )\{\w+\}(?!n't)(?! not)")
_PLAIN_WORD = re.compile(r"(?<![\w{'])[a-z]{4,}(?![\w}'])")


@dataclass(frozen=True, slots=True)
class Fact:
    """Value of a relation for a subject; `attribute` is which one, where the relation has several ("locker code")."""

    relation: Relation
    subject: Subject
    attribute: str
    value: str

    @property
    def key(self) -> tuple[str, str, Subject, str]:
        """What a newer fact replaces. "attribute" and "code" ask in the same words."""
        asked = "attribute" if self.relation.name == "code" else self.relation.name
        return asked, "", self.subject, self.attribute

    def answer(self) -> Phrase:
        return say(self.relation.answer, self.subject, ASSISTANT, self.value, self.attribute)


@dataclass(slots=True)
class Line:
    """One entry of memory. `facts`: what it says, with where each value stands in `text`."""

    text: str
    speaker: str = USER
    said: date = FIRST_DAY
    number: int = 0
    facts: list[tuple[Fact, int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange. `kind`: fact, changed, told, unknown, talk or note; `line`: index of the line that the answer cites, -1 for none;
    `told`: index of the turn that told it, where it was this conversation."""

    user: str
    answer: str
    kind: str
    relation: str = ""
    line: int = -1
    value: str = ""
    spans: tuple[tuple[str, int, int], ...] = ()
    told: int = -1


@dataclass(frozen=True, slots=True)
class Scene:
    """Lines oldest first, then the turns."""

    lines: tuple[Line, ...]
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How hard a scene is.

    lines            fewest and most lines of memory
    turns            fewest and most exchanges
    unknown, talk    share of exchanges that ask what is not known; that are small talk or notes
    changes          share of facts that are said anew later
    told             share of exchanges after a note that ask for what it said
    noise            share of lines that are chatter, orders or questions
    people           share of facts about others than the user
    plain            share of questions and statements without any decoration
    wide             share of statements and questions in words of `wordings.toml`, that are for training alone
    varied           share of statements that are reworded: `Writer._vary`
    scattered        share of scenes whose lines have any numbers, not those from 1 on
    held_out_asked   questions come from the held-out phrasings; held_out_said: statements do
    """

    lines: tuple[int, int] = (1, 10)
    turns: tuple[int, int] = (1, 5)
    unknown: float = 0.17
    talk: float = 0.1
    changes: float = 0.25
    told: float = 0.35
    noise: float = 0.2
    people: float = 0.4
    plain: float = 0.6
    wide: float = 0.0
    varied: float = 0.0
    scattered: float = 0.15
    held_out_asked: bool = False
    held_out_said: bool = False


class Writer:
    """Makes scenes. test: names and values of the test side. pieces: of a vocabulary, as `Words` takes them."""

    def __init__(
        self, random: Random, plan: Plan, test: bool = False, relations: Sequence[Relation] = RELATIONS, pieces: Pieces = ((), ())
    ) -> None:
        self._random, self._plan, self._relations = random, plan, relations
        self._words = Words(random, test, pieces)

    def scene(self) -> Scene:
        """One scene."""
        cast = [self._words.person() for _ in range(self._random.randint(1, 3))]
        wanted = self._random.randint(*self._plan.lines)
        lines: list[Line] = []
        known: dict[object, Fact] = {}
        while len(lines) < wanted:
            lines.append(self._line(cast, known))
        self._stamp(lines)
        turns = self._turns(lines, cast, known)
        return Scene(tuple(lines), tuple(turns))

    def _line(self, cast: Sequence[str], known: dict[object, Fact]) -> Line:
        if self._random.random() < self._plan.noise:
            return self._noise(cast)
        line = self._said(*self._statement(cast, known))
        if self._random.random() < 0.12:
            self._append(line, cast, known)
        if self._random.random() < 0.06:
            line.text += " " + self._sentence(ORDERS if self._random.random() < 0.4 else CHATTER)
        return line

    def _statement(self, cast: Sequence[str], known: dict[object, Fact], speaker: str | None = None) -> tuple[Fact, str, bool]:
        """(fact, who says it, it replaces one)."""
        old = [f for f in known.values() if f.relation.changes]
        if known and self._random.random() < _REPEATED:
            fact, changed = self._random.choice(list(known.values())), False
        elif old and self._random.random() < self._plan.changes:
            fact = self._renew(self._random.choice(old))
            changed = True
        else:
            fact, changed = self._fact(cast, known), False
        known[fact.key] = fact
        return fact, self._speaker(fact.subject, cast) if speaker is None else speaker, changed

    def _renew(self, old: Fact) -> Fact:
        for _ in range(20):
            value = self._words.value(old.relation.values)
            if value != old.value:
                return Fact(old.relation, old.subject, old.attribute, value)
        return old

    def _fact(self, cast: Sequence[str], known: dict[object, Fact]) -> Fact:
        """A new fact; often close to one that is known already, so that it can be mistaken for it."""
        for _ in range(50):
            near = self._random.choice(list(known.values())) if known and self._random.random() < 0.45 else None
            relation = near.relation if near and self._random.random() < 0.7 else self._random.choice(self._relations)
            subject = near.subject if near and near.relation is not relation else self._subject(relation, cast)
            fact = Fact(relation, subject if relation.people else Subject(), self._attribute(relation), self._words.value(relation.values))
            if fact.key not in known:
                return fact
        return fact

    def _subject(self, relation: Relation, cast: Sequence[str]) -> Subject:
        if not relation.people or self._random.random() >= self._plan.people:
            return Subject()
        owner = self._random.choice((USER, *cast))
        kin = self._random.choice(lists.KIN) if owner == USER or self._random.random() < 0.25 else ""
        return Subject(owner, kin)

    def _attribute(self, relation: Relation) -> str:
        pick = self._random.choice
        match relation.attributes:
            case "names":
                return pick(pick((lists.KIN, lists.KIN, lists.ANIMALS, lists.ANIMALS, lists.NAMED)))
            case "nouns":
                return self._words.noun()
            case "favourites":
                return pick(lists.FAVOURITES)
            case "events":
                return pick(lists.EVENTS)
            case "things":
                return pick(lists.THINGS) if self._random.random() < 0.8 else f"{pick(lists.ADJECTIVES)} {pick(lists.THINGS)}"
            case "meals":
                return pick(lists.MEALS)
        return ""

    def _speaker(self, subject: Subject, cast: Sequence[str]) -> str:
        """The owner speaks of its own things; now and then somebody else does. Nobody but the user says "I" for the user."""
        if subject.owner == USER:
            return USER
        draw = self._random.random()
        if draw < 0.5:
            return subject.owner
        return USER if draw < 0.85 else self._random.choice(cast)

    def _said(self, fact: Fact, speaker: str, changed: bool) -> Line:
        relation, wide = fact.relation, self._wide()
        templates = relation.more.statements if wide else relation.said(self._plan.held_out_said)
        if relation.changes and self._random.random() < (0.75 if changed else 0.05):
            templates = relation.more.changes if wide else relation.changes
        template = self._random.choice(templates)
        if self._plan.varied and self._random.random() < self._plan.varied:
            template = self._vary(template, fact.subject == Subject(speaker))
        phrase = say(template, fact.subject, speaker, fact.value, fact.attribute, self._random.choice(_PRONOUNS))
        start, end = next((s, e) for slot, s, e in phrase.spans if slot == "v")
        text = phrase.text
        if self._random.random() >= self._plan.plain:
            text, start, end = self._decorate(text, start, end)
        return Line(text, speaker, facts=[(fact, start, end)])

    def _wide(self) -> bool:
        return self._plan.wide > 0 and self._random.random() < self._plan.wide

    def _vary(self, template: str, myself: bool) -> str:
        """The template in other words that say the same: shortened, with an adverb, with one word nobody knows, inside another sentence."""
        if self._random.random() < 0.35:
            template = _IS.sub(lambda m: m[1] + ("'m" if myself and m[2] == "{am}" else "'s"), template, count=1)
        if self._random.random() < 0.3:
            adverb = self._random.choice(ADVERBS) if self._random.random() < 0.7 else self._words.made(capital=False)
            template = _VERB.sub(lambda m: f"{m[0]} {adverb}" if m[0] in ("{am}", "{have}") else f"{adverb} {m[0]}", template, count=1)
        words = list(_PLAIN_WORD.finditer(template))
        if len(words) > 1 and self._random.random() < 0.15:
            word = self._random.choice(words)
            template = template[: word.start()] + self._words.made(capital=False) + template[word.end() :]
        if self._random.random() < 0.4:
            frame = self._random.choice(FRAMES)
            inner = template if template.startswith(("I ", "I'", "{")) or frame[0] == "…" else template[0].lower() + template[1:]
            template = frame.replace("…", inner if frame.endswith("…") else inner.removesuffix("."))
        return template

    def _decorate(self, text: str, start: int, end: int) -> tuple[str, int, int]:
        """The statement with words around it, the value where it was."""
        draw = self._random.random()
        if draw < 0.5:
            lead = self._random.choice(LEADS)
            return lead + (_inside(text) if start > 0 else text), start + len(lead), end + len(lead)
        if draw < 0.75 and text.endswith(f"{text[start:end]}."):
            return text[:-1] + self._random.choice(TAILS) + ".", start, end
        if draw < 0.9:
            return text.removesuffix(".") + ("" if self._random.random() < 0.5 else "!"), start, end
        return text, start, end

    def _append(self, line: Line, cast: Sequence[str], known: dict[object, Fact]) -> None:
        """A second fact in the same line, of the same speaker."""
        fact = self._fact([line.speaker] if line.speaker != USER else cast, known)
        if fact.key in known or (fact.subject.owner == USER) != (line.speaker == USER):
            return
        known[fact.key] = fact
        second = self._said(fact, line.speaker, False)
        text = second.text
        if line.text.endswith(".") and self._random.random() < 0.4:
            line.text, joint, text = line.text[:-1], " and ", _inside(text) if second.facts[0][1] > 0 else text
        else:
            joint = " " if line.text[-1:] in ".!" else ". "
        shift = len(line.text) + len(joint)
        line.text += joint + text
        line.facts += [(f, s + shift, e + shift) for f, s, e in second.facts]

    def _noise(self, cast: Sequence[str]) -> Line:
        draw = self._random.random()
        speaker = USER if self._random.random() < 0.7 else self._random.choice(cast)
        if draw < 0.45:
            return Line(self._sentence(CHATTER), speaker)
        if draw < 0.75:
            return Line(self._sentence(ORDERS), speaker)
        if draw < 0.8:
            return Line(self._random.choice(self._random.choice(TALK)[1]), speaker)
        fact = self._fact(cast, {})
        return Line(self._question(fact), speaker)

    def _sentence(self, templates: Sequence[str]) -> str:
        template = self._random.choice(templates)
        return template.replace("{w}", self._words.anything()).replace("{n}", self._words.person())

    def _stamp(self, lines: Sequence[Line]) -> None:
        """Days that never go back, and numbers: by rank, which is any order, or by age."""
        day = FIRST_DAY + timedelta(days=self._random.randrange(3600))
        numbers = list(range(1, len(lines) + 1))
        if self._random.random() < self._plan.scattered:
            numbers = self._random.sample(range(1, 41), len(lines))
        elif self._random.random() < 0.6:
            self._random.shuffle(numbers)
        for line, number in zip(lines, numbers, strict=True):
            line.said, line.number = day, number
            day += timedelta(days=self._random.choice((0, 0, 1, 2, 7, 30, 100)))

    def _turns(self, lines: Sequence[Line], cast: Sequence[str], known: dict[object, Fact]) -> list[Turn]:
        sources = {fact.key: (fact, index) for index, line in enumerate(lines) for fact, _, _ in line.facts}
        said: dict[object, set[str]] = {}
        for fact in (fact for line in lines for fact, _, _ in line.facts):
            said.setdefault(fact.key, set()).add(fact.value)
        told: dict[object, tuple[Fact, int]] = {}
        turns: list[Turn] = []
        for number in range(self._random.randint(*self._plan.turns)):
            draw = self._random.random()
            if draw < self._plan.talk / 2:
                turns.append(self._talk())
            elif draw < self._plan.talk:
                fact, turn = self._note(cast, known)
                turns.append(turn)
                told[fact.key] = fact, number
                sources.pop(fact.key, None)
                known[fact.key] = fact
            elif draw < self._plan.talk + self._plan.unknown or not (sources or told):
                turns.append(self._unknown(cast, known))
            elif told and (not sources or self._random.random() < self._plan.told):
                fact, index = self._random.choice(list(told.values()))
                answer = fact.answer()
                turns.append(Turn(self._question(fact), answer.text, "told", fact.relation.name, -1, fact.value, answer.spans, index))
            else:
                key = self._random.choice(list(sources))
                changed = [k for k in sources if len(said[k]) > 1]
                if changed and self._random.random() < self._plan.changes:
                    key = self._random.choice(changed)
                turns.append(self._asked(*sources[key], number=lines[sources[key][1]].number, changed=len(said[key]) > 1))
        return turns

    def _asked(self, fact: Fact, line: int, number: int, changed: bool) -> Turn:
        answer = fact.answer()
        text = f"{answer.text} [{number}]"
        return Turn(self._question(fact), text, "changed" if changed else "fact", fact.relation.name, line, fact.value, answer.spans)

    def _unknown(self, cast: Sequence[str], known: dict[object, Fact]) -> Turn:
        """Asks what nobody said: mostly something close to what is known."""
        for _ in range(50):
            near = self._random.choice(list(known.values())) if known and self._random.random() < 0.75 else None
            relation = near.relation if near and self._random.random() < 0.6 else self._random.choice(self._relations)
            subject = near.subject if near and near.relation is not relation else self._subject(relation, (*cast, self._words.person()))
            attribute = self._attribute_near(near) if near and near.relation is relation else self._attribute(relation)
            fact = Fact(relation, subject if relation.people else Subject(), attribute, "")
            if fact.key not in known and not self._implied(fact, known):
                return Turn(self._question(fact), UNKNOWN, "unknown", relation.name)
        return Turn(self._question(self._fact(cast, known)), UNKNOWN, "unknown", relation.name)

    def _attribute_near(self, known: Fact) -> str:
        """The same of somebody else, or another of the same sort: who has told of a cat is asked for a dog."""
        if self._random.random() < 0.4:
            return known.attribute
        sort = next((each for each in (lists.ANIMALS, lists.KIN, lists.NAMED) if known.attribute in each), None)
        return self._random.choice(sort) if sort and self._random.random() < 0.7 else self._attribute(known.relation)

    def _implied(self, fact: Fact, known: dict[object, Fact]) -> bool:
        """Whether the question could be meant for another relation's fact: events' date and time, a kin's name, all with the same {k}."""
        return any(f.subject == fact.subject and fact.attribute and f.attribute == fact.attribute for f in known.values())

    def _talk(self) -> Turn:
        answer, asked = self._random.choice(TALK)
        return Turn(self._random.choice(asked), answer, "talk")

    def _note(self, cast: Sequence[str], known: dict[object, Fact]) -> tuple[Fact, Turn]:
        """The user tells something, now and then anew; the assistant says it back."""
        old = list(known.values())
        fact = self._renew(self._random.choice(old)) if old and self._random.random() < 0.3 else self._fact(cast, {})
        answer = fact.answer()
        named = any(slot == "s" and start == 0 for slot, start, _ in answer.spans) and fact.subject.owner != USER
        text = answer.text if named else answer.text[0].lower() + answer.text[1:]
        spans = tuple((slot, start + len(NOTED), end + len(NOTED)) for slot, start, end in answer.spans)
        changed = fact.key in known
        return fact, Turn(self._said(fact, USER, changed).text, NOTED + text, "note", fact.relation.name, -1, fact.value, spans)

    def _question(self, fact: Fact) -> str:
        templates = fact.relation.more.questions if self._wide() else fact.relation.asked(self._plan.held_out_asked)
        text = say(self._random.choice(templates), fact.subject, USER, "", fact.attribute).text
        if self._random.random() < self._plan.plain:
            return text
        draw = self._random.random()
        if draw < 0.35:
            opener = self._random.choice(HELD_OUT_OPENERS if self._plan.held_out_asked else OPENERS)
            return opener + (
                text[0].lower() + text[1:] if not text.startswith("I ") and not text.startswith(fact.subject.owner or "\0") else text
            )
        if draw < 0.5:
            return text + self._random.choice(CLOSERS)
        if draw < 0.65:
            return text.rstrip("?.")
        if draw < 0.8:
            return re.sub(r"^(What|Who|Where|When) (is|was) ", lambda m: f"{m[1]}'s ", text) if "What is" in text else text
        if draw < 0.9:
            return text.rstrip("?.").lower() if fact.subject.owner == USER else text
        return text.rstrip("?.") + " now?" if text.endswith("?") else text


def _inside(sentence: str) -> str:
    """A sentence after other words: its first word keeps its capital only where that is a name or I."""
    return sentence[0].lower() + sentence[1:] if _NO_NAME.match(sentence) else sentence
