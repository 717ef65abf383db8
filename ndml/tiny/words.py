"""Words that scenes are made of. Names and values come in two sides that never meet: one to train on, one to be tested with.

Half of all names are spelled from random syllables: what cannot be learned by heart has to be copied from memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from random import Random

from ndml.tiny import lists

Pieces = tuple[Sequence[str], Sequence[str]]
SIDES = 6
"""One word in this many belongs to the test side."""

_PIECED = 0.6
"""Share of made-up words that are spelled from pieces of a vocabulary, where there is one."""
_TRIES = 200  # a list of which a side holds nothing is a mistake in the list, not bad luck


def is_test(word: str) -> bool:
    """Whether a word belongs to the test side, whatever its case."""
    return zlib.crc32(word.casefold().encode()) % SIDES == 0


class Words:
    """Random words of one side. The same seed gives the same words.

    pieces: of a vocabulary, those that begin a word and those that go on with one. What stands in words of the test side alone is never
    said in training otherwise, and a piece that was never said is not said when it has to be.
    """

    def __init__(self, random: Random, test: bool, pieces: Pieces = ((), ())) -> None:
        self.random, self.test, self._pieces = random, test, pieces
        self._kinds: dict[str, Callable[[], str]] = {
            "person": self.person, "called": self.called, "city": self.place, "company": self.company, "food": self.food,
            "job": self.job, "title": self.title, "date": self.date, "time": self.time, "code": self.code, "age": self.age,
            "language": lambda: self._of(lists.LANGUAGES), "subject": lambda: self._of(lists.SUBJECTS),
            "play": lambda: self._of(lists.PLAYS), "activity": self.activity, "spot": self.spot, "thing": self.thing,
            "car": self.car,
        }  # fmt: skip

    def value(self, kind: str) -> str:
        """A value of a kind; now and then one that has nothing of its kind, so that place and not look is learned."""
        draw = self.random.random()
        if draw < 0.12 and kind not in ("date", "time", "age", "job", "spot"):
            return self.anything()
        return self._kinds[kind]()

    def anything(self) -> str:
        """One to three made-up words, or a code."""
        if self.random.random() < 0.2:
            return self.code()
        count = self.random.choice((1, 1, 1, 2, 2, 3))
        return " ".join(self.made(capital=self.random.random() < 0.6) for _ in range(count))

    def person(self) -> str:
        first = self._name(lists.PEOPLE)
        return f"{first} {self.made()}" if self.random.random() < 0.08 else first

    def called(self) -> str:
        """What a person, an animal or a thing is called."""
        return self.person() if self.random.random() < 0.6 else self._name(lists.PETS)

    def place(self) -> str:
        name = self._name(lists.CITIES)
        draw = self.random.random()
        if draw < 0.04:
            return f"{self.random.choice(('New', 'San', 'Port', 'Saint', 'El', 'Rio de'))} {name}"
        return f"{name}, {self.made()}" if draw < 0.07 else name

    def company(self) -> str:
        name = self._name(lists.COMPANIES)
        draw = self.random.random()
        if draw < 0.3:
            return f"{name} {self.random.choice(lists.COMPANY_ENDS)}"
        return f"{name} & {self.made()}" if draw < 0.35 else name

    def food(self) -> str:
        draw = self.random.random()
        if draw < 0.25:
            return self.made(capital=False)
        food = self._of(lists.FOODS)
        return f"{self._of(lists.ADJECTIVES)} {food}" if draw < 0.4 else food

    def job(self) -> str:
        job = self._of(lists.JOBS) if self.random.random() < 0.7 else self.made(capital=False) + self.random.choice(("er", "ist", "or"))
        return ("an " if job[0] in "aeiou" else "a ") + job

    def activity(self) -> str:
        draw = self.random.random()
        if draw < 0.2:
            return self.made(capital=False)
        if draw < 0.5:
            return self._of(lists.FOODS)
        return self._of(lists.ACTIVITIES)

    def spot(self) -> str:
        draw = self.random.random()
        place = self._of(lists.SPOTS) if draw < 0.8 else self.made(capital=False)
        return f"the {self._of(lists.ADJECTIVES)} {place}" if draw < 0.3 else f"the {place}"

    def car(self) -> str:
        return " ".join(filter(None, ("a", self.random.choice(("", self._of(lists.COLOURS))), self.made())))

    def title(self) -> str:
        count = self.random.choice((1, 2, 2, 3))
        words = [self.made() if self.random.random() < 0.5 else self._of(lists.THINGS).title() for _ in range(count)]
        return ("The " if self.random.random() < 0.4 else "") + " ".join(words)

    def thing(self) -> str:
        draw = self.random.random()
        if draw < 0.35:
            return self._of(lists.COLOURS) if draw < 0.15 else self.made(capital=draw < 0.25)
        thing = self._of(lists.THINGS)
        return f"{self._of(lists.ADJECTIVES)} {thing}" if draw < 0.5 else thing

    def date(self) -> str:
        return self._fresh(self._any_date)

    def _any_date(self) -> str:
        day, month = self.random.randint(1, 28), self.random.choice(lists.MONTHS)
        year = self.random.randint(1940, 2030)
        return self.random.choice(
            (f"{day} {month}", f"{month} {day}", f"{day} {month} {year}", f"{month} {day}, {year}", f"the {day}th of {month}")
            + ((self.random.choice(lists.DAYS),) if self.random.random() < 0.2 else ())
        )

    def time(self) -> str:
        pick = self.random
        return self._fresh(
            lambda: pick.choice(
                (
                    f"{pick.randint(1, 12)} o'clock",
                    f"{pick.randint(0, 23)}:{pick.randint(0, 59):02}",
                    f"{pick.randint(1, 12)} {pick.choice(('am', 'pm'))}",
                )
            )
        )

    def age(self) -> str:
        return self._fresh(lambda: str(self.random.randint(2, 99)))

    def code(self) -> str:
        return self._fresh(self._any_code)

    def _any_code(self) -> str:
        pick = self.random
        kind = pick.randrange(7)
        digits = "".join(pick.choice("0123456789") for _ in range(pick.choice((1, 2, 3, 4, 4, 5, 6, 8))))
        if kind < 3:
            return digits
        if kind == 3:
            return f"+{pick.randint(1, 99)} {pick.randint(100, 999)} {pick.randint(1000, 999999)}"
        if kind == 4:
            return f"{self.made(capital=False)}@{self.made(capital=False)}.{pick.choice(('org', 'com', 'net', 'example'))}"
        letters = "".join(pick.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(pick.randint(1, 3)))
        return f"{letters}{pick.choice(('', '-', ' '))}{digits}" if kind == 5 else f"{digits}{letters.lower()}"

    def noun(self) -> str:
        """What somebody can have one of: "locker code", "garden", or a made-up word."""
        draw = self.random.random()
        if draw < 0.12:
            return self.made(capital=False)
        if draw < 0.3:
            return f"{self.random.choice(lists.THINGS)} {self.random.choice(lists.MEASURES)}"
        return self.random.choice(lists.ATTRIBUTES)

    def _of(self, words: Sequence[str]) -> str:
        return self._fresh(lambda: self.random.choice(words))

    def _fresh(self, make: Callable[[], str]) -> str:
        """A word of this side."""
        for _ in range(_TRIES):
            if is_test(word := make()) == self.test:
                return word
        raise ValueError(f"{_TRIES} words and none for the {'test' if self.test else 'training'} side, last {word!r}: make the list longer")

    def _name(self, real: Sequence[str]) -> str:
        return self._of(real) if self.random.random() < 0.35 else self.made()

    def made(self, capital: bool = True) -> str:
        """A made-up word."""
        return self._fresh(lambda: self._spell(capital))

    def _spell(self, capital: bool) -> str:
        pick = self.random.choice
        begins, follows = self._pieces
        if begins and self.random.random() < _PIECED:
            return pick(begins) + "".join(pick(follows) for _ in range(pick((0, 1, 1, 2))))
        parts = [pick(lists.ONSETS) + pick(lists.VOWELS) for _ in range(self.random.choice((1, 2, 2, 2, 3)))]
        word = "".join(parts) + (pick(lists.CODAS) if self.random.random() < 0.55 or len(parts) == 1 else "")
        if self.random.random() < 0.1:
            word = pick("aeiou") + word
        if self.random.random() < 0.03:
            word = word.replace("o", "ö").replace("a", "á").replace("e", "é")
        return word.capitalize() if capital else word
