"""Simulated users whose facts change: what each says over ten months, and what holds when. The same seed gives the same words.

A fact is said, and said again with another value: in words of change ("superseded, marked"), plainly ("superseded, unmarked"), or as a
denial of what was said ("contradicted"). Between come statements about other people's same facts and about nothing that changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

from tests.quality.recall.phrases import say

MARKED, UNMARKED, DENIED, KEPT = "superseded, marked", "superseded, unmarked", "contradicted", "never changed"
_FIRST_DAY = datetime(2025, 1, 6, 18, tzinfo=UTC)
_DAYS = 300
_APART = 30  # days between two values of a fact, at least


@dataclass(frozen=True, slots=True)
class Attribute:
    """One thing that a person has one of. Templates: {v} the value, {o} the one before it, {day} a date, {whom} somebody else."""

    name: str
    values: tuple[str, ...]
    said: tuple[str, ...]
    changed: tuple[str, ...]
    denied: tuple[str, ...]
    others: tuple[str, ...]
    asked: tuple[str, ...]
    asked_then: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """What a user said at a time; `fact` and `value` where it states one of theirs, `others` where it states one of somebody else's."""

    text: str
    said_at: datetime
    session: str
    fact: str = ""
    value: str = ""
    kind: str = KEPT
    others: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question. right: places of the statements that answer it; stale: that are out of date at that time; others: that say it of
    somebody else. at: the time it is about; None: now.
    """

    text: str
    kind: str
    right: frozenset[int]
    stale: frozenset[int]
    others: frozenset[int]
    at: datetime | None = None


@dataclass(slots=True)
class Person:
    """A user: statements in the order in which they were said, and questions."""

    name: str
    statements: list[Statement] = field(default_factory=list)
    questions: list[Asked] = field(default_factory=list)


def people(count: int, seed: int = 1, attributes: Sequence[Attribute] | None = None, prefix: str = "changing") -> list[Person]:
    """`count` users whose names begin with `prefix`; attributes: what they tell of, None: ATTRIBUTES."""
    told = ATTRIBUTES if attributes is None else attributes
    return [_person(Random(seed * 1000 + number), f"{prefix}-{number}", told) for number in range(count)]


def _person(random: Random, name: str, attributes: Sequence[Attribute]) -> Person:
    said = [statement for attribute in attributes for statement in _history(random, attribute)]
    said += [_at(random, say(random, attribute.others, v=random.choice(attribute.values), whom=random.choice(_OTHERS)), attribute.name)
             for attribute in attributes]  # fmt: skip
    said += [_at(random, say(random, (text,))) for text in random.sample(_SMALL_TALK, len(_SMALL_TALK) // 2)]
    person = Person(name, sorted(said, key=lambda each: each.said_at))
    for attribute in attributes:
        person.questions += _questions(random, attribute, person.statements)
    return person


def _history(random: Random, attribute: Attribute) -> list[Statement]:
    """One to three values of a fact, each said once."""
    values = random.sample(attribute.values, random.choice((1, 2, 2, 3, 3)))
    days = _days(random, len(values))
    found = [_of(attribute, say(random, attribute.said, v=values[0]), days[0], values[0], KEPT)]
    for old, new, day in zip(values, values[1:], days[1:], strict=False):
        kind = random.choice((MARKED, UNMARKED, DENIED))
        templates = {MARKED: attribute.changed, UNMARKED: attribute.said, DENIED: attribute.denied}[kind]
        found.append(_of(attribute, say(random, templates, v=new, o=old), day, new, kind))
    return found


def _days(random: Random, count: int) -> list[int]:
    room = _DAYS - _APART * (count - 1)
    return [day + _APART * number for number, day in enumerate(sorted(random.sample(range(room), count)))]


def _of(attribute: Attribute, text: str, day: int, value: str, kind: str) -> Statement:
    return Statement(text, _FIRST_DAY + timedelta(days=day, minutes=len(text)), f"week-{day // 7}", attribute.name, value, kind)


def _at(random: Random, text: str, others: str = "") -> Statement:
    day = random.randrange(_DAYS)
    return Statement(text, _FIRST_DAY + timedelta(days=day, minutes=len(text)), f"week-{day // 7}", others=others)


def _questions(random: Random, attribute: Attribute, said: Sequence[Statement]) -> list[Asked]:
    """What holds now, and what held in the middle of each earlier period."""
    places = [place for place, each in enumerate(said) if each.fact == attribute.name]
    others = frozenset(place for place, each in enumerate(said) if each.others == attribute.name)
    now = Asked(say(random, attribute.asked), said[places[-1]].kind, frozenset(places[-1:]), frozenset(places[:-1]), others)
    found = [now]
    for place, following in pairwise(places):
        at = said[place].said_at + (said[following].said_at - said[place].said_at) / 2
        text = say(random, attribute.asked_then, day=f"{at.day} {at:%B}")
        found.append(Asked(text, said[following].kind, frozenset((place,)), frozenset(places) - {place}, others, at))
    return found


_OTHERS = ("My neighbour", "My cousin Olga", "Uncle Pete", "My flatmate", "Greta from work", "My old teacher")
_SMALL_TALK = (
    "[It rained all day|What a storm|The sun came out at last].", "I [slept badly|slept well|woke up too early].",
    "[Can you draft|Please write] a short thank-you note?", "[The tram was late|I missed my train|No seat on the bus] again.",
    "I [baked bread|made soup|burnt the rice] [today|last night].", "[Remind me|Do not let me forget] to water the plants.",
    "[Thanks|Perfect|Good], that helped.", "[What is|Tell me] a good name for a boat?", "I [finished|gave up on] that long novel.",
    "My [knee|back|tooth] hurts a little.", "[The concert|The match|The film] was [great|too long|a mess].",
    "I [bought|found] a [lamp|chair|rug] [at the market|on the street].", "[How many|Count the] days until Christmas?",
    "[We had guests|Friends came over], it got late.", "I [ran|walked|swam] for an hour.", "[My battery is low|The laptop is slow] today.",
    "[The cat|A pigeon] sat [on the keyboard|at the window].", "[Translate|What does it mean]: carpe diem.",
    "[The lift is broken|The heating is off] again.", "I [lost|found] my [umbrella|glasses|scarf].",
)  # fmt: skip
ATTRIBUTES = (
    Attribute(
        "residence",
        ("Oslo", "Porto", "Ghent", "Lublin", "Turin", "Cork", "Malmo", "Graz", "Leipzig", "Nantes", "Bergen", "Split"),
        (
            "I live in {v}[, close to the river|, in the old town|].",
            "[My flat is|My home is] in {v}.",
            "I'm based in {v}.",
        ),
        ("I[ have|] moved to {v}[ last week|, boxes everywhere|].", "I live in {v} now.", "[We relocated|I relocated] to {v}."),
        ("I don't live in {o} any more, I live in {v}.", "[Actually|Correction]: I live in {v}, not in {o}."),
        ("{whom} lives in {v}.", "{whom} has a flat in {v}."),
        ("Where do I live[ now|]?", "[Which|What] city do I live in[ at the moment|]?", "Where is my home?"),
        ("Where did I live on {day}?", "[Which|What] city was I living in on {day}?"),
    ),
    Attribute(
        "employer",
        ("Nordwerk", "Calder & Sons", "Blueforge", "Tessera Labs", "Hafen Logistik", "Ostrya", "Fennel Bank", "Kestrel Air", "Umbra Games"),
        ("I work at {v}[, third floor|, mostly from home|].", "My employer is {v}.", "I'm employed by {v}."),
        ("I started at {v}[ on Monday|].", "I changed jobs and work for {v} now.", "I[ have|] joined {v}."),
        ("I no longer work at {o}, I work at {v}.", "[Actually|No], I work at {v}, not at {o}."),
        ("{whom} works at {v}.", "{whom} joined {v}."),
        ("Where do I work[ now|]?", "Who is my employer[ now|]?", "[Which|What] company do I work for?"),
        ("Where did I work on {day}?", "Who was my employer on {day}?"),
    ),
    Attribute(
        "manager",
        ("Astrid", "Bogdan", "Carmela", "Dieter", "Eloise", "Farid", "Gunnar", "Hedda", "Ivo"),
        ("My manager is {v}.", "I report to {v}.", "{v} is my manager[ at work|]."),
        ("My new manager is {v}.", "I report to {v} now.", "{v} took over as my manager."),
        ("My manager is not {o}, it is {v}.", "[Correction|Sorry]: {v} is my manager, not {o}."),
        ("{whom} has {v} as a manager.", "{v} manages {whom}."),
        ("Who is my manager[ now|]?", "[Whom|Who] do I report to[ at the moment|]?"),
        ("Who was my manager on {day}?", "[Whom|Who] did I report to on {day}?"),
    ),
    Attribute(
        "car",
        ("a grey Skoda", "an old Volvo", "a red Fiat", "a Toyota hybrid", "a Mazda estate", "a blue Renault", "a Polestar"),
        ("I drive {v}.", "My car is {v}.", "The car that I drive is {v}."),
        ("I sold my car and drive {v} now.", "My new car is {v}.", "I switched to {v}, my new car."),
        ("I don't drive {o} any more, I drive {v}.", "[Actually|No], my car is {v}, not {o}."),
        ("{whom} drives {v}.", "{whom} bought {v}."),
        ("[What|Which] car do I drive[ now|]?", "What is my car[ these days|]?"),
        ("[What|Which] car did I drive on {day}?", "What was my car on {day}?"),
    ),
    Attribute(
        "phone",
        ("555 0117", "555 0142", "555 0163", "555 0178", "555 0181", "555 0195", "555 0126"),
        ("My phone number is {v}.", "[You reach|People reach] me at {v}.", "My number: {v}."),
        ("I have a new phone number, {v}.", "My phone number changed to {v}.", "My number is {v} now."),
        ("My phone number is not {o}, it is {v}.", "[Correction|I mixed it up]: my number is {v}, not {o}."),
        ("{whom} has the number {v}.", "{whom} can be called at {v}."),
        ("What is my phone number[ now|]?", "[Under|At] which number am I reached?"),
        ("What was my phone number on {day}?", "[Under|At] which number was I reached on {day}?"),
    ),
    Attribute(
        "gym",
        ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
        ("My climbing course is on {v}.", "I go climbing every {v}.", "{v} is my climbing day."),
        ("My climbing course moved to {v}.", "From now on I go climbing on {v}.", "Climbing is on {v} now."),
        ("My climbing course is not on {o}, it is on {v}.", "[Correction|Sorry]: I climb on {v}, not on {o}."),
        ("{whom} goes climbing on {v}.", "{whom} has a pottery course on {v}."),
        ("On which day is my climbing course[ now|]?", "When do I go climbing?"),
        ("On which day was my climbing course as of {day}?", "Which weekday did I go climbing around {day}?"),
    ),
    Attribute(
        "favourite dish",
        ("ramen", "lentil stew", "pierogi", "lasagne", "falafel", "paella", "goulash", "pad thai"),
        ("My favourite dish is {v}.", "I like {v} best of all dishes.", "{v} is my favourite dish."),
        ("My favourite dish is {v} now.", "I changed my favourite dish to {v}.", "These days {v} is my favourite dish."),
        ("My favourite dish is not {o}, it is {v}.", "[Actually|No], {v} is my favourite dish, not {o}."),
        ("{whom}'s favourite dish is {v}.", "{whom} loves {v}."),
        ("What is my favourite dish[ now|]?", "Which dish do I like best[ these days|]?"),
        ("What was my favourite dish on {day}?", "Which dish did I like best on {day}?"),
    ),
    Attribute(
        "keys",
        ("in the blue bowl", "under the fern", "behind the clock", "in the desk drawer", "on the hook by the door", "inside the teapot"),
        ("I keep the spare keys {v}.", "The spare keys are {v}.", "My spare keys lie {v}."),
        ("I moved the spare keys: they are {v} now.", "The spare keys are {v} now.", "The spare keys have a new place, {v}."),
        ("The spare keys are not {o}, they are {v}.", "[Correction|Sorry]: the spare keys are {v}, not {o}."),
        ("{whom} keeps a torch {v}.", "{whom} hides the biscuits {v}."),
        ("Where are my spare keys[ now|]?", "Where do I keep the spare keys?"),
        ("Where were my spare keys on {day}?", "Where did I keep the spare keys on {day}?"),
    ),
    Attribute(
        "studies",
        ("Norwegian", "statistics", "welding", "music theory", "Portuguese", "botany", "bookkeeping", "astronomy"),
        ("I study {v} in the evenings.", "My evening class is {v}.", "I'm learning {v} at night school."),
        ("I switched my evening class to {v}.", "My evening class is {v} now.", "I started {v} as my new evening class."),
        ("My evening class is not {o}, it is {v}.", "I don't study {o} any more, I study {v}."),
        ("{whom} studies {v}.", "{whom} teaches {v}."),
        ("What do I study in the evenings[ now|]?", "[What|Which] subject is my evening class?"),
        ("What did I study in the evenings on {day}?", "[What|Which] subject was my evening class on {day}?"),
    ),
    Attribute(
        "budget",
        ("12,000 euros", "15,500 euros", "9,800 euros", "21,000 euros", "18,400 euros", "7,250 euros"),
        ("The budget for the kitchen is {v}.", "We have {v} for the kitchen.", "Our kitchen may cost {v}."),
        ("The budget for the kitchen went to {v}.", "We changed the kitchen budget to {v}.", "The kitchen budget is {v} now."),
        ("The kitchen budget is not {o}, it is {v}.", "[Correction|I misspoke]: {v} for the kitchen, not {o}."),
        ("{whom} paid {v} for a bathroom.", "{whom} spent {v} on a roof."),
        ("What is the budget for our kitchen[ now|]?", "How much may the kitchen cost?"),
        ("What was the kitchen budget on {day}?", "How much could the kitchen cost as of {day}?"),
    ),
)
