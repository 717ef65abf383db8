"""Of whom a statement tells, as far as its first words say. Rules of English, no model."""

from __future__ import annotations

import re

RELATIVES = (
    "mother|father|mum|mom|dad|parents?|sister|brother|siblings?|sons?|daughters?|child|children|kids?|baby|wife|husband|partner|"
    "girlfriend|boyfriend|friends?|aunt|uncle|cousin|niece|nephew|grandmother|grandfather|grandma|grandpa|grandparents|boss|"
    "colleagues?|neighbou?rs?|doctor|dentist|teacher|flatmate|roommate|landlord|landlady"
)
"""Alternatives of a regular expression: who is somebody's, and somebody else."""
_ANOTHER = re.compile(rf"(?:(?:he|she|they)\b|(?:my|our) (?:[a-z]+ )?(?:{RELATIVES})\b(?! (?:tongue|language)\b))", re.IGNORECASE)
# Of a sentence's first words those that are no name.
_NO_NAME = (
    "I|We|You|It|This|That|These|Those|There|Here|The|A|An|My|Our|Your|His|Her|Their|What|Who|Where|When|Why|How|Which|Yes|No|Not|"
    "As|At|By|For|From|In|On|To|With|If|So|And|But|Or|Also|After|Before|Since|Until|While|Because|Good|Bad|Great|Big|Last|Next|Every|"
    "Each|All|Some|Many|Most|Now|Then|Today|Tomorrow|Yesterday|Sometimes|Usually|Never|Just|Only|Please|Oh|Well|Okay|Ok|Hi|Hello|Hey|Thanks"
)
# A name, and a verb of somebody else: "Greta from work has ...", "Tom's car is ...". What ends in -ing is no name: "Climbing is ...".
_NAMED = re.compile(
    rf"(?!(?:{_NO_NAME})\b)"
    r"(?!\w+ing\b)[A-Z]\w+(?: [A-Z]\w+)?(?: (?:from|at|of|in) [a-z]+)?"
    r"(?:'s [a-z]+(?: [a-z]+)? (?:is|are|was|were)|'s [a-z]+| (?:has|had|was|got|will|does|did|[a-z]{2,}s|[a-z]{2,}ed)\b)(?! my\b)"
)
# What they do to the speaker, or are to them, tells of the speaker too: "Bo became my doctor", "Our landlord put the rent up for us".
_OF_SPEAKER = re.compile(r"\b(?:my|me|our|us)\b", re.IGNORECASE)

_ASSISTANTS = frozenset({"assistant", "ai", "bot", "system", "tool"})


def is_assistant(speaker: str) -> bool:
    """True where the speaker is no person but a role, as chat applications name them."""
    return speaker.casefold() in _ASSISTANTS


def about_another(statement: str) -> bool:
    """True where it tells of somebody who is not the speaker: "My sister moved ...", "Greta has ...", "She ...". False where unsure."""
    found = _ANOTHER.match(statement) or _NAMED.match(statement)
    return found is not None and _OF_SPEAKER.search(statement, found.end()) is None
