"""Code review threads on six files of one repository: questions and replies, defects, names, numbers, decisions and their reversal.

A thread names its file at the beginning, remarks name functions, replies often name nothing. Half of the questions describe a function in
plain words. The same seed gives the same words.
"""

from __future__ import annotations

from random import Random

from tests.quality.recall import review_phrases as phrases
from tests.quality.recall import review_words as words
from tests.quality.recall.phrases import Deck, Forms, other_form, say
from tests.quality.recall.scenes import Ask, Line, Scene, arrange
from tests.quality.recall.sets import Conversation

SEED = 20_250_602
_FILES = 6
_NAMED = 0.35  # chance that a remark names its file
_OTHER_WORDS = 0.5
_TEAM = 7
_FUNCTIONS_OF_A_FILE = 9  # files share some: the same function name in two files is two functions
_SCENES = {
    "why": 5, "defect": 4, "name": 2, "policy": 3, "limit": 4, "sign_off": 2, "test": 3, "timing": 2, "follow_up": 2,
}  # fmt: skip
FACT, OTHER, WHY, WHEN, TWO, ALIKE, NOW = "fact", "other words", "why", "when", "two sessions", "look-alike", "reversed"


def stores(most: int = 3, seed: int = SEED) -> list[Conversation]:
    """The first `most` stores of the set, each of some 550 turns and 300 questions."""
    return [_Repository(Random(seed + number)).store(f"reviews-{number}") for number in range(most)]


