"""What one-valued property of whom a short statement tells, and its value: "My sister moved to Rome" is my sister's residence, Rome.

Two statements of one slot with different values are an old one and a new one, however differently they are worded. Rules of English, no
model. What no rule reads has no slot, and most has none: who likes tea may like coffee too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from ndml.btsp.salience import word_set

SPEAKER = "i"
STATEMENT_CHARS = 300
"""Longer texts say more than one thing, and reading them takes time."""
_KEPT = 8192
"""Statements whose reading is kept, some 10 MB: it takes a quarter of a millisecond, and the same memories are read again."""
_KEPT_NAMES = 512


class Slot(NamedTuple):
    """whose: SPEAKER, for the one who says it, a name, "my sister". kind: the property; what: of what they have, "" for themselves."""

    whose: str
    kind: str
    what: str = ""


Slots = dict[Slot, frozenset[str]]
"""With the words of each value."""

MANY = frozenset(("car", "journey", "project", "reading", "studies", "value"))
"""Kinds of which somebody may have two: another value replaces one only where the words say that something changed."""

_WORD = r"[^\W\d_][\w-]*"
_OWN = r"(?:my|our|his|her|their)"
_NAME = rf"(?!(?:{_OWN}|the|this|that|it|there|what|who)\b)(?-i:[A-Z]\w*(?: [A-Z]\w*)?)"
_WHO = rf"(?P<who>I|we|he|she|they|{_NAME}(?:'s {_WORD})?|{_OWN} {_WORD})"
_WHOSE = rf"(?P<whose>{_NAME}'s {_WORD}'s|{_NAME}'s|{_OWN} {_WORD}'s|{_OWN}) (?:new )?"
_WHAT = rf"(?P<what>{_WORD}(?: {_WORD}){{0,2}}?)"
_WHOM = rf"(?P<who>me|us|him|her|them|{_NAME})"
_DOING = rf"(?:that |which |whom )?{_WHO} {_WORD}(?: (?:to|with|at|by|for|from|on|in|under))?"
_ANY = r"(?:[^,:;!?]|[:,](?=\d)|,(?= \d{4}\b)){1,60}?"
_VALUE = rf"(?P<value>{_ANY})"
_AT = rf"(?P<value>(?:in|inside|at|under|on|behind) {_ANY})"
_BE = r"(?:(?:is|are|am) going to be|will be|is|are|am|'s)"
_HAVE = r"(?:have|has|got)"
_AMOUNTS_TO = rf"(?:{_BE}|(?:went|was raised|was cut|changed|rose|fell) to)"
_DIET = r"(?P<value>vegetarian|vegan|pescatarian|keto|paleo|gluten-free|low-carb|halal|kosher)"
_MEAL = r"(?P<what>breakfast|brunch|lunch|dinner|supper|dessert)"
_END = r"(?=\s*(?:[;!?]|[.,](?!\d)|$|(?:for some time|since|by the way|you know|just so|I think)\b))"


def _rules(kind: str, *patterns: str, what: str = "") -> list[tuple[str, str, re.Pattern[str]]]:
    """what: of which thing the patterns tell that do not name it."""
    return [(kind, what, re.compile(pattern + _END, re.IGNORECASE)) for pattern in patterns]


# The first that reads a sentence says what it tells. "?": what kind it is the value says.
_RULES = [
    *_rules(
        "residence",
        rf"{_WHO} (?:{_BE} )?(?:lives?|living|based|resid(?:es?|ing)) in {_VALUE}",
        rf"{_WHO} (?:{_HAVE} )?(?:moved|relocated)(?: back)?(?: from {_WORD})? to {_VALUE}",
        rf"{_WHOSE}(?:home|house|flat|apartment|home ?town) {_BE} (?:in )?{_VALUE}",
        rf"{_WHO} {_HAVE} an? (?:flat|house|apartment|home) in {_VALUE}",
        rf"{_VALUE} {_BE} (?:the (?:city|town|place) )?where {_WHO} lives?",
        rf"{_VALUE} {_BE} {_WHOSE}home",
    ),
    *_rules(
        "profession",
        rf"{_WHO} (?:{_BE} )?(?:works?|working) as {_VALUE}",
        rf"{_WHO} (?:{_HAVE} )?(?:became|become) (?!{_OWN} ){_VALUE}",
        rf"{_WHO} {_BE} {_VALUE} by profession",
        rf"by profession,? {_WHO} {_BE} {_VALUE}",
        rf"{_WHOSE}(?:profession|job)(?: {_BE}|:) (?:that of )?(?P<value>an? {_ANY})",
        rf"{_WHO} earns? {_OWN} living as {_VALUE}",
    ),
    *_rules(
        "employer",
        rf"{_WHO} (?:changed jobs and )?(?:{_BE} )?(?:works?|working|employed) (?:at|for|by) {_VALUE}",
        rf"{_WHOSE}(?:employer|company|job) {_BE} (?:at |with )?{_VALUE}",
        rf"{_WHO} (?:{_HAVE}|started|took) an? (?:new )?job (?:at|with) {_VALUE}",
        rf"{_WHO} (?:joined|started at) {_VALUE}",
        rf"{_VALUE} {_BE} {_WHOSE}employer",
        rf"{_VALUE} {_BE} (?:the company |where )+{_WHO} works?(?: for| at)?",
    ),
    *_rules(
        "name",
        rf"(?P<whose>my) name {_BE} {_VALUE}",
        rf"(?P<who>I) {_BE} called {_VALUE}",
        rf"(?:please |people |you can )*call (?P<who>me) (?!(?:at|on|under|back|when|if)\b){_VALUE}",
        rf"(?P<who>I) changed my name to {_VALUE}",
    ),
    *_rules(
        "naming",
        rf"{_WHOSE}{_WHAT} (?:{_BE} (?:called|named)|goes by|has the name) {_VALUE}",
        rf"{_WHOSE}{_WHAT}'s name {_BE} {_VALUE}",
        rf"{_WHO} {_HAVE} an? (?:new )?{_WHAT} (?:called|named|whose name is) {_VALUE}",
        rf"the name of {_WHOSE}{_WHAT} {_BE} {_VALUE}",
        rf"{_VALUE} {_BE} the name of {_WHOSE}{_WHAT}",
    ),
    # Told by a verb and asked for by a name: who reports to Ivo has him as manager.
    *_rules(
        "naming",
        rf"{_WHO} (?:{_BE} )?report(?:s|ing)? to {_VALUE}",
        rf"{_VALUE} (?:manages|supervises) {_WHOM}",
        rf"{_WHO} {_BE} (?:managed|supervised) by {_VALUE}",
        what="manager",
    ),
    *_rules("naming", rf"{_WHO} (?:{_BE} )?rent(?:s|ing)?(?: (?:the|an?|{_OWN}) {_WORD})? from {_VALUE}", what="landlord"),
    *_rules(
        "naming",
        rf"{_WHO} (?:sees?|goes to|go to) {_VALUE} (?:for|about|with) {_OWN} teeth",
        rf"{_VALUE} (?:looks after|takes care of|checks|cleans) {_WHOSE}teeth",
        what="dentist",
    ),
    *_rules(
        "?",
        rf"(?:you|people|they|everybody|everyone) (?:can |may |could )?(?:reach|call|phone|ring|text) {_WHOM} (?:at|on|under) {_VALUE}",
        rf"{_WHO} (?:{_BE}|can be|may be) (?:reached|called|reachable) (?:at|on|under) {_VALUE}",
        what="phone number",
    ),
    *_rules(
        "?",
        rf"{_WHO} banks? (?:with|at) {_VALUE}",
        rf"{_WHOSE}(?:bank )?account {_BE} (?:with|at) {_VALUE}",
        rf"{_WHO} (?:{_HAVE}|opened|keeps?) (?:an|the|{_OWN}) (?:bank )?account (?:with|at|in) {_VALUE}",
        rf"{_WHO} (?:transferred|moved) (?:the|{_OWN}) (?:bank )?account to {_VALUE}",
        what="bank",
    ),
    *_rules(
        "?",
        rf"{_WHO} pays? {_VALUE} (?:(?:a|per|each|every) \w+ )?(?:in|for|of|as) (?:the )?rent",
        rf"{_WHO} pays? (?:a )?rent of {_VALUE}",
        what="rent",
    ),
    *_rules("?", rf"{_WHO} (?:earns?|makes?) {_VALUE} (?:a|per) (?:month|year|hour)", what="salary"),
    *_rules("?", rf"{_WHO} (?:{_BE} )?rid(?:es?|ing) (?:an? )?{_VALUE}", what="bike"),
    *_rules(
        "?",
        rf"{_WHO} (?:eats?|turned|{_BE}|went|{_HAVE} (?:gone|turned)|became) {_DIET}",
        rf"{_WHO} (?:switched|changed) to an? {_DIET} diet",
        what="diet",
    ),
    *_rules(
        "?",
        rf"{_WHO} (?:{_BE} )?(?:learn(?:s|ing)?|stud(?:y|ies|ying)|tak(?:es?|ing)) {_VALUE} (?:in the evenings?|in evening classes|at "
        r"night school)",
        what="evening class",
    ),
    *_rules(
        "budget",
        rf"{_WHOSE}{_WHAT} budget {_AMOUNTS_TO} {_VALUE}",
        rf"(?P<whose>the) {_WHAT} budget {_AMOUNTS_TO} {_VALUE}",
        rf"the budget for (?P<whose>the|{_OWN}) {_WHAT} {_AMOUNTS_TO} {_VALUE}",
        rf"(?P<whose>the|{_OWN}) {_WHAT} (?:may|can|could|should|must) cost {_VALUE}",
        rf"{_WHO} {_HAVE} {_VALUE} for (?P<whose>the|{_OWN}) {_WHAT}",
        rf"{_WHO} (?:changed|raised|cut|set) (?P<whose>the|{_OWN}) {_WHAT} budget to {_VALUE}",
    ),
    *_rules(
        "studies",
        rf"{_WHO} (?:{_BE} )?(?:stud(?:y|ies|ying)) {_VALUE}",
        rf"{_WHO} {_BE} (?:a student of|doing a degree in|at university for) {_VALUE}",
        rf"{_WHO} learns? {_VALUE} at university",
        rf"{_WHO} changed (?:{_WHOSE})?subject to {_VALUE}",
        rf"{_WHOSE}(?:subject|field of study) {_BE} {_VALUE}",
    ),
    *_rules(
        "reading",
        rf"{_WHO} (?:finished it and )?(?:{_BE} |started )?read(?:ing|s)?(?: a book called)? {_VALUE}",
        rf"the book {_WHO} (?:{_BE} )?read(?:ing|s)? {_BE} {_VALUE}",
    ),
    *_rules(
        "project",
        rf"{_WHO} (?:{_BE} )?work(?:ing|s)? on (?:a project called )?{_VALUE}",
        rf"{_WHOSE}(?:current )?project(?: at work)? {_BE} {_VALUE}",
        rf"the project {_WHO} (?:{_BE} )?work(?:ing|s)? on {_BE} {_VALUE}",
        rf"{_WHO} switched to {_VALUE}, a new project",
    ),
    *_rules(
        "journey",
        rf"{_WHO} {_BE} (?:going|flying|travell?ing) to (?!be\b){_VALUE}(?: on holiday)?",
        rf"{_WHOSE}(?:next )?(?:trip|holiday|journey) (?:goes|{_BE}) (?:to|in) {_VALUE}",
        rf"{_WHO} (?:booked|plans?|{_BE} planning) a trip to {_VALUE}",
    ),
    *_rules(
        "car",
        rf"{_WHO} (?:{_BE} )?driv(?:es?|ing)(?: around in)? (?:an? )?{_VALUE}",
        rf"{_WHOSE}car(?: {_BE}|:) (?:an? )?{_VALUE}",
    ),
    *_rules(
        "meal",
        rf"{_WHO} (?:eats?|{_HAVE}) {_VALUE} for {_MEAL}",
        rf"for {_MEAL},? {_WHO} (?:eats?|{_HAVE}) {_VALUE}",
        rf"{_WHOSE}{_MEAL} {_BE} {_VALUE}",
    ),
    *_rules(
        "favourite",
        rf"{_WHOSE}(?:favou?rite|most loved) {_WHAT} {_BE} {_VALUE}",
        rf"{_WHO} changed {_WHOSE}favou?rite {_WHAT} to {_VALUE}",
        rf"{_VALUE} {_BE} {_WHOSE}favou?rite {_WHAT}",
        rf"{_VALUE} {_BE} the {_WHAT} {_WHO} (?:likes?|loves?) (?:best|most)",
        rf"the {_WHAT} {_WHO} (?:likes?|loves?) (?:best|most) {_BE} {_VALUE}",
        rf"{_WHOSE}{_WHAT} of choice {_BE} {_VALUE}",
    ),
    *_rules(
        "place",
        rf"{_WHO} (?:keeps?|put|left|stores?) {_WHOSE}{_WHAT} {_AT}",
        rf"{_WHO} moved {_WHOSE}{_WHAT} to {_VALUE}",
        rf"(?:you )?(?:can )?find {_WHOSE}{_WHAT} {_AT}",
        rf"{_AT},? {_WHO} keeps? {_WHOSE}{_WHAT}",
        rf"the place of {_WHOSE}{_WHAT} {_BE} {_VALUE}",
        rf"{_VALUE} {_BE} (?:where|the place of) {_WHOSE}{_WHAT}(?: {_BE})?",
    ),
    *_rules(
        "?",
        rf"{_WHOSE}{_WHAT} (?:was |has been |{_HAVE} )?moved (?P<value>to {_ANY})",
        rf"{_WHOSE}{_WHAT} (?:starts?|begins?|will start|will begin|takes? place|{_BE} (?:planned|scheduled) for) {_VALUE}",
        rf"{_WHOSE}(?:date|time) for the {_WHAT} {_BE} {_VALUE}",
        rf"{_WHO} {_HAVE} (?:an?|{_WHOSE}) ?{_WHAT} {_AT}",
        rf"{_AT},? {_WHO} {_HAVE} (?:an?|{_WHOSE}) ?{_WHAT}",
        rf"{_AT},? (?:there )?(?:is |are )?{_WHOSE}{_WHAT}(?: (?:starts?|begins?|is|are))?",
        rf"there {_BE} {_WHOSE}{_WHAT} {_AT}",
        rf"{_WHO} (?:changed|switched) {_WHOSE}{_WHAT} to {_VALUE}",
        rf"{_WHOSE}{_WHAT}(?: (?:{_BE}|changed to|can be found|became|{_HAVE} become)|:) {_VALUE}",
        rf"{_WHO} (?:uses?|started|chose|took up|{_HAVE}) {_VALUE} as {_WHOSE}{_WHAT}",
        rf"the {_WHAT} {_DOING} {_BE} {_VALUE}",
        rf"{_VALUE} {_BE} the {_WHAT} {_DOING}",
        rf"{_WHO} {_HAVE} this {_WHAT}: {_VALUE}",
        rf"{_WHO} (?:{_HAVE}|got|bought) a new {_WHAT}, {_VALUE}",
        rf"{_VALUE} (?:{_BE}|became|{_HAVE} become|(?:took|takes) over as) {_WHOSE}{_WHAT}",
    ),
]  # fmt: skip
# Words that say when a statement holds and nothing else: without them there are half as many ways to say a thing.
_TIMES = re.compile(
    r"\s*\b(?:at the moment|at present|these days|right now|from now on|for now|now|just|still|currently|usually|always|already|recently|"
    r"finally|really|actually|again|instead|today|nowadays|often)\b(?!['-])",
    re.IGNORECASE,
)
_SHORT, _WHOLE = re.compile(r"'(?:m|re|ve)\b", re.IGNORECASE), {"'m": " am", "'re": " are", "'ve": " have"}
# What was is no value of what is.
_PAST = re.compile(r"\b(?:in (?:19|20)\d\d|ago|when (?:i|s?he|we|they) (?:was|were)|as a child|used to|before|formerly)\b", re.IGNORECASE)
_TIME = re.compile(r"(?:\d{1,2}[:.h]\d{2}|\d{1,2}(?: ?(?:a\.?m|p\.?m)\b| o'clock)|noon\b|midnight\b)", re.IGNORECASE)
_DAY = re.compile(
    r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|tomorrow|\d{1,2}(?:st|nd|rd|th)|\d{4}-\d\d-\d\d)\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[,;:.!?] |\b(?:that|and) ", re.IGNORECASE)
_MOST_CLAUSES = 6
_WORDS = re.compile(r"[^\W_]+")
_FIRST, _OWNERS = word_set("i we us me my our the"), word_set("his her their")
_PLACED = word_set("in inside at under on behind to for")
_LITTLE = word_set("a an the my") | _PLACED
# Of these a plain "is" tells how they are, and they are many things at once: "my dog is ill now" leaves it brown.
_BEINGS = word_set(
    """mother father parent parents sister brother sibling son daughter child kid baby wife husband partner girlfriend boyfriend
    friend aunt uncle cousin niece nephew grandmother grandfather grandma grandpa stepmother stepfather manager colleague neighbour neighbor
    doctor dentist landlord teacher coach dog cat pet horse bird fish cow snake hamster rabbit family"""
)
_ONE = word_set("mother father husband wife partner girlfriend boyfriend manager doctor dentist landlord coach")
"""Of these a plain "is" with a name says who it is: there is one at a time."""
_A_NAME = re.compile(r"(?:not |no longer |never )?(?:(?:Dr|Mr|Mrs|Ms|Prof)\.? )?[A-Z][\w'-]+(?: [A-Z][\w'-]+)*")
# One thing by several names.
_SAME = {
    **dict.fromkeys(("boss", "supervisor", "line manager", "team lead", "team leader"), "manager"),
    **dict.fromkeys(("number", "phone", "telephone", "mobile", "mobile number", "telephone number", "cell", "cell phone"), "phone number"),
    **dict.fromkeys(("email", "e-mail", "mail", "e-mail address", "mail address"), "email address"),
    **dict.fromkeys(("gp", "family doctor", "physician"), "doctor"),
    **dict.fromkeys(("mum", "mom"), "mother"),
    **dict.fromkeys(("night school", "evening course"), "evening class"),
    "dad": "father",
    "landlady": "landlord",
    "bicycle": "bike",
}


def slots(text: str) -> Slots:
    """The slots that a statement gives, of the first rule that reads it; none where it tells of what was. Some hundred characters."""
    plain = plainly(text)
    if _PAST.search(plain):
        return {}
    starts = [0, *(match.end() for match in islice(_CLAUSE.finditer(plain), _MOST_CLAUSES))]
    for kind, what, rule in _RULES:
        found = dict(_slot(kind, what, match.groupdict()) for start in starts if (match := rule.match(plain, start)))
        if found:
            return {slot: value for slot, value in found.items() if value and not (slot.kind == "value" and slot.what in _BEINGS)}
    return {}


def statement_slots(text: str) -> Iterable[tuple[Slot, frozenset[str]]]:
    """Slots and values of a statement; none of a question or of more than STATEMENT_CHARS."""
    return () if len(text) > STATEMENT_CHARS or text.rstrip().endswith("?") else _again(text)


@lru_cache(_KEPT)
def _again(text: str) -> tuple[tuple[Slot, frozenset[str]], ...]:
    return tuple(slots(text).items())


def speaks_of_own(text: str, what: str) -> bool:
    """Whether it names the speaker's own `what`, by any of its names or by its first word: "My boss Ivo came by" speaks of the speaker's
    manager, "My mother eats no lettuce" of what she eats."""
    return bool(what) and _own(what).search(text) is not None


@lru_cache(_KEPT_NAMES)
def _own(what: str) -> re.Pattern[str]:
    names = sorted({what, what.partition(" ")[0], *(name for name, same in _SAME.items() if same == what)})
    return re.compile(rf"\b(?:my|our) (?:[a-z]+ )?(?:{'|'.join(map(re.escape, names))})\b", re.IGNORECASE)


def plainly(text: str) -> str:
    """Without words that only say when it holds ("now", "these days"), and with verbs in full."""
    return _SHORT.sub(lambda short: _WHOLE[short[0].casefold()], _TIMES.sub("", text.replace("’", "'"))).strip()


def _slot(kind: str, what: str, groups: dict[str, str | None]) -> tuple[Slot, frozenset[str]]:
    """What a rule has found, and the words of its value."""
    value = groups["value"] or ""
    what = what or (groups.get("what") or "").casefold()
    what = _SAME.get(what, what)
    kind = _kind(value) if kind == "?" else kind
    if kind == "value" and what in _ONE and _A_NAME.fullmatch(value):
        kind = "naming"
    slot = Slot(_owner(groups.get("whose"), groups.get("who")), kind, what)
    return slot, frozenset(_WORDS.findall(value.casefold())) - _LITTLE


def _owner(whose: str | None, who: str | None) -> str:
    """ "my" and "I" are the speaker; "her" is whoever the sentence says."""
    owner = (whose or who or "").casefold().removesuffix("'s")
    if owner in _OWNERS and who:
        owner = who.casefold().removesuffix("'s")
    return SPEAKER if owner in _FIRST else owner


def _kind(value: str) -> str:
    """Whether a value is a time, a day, a place or something else."""
    first, _, rest = value.partition(" ")
    placed = first.casefold() in _PLACED
    if _TIME.match(rest if placed else value):
        return "time"
    if _DAY.search(value):
        return "day"
    return "place" if placed else "value"
