"""Names that people and programs give to things in code: identifiers, dotted paths, file paths, error codes, version numbers.

`ndml.language.terms` cuts a text at every dot and underscore and stems what is left, which is right for prose: `http.max_retries` is three
words there, and `maxRetries` one that nothing else shares. Here `max_retries` is a term, whole and unstemmed, in one spelling for every
convention: maxRetries, max_retries, max-retries and MAX_RETRIES are the same name. What stands here is beside the words, never
instead of them: word vectors go by the places of `content_words`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from ndml.language.terms import MOST_LETTERS, terms

MOST_NAMES = 256
"""Terms that the names of one text give at most: a text may be a log of 64 KiB."""

_NAME = re.compile(r"[A-Za-z0-9_]+(?:(?:::|->|[./\\:#-])[A-Za-z0-9_]+)*")
_SEGMENT = re.compile(r"[A-Za-z0-9_]+(?:-[A-Za-z0-9_]+)*")
_HUMP = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z0-9]+")
_CAMEL = re.compile(r"[a-z0-9][A-Z]|[A-Z]{2}[a-z]")
_LIKE_CODE = re.compile(
    r"[A-Za-z0-9]_[A-Za-z0-9]"  # snake_case
    r"|\b[a-z]{2,}[a-z0-9]*[A-Z][a-z]"  # camelCase, not iPhone
    r"|\b(?!Mac)[A-Z][a-z0-9]{3,}[A-Z][a-z]{2,}"  # PascalCase, not McAllister or YouTube
    r"|\w::\w|\w->\w|\w\(\)|`"
    r"|\b[A-Za-z_]\w+\.[a-z_]\w+(?:\.\w+)+"  # dotted.path.name
    r"|\b\w+\.(?:py|rs|go|js|ts|tsx|jsx|java|kt|rb|php|cs|c|h|cc|cpp|hpp|swift|scala|sh|sql|ya?ml|toml|json|proto|lock|cfg|ini|conf|log)\b"
    r"|(?:^|\s)/?\w[\w.-]*/\w[\w.-]*/\w"  # a/path/of
    r"|\b0x[0-9a-fA-F]{2,}\b|\b[A-Z]{1,8}-?\d{3,}\b"  # 0x80070005, E0382, HTTP-503
    r"|\bE(?:CONN|ADDR)[A-Z]+\b|\bE(?:NOENT|ACCES|PERM|EXIST|PIPE|TIMEDOUT|NOTFOUND|AGAIN|NOSPC|MFILE|INVAL)\b"  # as in errno.h
    r"|\bv?\d+\.\d+\.\d+(?![\d.])"  # 2.14.3
)
_READ = 4096
"""Characters of a query that tell what kind it is."""


def name_terms(text: str) -> list[str]:
    """Terms of the names in `text`, in order, repeated as they are, MOST_NAMES at most; linear in its length.

    A name of several parts gives itself, a camelCase one also its parts, as words. A path gives each of its names of several parts; itself
    where it has none, as a version. A name of one part is a word already, and gives nothing. (Paths as terms too cost recall.)
    """
    return list(islice(_terms_of_names(text), MOST_NAMES))


def like_code(text: str) -> bool:
    """Whether `text` names things as code does: in snake_case or camelCase, by a path, an error code, a version. Reads its beginning."""
    return _LIKE_CODE.search(text[:_READ]) is not None


def _terms_of_names(text: str) -> Iterator[str]:
    for match in _NAME.finditer(text):
        name = match.group()
        if name.isalnum() and not _CAMEL.search(name):
            continue  # a word
        segments = _SEGMENT.findall(name)
        parts = [_parts(segment) for segment in segments]
        compound = [each for each in parts if len(each) > 1]
        yield from map(_joined, compound)
        whole = [part for each in parts for part in each]
        if not compound and len(whole) > 1:
            yield _joined(whole)
        for segment, each in zip(segments, parts, strict=True):
            if _CAMEL.search(segment):
                yield from terms(" ".join(each))


def _parts(segment: str) -> list[str]:
    return [part.lower() for part in _HUMP.findall(segment)]


def _joined(parts: list[str]) -> str:
    """The name in the one spelling; an underscore keeps it apart from every word."""
    return "_".join(parts)[:MOST_LETTERS]