class _Repository:
    """One store in the making."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.team = random.sample(words.PEOPLE, _TEAM)
        self.files = random.sample(words.FILES, _FILES)
        self.doings, self.grounds = Deck(random, words.DOINGS), Deck(random, words.GROUNDS)
        self.repairs, self.names = Deck(random, words.REPAIRS), Deck(random, words.NEW_NAMES)
        self.troubles = Deck(random, words.TROUBLES)

    def store(self, name: str) -> Conversation:
        return arrange(self.random, name, {file: self._scenes(file) for file in self.files}, self._opening, self._small_talk)

    def _scenes(self, file: str) -> list[Scene]:
        functions = self.random.sample(words.FUNCTIONS, _FUNCTIONS_OF_A_FILE)
        policies = self.random.sample(words.POLICIES, _SCENES["policy"])
        found = [self._policy(file, *policy) for policy in policies]
        for kind, count in _SCENES.items():
            if kind != "policy":
                found += [getattr(self, f"_{kind}")(file, function) for function in self.random.sample(functions, count)]
        return found

    def _say(self, templates: tuple[str, ...], file: str, **values: str) -> str:
        here = f" in {file}" if self.random.random() < _NAMED else ""
        numbers = {"n": str(self.random.randint(2, 96)), "hash": f"{self.random.getrandbits(28):07x}"}
        return say(self.random, templates, file=file, here=here, **numbers | values)

    def _ask(self, templates: tuple[str, ...], file: str, f: Forms, *, plain: bool | None = None, **values: str) -> str:
        """plain: with the function described (the), True, or named, False; None: by chance."""
        described = self.random.random() < _OTHER_WORDS if plain is None else plain
        return self._say(templates, file, f=f"the {other_form(self.random, f, f[0])}" if described else f[0], **values)

    def _two(self) -> tuple[str, str]:
        first, second = self.random.sample(self.team, 2)
        return first, second

    def _opening(self, random: Random, topic: str) -> list[Line]:
        return [Line(random.choice(self.team), self._say(phrases.OPENINGS, topic))]

    def _small_talk(self, random: Random, topic: str) -> list[Line]:
        chosen = random.sample(phrases.CHATTER, random.randint(1, 3))
        return [Line(random.choice(self.team), self._say((text,), topic)) for text in chosen]

    def _why(self, file: str, f: Forms) -> Scene:
        reviewer, author = self._two()
        doing = say(self.random, (self.doings.deal(),))
        values = {"f": f[0], "doing": doing[:1].lower() + doing[1:]}
        lines = [
            Line(reviewer, self._say(phrases.QUERY, file, **values), because=("reply",)),
            Line(author, self._say(phrases.REPLY, file, ground=self.grounds.deal(), **values), "reply"),
            Line(reviewer, self._say(phrases.CONTENT, file)),
        ]
        asks = [Ask(WHY, self._ask(phrases.ASK_WHY, file, f, plain=p, doing=values["doing"]), ("reply",)) for p in (False, True)]
        return Scene([lines], asks)

    def _defect(self, file: str, f: Forms) -> Scene:
        reviewer, author = self._two()
        condition = self.random.choice(words.CONDITIONS)
        repair = self.repairs.deal().format(n=self.random.randint(2, 512))
        lines = [
            Line(reviewer, self._say(phrases.BREAKS, file, f=f[0], condition=condition[0]), "breaks"),
            Line(author, self._say(phrases.MENDED, file, f=f[0], repair=repair), "mended", ("breaks",)),
        ]
        asked = condition[0] if self.random.random() < _OTHER_WORDS else other_form(self.random, condition, condition[0])
        return Scene(
            [lines],
            [
                Ask(FACT, self._ask(phrases.ASK_BREAKS, file, f, plain=False), ("breaks",)),
                Ask(OTHER, self._ask(phrases.ASK_MENDED, file, f, plain=True, condition=asked), ("mended",)),
                Ask(WHEN, self._ask(phrases.ASK_FOUND, file, f, condition=asked), ("breaks",)),
            ],
        )

    def _name(self, file: str, f: Forms) -> Scene:
        reviewer, author = self._two()
        taken = self.random.random() < 0.5
        values = {"f": f[0], "new": self.names.deal(), "other": self.names.deal()}
        renamed = phrases.RENAMED if taken else phrases.RENAMED_ELSE
        lines = [
            Line(reviewer, self._say(phrases.RENAME, file, **values), "proposed"),
            Line(author, self._say(renamed, file, **values), "renamed"),
        ]
        key = ("proposed",) if taken else ("renamed",)
        asks = [Ask(kind, self._ask(phrases.ASK_RENAMED, file, f, plain=plain), key) for kind, plain in ((FACT, False), (OTHER, True))]
        return Scene([lines], asks)

    def _policy(self, file: str, topic: Forms, ways: tuple[str, ...]) -> Scene:
        (a, b), (c, d) = self._two(), self._two()
        first, second = self.random.sample(ways, 2)
        parts = [
            [
                Line(a, self._say(phrases.AGREED, file, topic=topic[0], policy=first), "first"),
                Line(b, self._say(phrases.AGREED_HEARD, file)),
            ],
            [
                Line(c, self._say(phrases.AGAINST, file, topic=topic[0], policy=first, trouble=self.troubles.deal()), "trouble"),
                Line(d, self._say(phrases.REVERSED, file, topic=topic[0], policy=second), "second", ("trouble",)),
            ],
        ]
        asked = self.random.choice(topic)
        return Scene(
            parts,
            [
                Ask(NOW, self._say(phrases.ASK_NOW, file, topic=topic[0]), ("second",)),
                Ask(NOW, self._say(phrases.ASK_NOW, file, topic=topic[1]), ("second",)),
                Ask(WHY, self._say(phrases.ASK_AGAINST, file, topic=asked, policy=first), ("trouble",)),
                Ask(TWO, self._say(phrases.ASK_TURN, file, topic=asked), ("first", "second")),
            ],
        )

    def _limit(self, file: str, f: Forms) -> Scene:
        reviewer, author = self._two()
        limit = self.random.choice(words.LIMITS)
        values = {"f": f[0], "limit": limit[0], "value": str(self.random.randint(2, 9000)), "ground": self.grounds.deal()}
        lines = [
            Line(reviewer, self._say(phrases.LIMIT, file, **values)),
            Line(author, self._say(phrases.LIMIT_SET, file, **values), "value"),
        ]
        same = self._ask(phrases.ASK_LIMIT, file, f, plain=False, limit=limit[0])
        other = self._ask(phrases.ASK_LIMIT, file, f, limit=limit[1])
        return Scene([lines], [Ask(ALIKE, same, ("value",)), Ask(OTHER, other, ("value",))])

    def _sign_off(self, file: str, f: Forms) -> Scene:
        reviewer, author = self._two()
        skill, person = self.random.choice(words.EXPERTISE), self.random.choice(words.PEOPLE)
        lines = [
            Line(reviewer, self._say(phrases.ASK_SIGN, file, f=f[0], person=person, skill=skill[0]), "who"),
            Line(author, self._say(phrases.SIGNED, file)),
        ]
        same = self._ask(phrases.ASK_WHO, file, f, plain=False, skill=skill[0])
        other = self._ask(phrases.ASK_WHO, file, f, plain=True, skill=skill[1])
        return Scene([lines], [Ask(ALIKE, same, ("who",)), Ask(OTHER, other, ("who",))])

    def _test(self, file: str, f: Forms) -> Scene:
        reviewer, author = self._two()
        condition = self.random.choice(words.CONDITIONS)
        path = f"tests/{self.random.choice(words.NEW_NAMES)}_{self.random.randint(2, 99)}.rs"
        lines = [
            Line(reviewer, self._say(phrases.WANT_TEST, file, f=f[0], condition=condition[0])),
            Line(author, self._say(phrases.TESTED, file, f=f[0], path=path), "path"),
        ]
        same = self._ask(phrases.ASK_TEST, file, f, plain=False, condition=condition[0])
        other = self._ask(phrases.ASK_TEST, file, f, condition=other_form(self.random, condition, condition[0]))
        return Scene([lines], [Ask(FACT, same, ("path",)), Ask(OTHER, other, ("path",))])

    def _timing(self, file: str, f: Forms) -> Scene:
        author, reviewer = self._two()
        after = self.random.randint(3, 400)
        before, unit = after * self.random.randint(2, 9), self.random.choice(("us", "ms", "ns"))
        line = self._say(phrases.FASTER, file, f=f[0], before=f"{before} {unit}", after=f"{after} {unit}")
        lines = [Line(author, line, "timing"), Line(reviewer, self._say(phrases.FASTER_HEARD, file))]
        same, other = (self._ask(phrases.ASK_FASTER, file, f, plain=plain) for plain in (False, True))
        return Scene([lines], [Ask(FACT, same, ("timing",)), Ask(OTHER, other, ("timing",))])

    def _follow_up(self, file: str, f: Forms) -> Scene:
        author, reviewer = self._two()
        follow = self.random.choice(words.FOLLOW_UPS)
        parts = [
            [
                Line(author, self._say(phrases.LATER, file, f=f[0], follow=follow[0]), "later"),
                Line(reviewer, self._say(phrases.LATER_HEARD, file)),
            ],
            [Line(author, self._say(phrases.KEPT, file, f=f[0], follow=follow[0]), "kept")],
        ]
        asked = follow[0] if self.random.random() < _OTHER_WORDS else f"the {follow[1]}"
        return Scene(parts, [Ask(TWO, self._ask(phrases.ASK_KEPT, file, f, follow=asked), ("later", "kept"))])
