"""Task logs of an agent over weeks, on six projects: commands, results, failures with causes, decisions, numbers, files, people.

Every kind of scene comes on every project with other values, so each answer has look-alikes; a project is often named at a session's
beginning only. Half of the questions call things by other names than the log does. The same seed gives the same words.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from random import Random

from tests.quality.recall import task_phrases as phrases
from tests.quality.recall import task_words as words
from tests.quality.recall.phrases import Deck, Forms, other_form, say
from tests.quality.recall.scenes import Ask, Line, Scene, arrange
from tests.quality.recall.sets import Conversation

SEED = 20_250_301
_PROJECTS = 6
_NAMED = 0.4  # chance that a turn names its project
_OTHER_WORDS = 0.5
_REASON_LAST = 0.65  # else it comes before what it is the reason for
_SCENES = {
    "failure": 4, "measure": 3, "choice": 2, "place": 3, "wish": 2, "setting": 3, "date": 2, "incident": 2, "contact": 2,
}  # fmt: skip
FACT, OTHER, WHY, WHEN, TWO, ALIKE = "fact", "other words", "why", "when", "two sessions", "look-alike"


def stores(most: int = 3, seed: int = SEED) -> list[Conversation]:
    """The first `most` stores of the set, each of some 600 turns and 300 questions."""
    return [_World(Random(seed + number)).store(f"tasks-{number}") for number in range(most)]


def small_talk(random: Random, topic: str) -> list[Line]:
    """One to three turns about nothing."""
    chosen = random.sample(phrases.CHATTER, random.randint(1, 3))
    return [Line(who, say(random, (text,), **_numbers(random))) for who, text in chosen]


def opening(random: Random, topic: str) -> list[Line]:
    """How a session on a project begins."""
    return [Line("user", say(random, phrases.OPENINGS, project=topic)), Line("assistant", say(random, phrases.ANSWERS))]


def _numbers(random: Random) -> dict[str, str]:
    return {"n": str(random.randint(2, 96)), "hash": f"{random.getrandbits(28):07x}"}


def _slug(thing: Forms) -> str:
    return thing[0].lower().replace(" ", "-")


class _World:
    """One store in the making: what was dealt is not dealt again before all of it was."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.projects = random.sample(words.PROJECTS, _PROJECTS)
        self.causes, self.repairs = Deck(random, words.CAUSES), Deck(random, words.REPAIRS)
        self.reasons, self.people = Deck(random, words.REASONS), Deck(random, words.FIRST_NAMES)
        self.chosen: dict[str, list[tuple[Scene, str, str]]] = defaultdict(list)

    def store(self, name: str) -> Conversation:
        scenes = {project: self._scenes(project) for project in self.projects}
        self._ask_across_projects()
        return arrange(self.random, name, scenes, opening, small_talk)

    def _scenes(self, project: str) -> list[Scene]:
        found = []
        for kind, count in _SCENES.items():
            # Of one kind no two scenes of a project are about the same thing: a question has one answer.
            for subject in self.random.sample(_SUBJECTS[kind], count):
                found.append(getattr(self, f"_{kind}")(project, subject))
        return found

    def _say(self, templates: tuple[str, ...], project: str, **values: str) -> str:
        named = self.random.choice((f" of {project}", f" in {project}")) if self.random.random() < _NAMED else ""
        return say(self.random, templates, project=project, at=named, **_numbers(self.random) | values)

    def _asked(self, forms: Forms, told: str) -> str:
        return other_form(self.random, forms, told) if self.random.random() < _OTHER_WORDS else told

    def _failure(self, project: str, thing: Forms) -> Scene:
        told, asked = thing[0], self._asked(thing, thing[0])
        error = self.random.choice(words.ERRORS).format(n=self.random.randint(11, 599))
        cause = self._say((phrases.CAUSE_NAMED, phrases.CAUSE)[self.random.random() < 0.5], project, thing=told, cause=self.causes.deal())
        repair = self.repairs.deal().format(**_numbers(self.random))
        lines = [
            Line("user", self._say(phrases.RUN, project, thing=told)),
            Line("tool", self._say(phrases.BROKE, project, slug=_slug(thing), error=error), "broke", ("cause",)),
            Line("assistant", cause, "cause"),
            Line("assistant", self._say(phrases.REPAIR, project, repair=repair), "repair", ("broke", "cause")),
        ]
        why, when = (self._say(how, project, thing=asked) for how in (phrases.ASK_WHY, phrases.ASK_WHEN_BROKE))
        repaired, printed = (self._say(how, project, thing=told) for how in (phrases.ASK_REPAIR, phrases.ASK_ERROR))
        asks = [Ask(WHY, why, ("cause",)), Ask(WHEN, when, ("broke",)), Ask(FACT, repaired, ("repair",)), Ask(FACT, printed, ("broke",))]
        return Scene([lines], asks)

    def _measure(self, project: str, thing: Forms) -> Scene:
        unit, names, (low, high) = self.random.choice(words.MEASURES)
        values = {"thing": thing[0], "measure": names[0], "value": f"{self.random.randint(low, high)} {unit}", "slug": _slug(thing)}
        number = self._say(phrases.MEASURED, project, **values)
        lines = [
            Line("user", self._say(phrases.MEASURE_ASK, project, **values)),
            Line("tool" if number.startswith("$") else "assistant", number, "number"),
            Line("user", self._say(phrases.MEASURE_REMARK, project)),
        ]
        same = self._say(phrases.ASK_MEASURE, project, thing=thing[0], measure=names[0])
        other = self._say(
            phrases.ASK_MEASURE, project, thing=other_form(self.random, thing, thing[0]), measure=self._asked(names, names[0])
        )
        return Scene([lines], [Ask(FACT, same, ("number",)), Ask(OTHER, other, ("number",))])

    def _choice(self, project: str, purpose: Forms) -> Scene:
        a, b = self.random.sample(words.OPTIONS, 2)
        option = self.random.choice((a, b))
        values = {"purpose": purpose[0], "a": a, "b": b, "option": option}
        lines = [
            Line("user", self._say(phrases.CHOICE_ASK, project, **values)),
            Line("assistant", self._say(phrases.CHOICE_WEIGHED, project, **values)),
        ]
        key = f"chosen {project} {purpose[0]}"
        settled = [
            Line("user", self._say(phrases.CHOSEN, project, **values), key, ("why",)),
            Line("user", self._say(phrases.CHOSEN_WHY, project, reason=self.reasons.deal()), "why"),
        ]
        lines += settled if self.random.random() < _REASON_LAST else settled[::-1]
        what = self._say(phrases.ASK_CHOSEN, project, purpose=self._asked(purpose, purpose[0]))
        why = self._say(phrases.ASK_CHOSEN_WHY, project, option=option)
        scene = Scene([lines], [Ask(FACT, what, (key,)), Ask(WHY, why, ("why",))])
        self.chosen[option].append((scene, project, key))
        return scene

    def _ask_across_projects(self) -> None:
        """Where several projects took the same: which. An option that one project took twice makes "why" ambiguous: not asked then."""
        for option, found in self.chosen.items():
            for scene, project, _ in found:
                if sum(project == other for _, other, _ in found) > 1:
                    scene.asks = [ask for ask in scene.asks if ask.category != WHY]
            if len({project for _, project, _ in found}) > 1:
                text = say(self.random, phrases.ASK_SHARED, option=option)
                found[0][0].asks.append(Ask(TWO, text, tuple(key for _, _, key in found)))

    def _place(self, project: str, thing: Forms) -> Scene:
        pick = self.random.choice
        path = f"{pick(words.FOLDERS)}/{pick(words.MODULES)}_{self.random.randint(2, 99)}.{pick(words.ENDINGS)}"
        lines = [
            Line("user", self._say(phrases.PLACE_ASK, project, thing=thing[0])),
            Line("assistant", self._say(phrases.PLACED, project, path=path, thing=thing[0]), "path"),
        ]
        same, other = (self._say(phrases.ASK_PLACE, project, thing=name) for name in (thing[0], other_form(self.random, thing, thing[0])))
        return Scene([lines], [Ask(FACT, same, ("path",)), Ask(OTHER, other, ("path",))])

    def _wish(self, project: str, about: tuple[Forms, str]) -> Scene:
        topic, wish = about
        lines = [
            Line("user", self._say(phrases.WISH, project, topic=topic[0], wish=wish), "wish"),
            Line("assistant", self._say(phrases.WISH_HEARD, project)),
        ]
        same, other = (self._say(phrases.ASK_WISH, project, topic=name) for name in topic)
        return Scene([lines], [Ask(ALIKE, same, ("wish",)), Ask(OTHER, other, ("wish",))])

    def _setting(self, project: str, about: tuple[Forms, Forms]) -> Scene:
        setting, thing = about
        values = {"setting": setting[0], "thing": thing[0], "value": str(self.random.randint(2, 9000))}
        who = self.random.choice(("assistant", "user"))
        heard = Line("user" if who == "assistant" else "assistant", self._say(phrases.SET_HEARD, project))
        lines = [Line(who, self._say(phrases.SET, project, **values), "value"), heard]
        same = self._say(phrases.ASK_SET, project, setting=setting[0], thing=thing[0])
        other = self._say(phrases.ASK_SET, project, setting=setting[1], thing=self._asked(thing, thing[0]))
        return Scene([lines], [Ask(ALIKE, same, ("value",)), Ask(OTHER, other, ("value",))])

    def _date(self, project: str, event: Forms) -> Scene:
        first = date(2025, 6, 1) + timedelta(days=self.random.randint(0, 60))
        second = first + timedelta(days=self.random.randint(3, 40))
        told, moved = (f"{day:%A}, {day.day} {day:%B}" for day in (first, second))
        parts = [
            [
                Line("user", self._say(phrases.DATED, project, event=event[0], day=told), "first"),
                Line("assistant", self._say(phrases.DATED_HEARD, project)),
            ],
            [
                Line("user", self._say(phrases.MOVED, project, event=event[0], day=moved), "second"),
                Line("assistant", self._say(phrases.DATED_HEARD, project)),
            ],
        ]
        asked = self._asked(event, event[0])
        now, both = (self._say(how, project, event=asked) for how in (phrases.ASK_DATE, phrases.ASK_MOVED))
        return Scene(parts, [Ask(WHEN, now, ("second",)), Ask(TWO, both, ("first", "second"))])

    def _incident(self, project: str, about: tuple[Forms, Forms]) -> Scene:
        symptom, thing = about
        values = {"symptom": symptom[0], "thing": thing[0]}
        repair = self.repairs.deal().format(**_numbers(self.random))
        parts = [
            [
                Line("user", self._say(phrases.SYMPTOM, project, **values), "symptom"),
                Line("assistant", self._say(phrases.EASED, project), "eased", ("symptom",)),
            ],
            [
                Line("assistant", self._say(phrases.LOOKED_INTO, project, thing=thing[0], cause=self.causes.deal()), "cause"),
                Line("assistant", self._say(phrases.ENDED, project, repair=repair), "cure", ("cause",)),
            ],
        ]
        asked = {"symptom": self._asked(symptom, symptom[0]), "thing": self._asked(thing, thing[0])}
        why, cure = (self._say(how, project, **asked) for how in (phrases.ASK_INCIDENT, phrases.ASK_CURE))
        return Scene(parts, [Ask(TWO, why, ("symptom", "cause")), Ask(TWO, cure, ("symptom", "cause", "cure"))])

    def _contact(self, project: str, thing: Forms) -> Scene:
        duty, person = self.random.choice(words.DUTIES), self.people.deal()
        lines = [
            Line("user", self._say(phrases.CONTACT, project, thing=thing[0], duty=duty[0], person=person), "who"),
            Line("assistant", self._say(phrases.CONTACT_HEARD, project)),
        ]
        same = self._say(phrases.ASK_CONTACT, project, thing=thing[0], duty=duty[0])
        other = self._say(phrases.ASK_CONTACT, project, thing=other_form(self.random, thing, thing[0]), duty=duty[1])
        return Scene([lines], [Ask(ALIKE, same, ("who",)), Ask(OTHER, other, ("who",))])


# Things of which a project has one each are paired by their place in the lists, so that two scenes never share one.
_SUBJECTS: dict[str, list[object]] = {
    "failure": list(words.PARTS),
    "measure": list(words.PARTS),
    "choice": list(words.PURPOSES),
    "place": list(words.PARTS),
    "wish": list(words.WISHES),
    "setting": [(setting, part) for setting in words.SETTINGS for part in words.PARTS[:9]],
    "date": list(words.EVENTS),
    "incident": [(symptom, words.PARTS[3 * place + 1]) for place, symptom in enumerate(words.SYMPTOMS)],
    "contact": list(words.PARTS),
}
