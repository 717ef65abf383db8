"""Working notes on six packages: stack traces, causes and fixes, settings, error codes, versions, renamed and moved functions.

Names are made of few parts, so that each has look-alikes that share most of them. A package writes its names in one convention; questions
write them as there, in another convention, by their last part only, or in plain words. The same seed gives the same words.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from random import Random

from tests.quality.recall import symbol_phrases as phrases
from tests.quality.recall import symbol_words as words
from tests.quality.recall.phrases import Deck, say
from tests.quality.recall.scenes import Ask, Line, Scene, arrange
from tests.quality.recall.sets import Conversation

SEED = 20_251_122
_PACKAGES = 6
_TEAM = 5
_SCENES = {"trace": 7, "setting": 8, "code": 4, "version": 4, "renamed": 5, "owned": 5}
SAME, SPELT, PART, PLAIN, TWO = "same name", "other spelling", "part of the path", "plain words", "two sessions"
Parts = tuple[str, ...]


def camel(parts: Parts) -> str:
    return parts[0] + "".join(part.title() for part in parts[1:])


def pascal(parts: Parts) -> str:
    return "".join(part.title() for part in parts)


def snake(parts: Parts) -> str:
    return "_".join(parts)


def kebab(parts: Parts) -> str:
    return "-".join(parts)


def loud(parts: Parts) -> str:
    return snake(parts).upper()


_OTHERS: dict[Callable[[Parts], str], tuple[Callable[[Parts], str], ...]] = {camel: (snake, kebab, pascal), snake: (camel, kebab, loud)}


def stores(most: int = 3, seed: int = SEED) -> list[Conversation]:
    """The first `most` stores of the set, each of some 500 turns and 450 questions."""
    return [_Notes(Random(seed + number)).store(f"symbols-{number}") for number in range(most)]


class _Notes:
    """One store in the making."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.team = random.sample(words.PEOPLE, _TEAM)
        self.packages = random.sample(words.PACKAGES, _PACKAGES)
        self.style = {package: random.choice((camel, snake)) for package in self.packages}
        functions = list(product(words.VERBS, words.KINDS, words.THINGS))
        settings = list(product(words.KINDS, words.THINGS, words.KNOBS))
        self.functions = iter(random.sample(functions, len(functions)))
        self.settings = iter(random.sample(settings, len(settings)))
        self.causes, self.repairs = Deck(random, words.CAUSES), Deck(random, words.REPAIRS)
        self.numbers = iter(random.sample(range(100, 9999), 200))
        self.versions = iter(random.sample(list(product(range(1, 5), range(30), range(12))), 200))

    def store(self, name: str) -> Conversation:
        scenes = {".".join(package): self._scenes(package) for package in self.packages}
        return arrange(self.random, name, scenes, self._opening, self._small_talk)

    def _scenes(self, package: Parts) -> list[Scene]:
        return [getattr(self, f"_{kind}")(package) for kind, count in _SCENES.items() for _ in range(count)]

    def _opening(self, random: Random, topic: str) -> list[Line]:
        return [Line(random.choice(self.team), say(random, phrases.OPENINGS, package=topic))]

    def _small_talk(self, random: Random, topic: str) -> list[Line]:
        return [Line(random.choice(self.team), say(random, (text,))) for text in random.sample(words.CHATTER, random.randint(1, 2))]

    def _line(self, templates: tuple[str, ...], mark: str, /, **values: str) -> Line:
        place = self.random.choice(words.PLACES)
        return Line(self.random.choice(self.team), say(self.random, templates, **{"place": place} | values), mark)

    def _asks(self, templates: tuple[str, ...], package: Parts, name: Parts, key: str) -> list[Ask]:
        """A question in each way of naming it."""
        style = self.style[package]
        other = self.random.choice(_OTHERS[style])
        named = {
            SAME: f"{'.'.join(package)}.{style(name)}",
            SPELT: other(name),
            PART: style(name),
            PLAIN: f"the code to {' '.join(name)}s" if name[0] in words.VERBS else f"the {' '.join(name)}",
        }
        return [Ask(kind, say(self.random, templates, name=text), (key,)) for kind, text in named.items()]

    def _names(self, package: Parts, name: Parts) -> dict[str, str]:
        style = self.style[package]
        owner = f"{name[2].title()}{self.random.choice(('Store', 'Service', 'Reader'))}"
        file = f"{owner}.java" if style is camel else f"{name[2]}s.py"
        path = ".".join((*package, file.rpartition(".")[0]))
        numbers = {"line": str(self.random.randint(11, 980)), "hash": f"{self.random.getrandbits(28):07x}"}
        folder = f"{'/'.join(package)}/{self.random.choice(words.KINDS)}/{file}"
        return {"f": f"{path}.{style(name)}", "short": f"`{style(name)}`", "file": file, "path": folder, **numbers}

    def _trace(self, package: Parts) -> Scene:
        name = next(self.functions)
        values = {**self._names(package, name), "error": self.random.choice(words.ERRORS)}
        parts = [
            [self._line(phrases.TRACE, "trace", **values), self._line(phrases.CAUSE, "cause", cause=self.causes.deal(), **values)],
            [self._line(phrases.FIXED, "fixed", repair=self.repairs.deal(), **values)],
        ]
        asks = [
            *self._asks(phrases.ASK_TRACE, package, name, "trace"),
            *self._asks(phrases.ASK_CAUSE, package, name, "cause"),
            Ask(TWO, say(self.random, phrases.ASK_FIX, name=self.style[package](name)), ("trace", "fixed")),
        ]
        return Scene(parts, asks)

    def _setting(self, package: Parts) -> Scene:
        name = next(self.settings)
        key = f"{'.'.join(package)}.{self.style[package](name)}"
        said = self._line(phrases.SETTING, "value", key=key, value=str(self.random.randint(2, 9000)))
        return Scene([[said]], self._asks(phrases.ASK_SETTING, package, name, "value"))

    def _code(self, package: Parts) -> Scene:
        code = f"{self.random.choice(words.CODES)}{next(self.numbers)}"
        said = self._line(phrases.MEANT, "code", code=code, cause=self.causes.deal())
        other = code.replace("-", "").lower() if "-" in code else f"{code[:-3]}-{code[-3:]}" if len(code) > 6 else code.lower()
        asks = [Ask(kind, say(self.random, phrases.ASK_MEANT, name=name), ("code",)) for kind, name in ((SAME, code), (SPELT, other))]
        return Scene([[said]], asks)

    def _version(self, package: Parts) -> Scene:
        library = self.random.choice(words.LIBRARIES)
        old, new = (".".join(map(str, next(self.versions))) for _ in range(2))
        said = self._line(phrases.BUMPED, "version", lib=library, old=old, new=new, reason=self.random.choice(words.REASONS))
        named = ((SAME, f"{library} {new}"), (SPELT, f"{library}=={new}"), (PART, f"version {new}"))
        return Scene([[said]], [Ask(kind, say(self.random, phrases.ASK_BUMPED, name=name), ("version",)) for kind, name in named])

    def _renamed(self, package: Parts) -> Scene:
        old, new = next(self.functions), next(self.functions)
        said = self._line(phrases.RENAMED, "renamed", renamed=self.style[package](new), **self._names(package, old))
        return Scene([[said]], self._asks(phrases.ASK_RENAMED, package, old, "renamed"))

    def _owned(self, package: Parts) -> Scene:
        name = next(self.functions)
        said = self._line(phrases.OWNED, "owned", person=self.random.choice(words.PEOPLE), **self._names(package, name))
        return Scene([[said]], self._asks(phrases.ASK_OWNED, package, name, "owned"))
