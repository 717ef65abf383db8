"""Options that several commands take."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from mimetypes import guess_type
from pathlib import Path
from typing import Annotated, Any

import typer

from ndml.cli.records import time_of
from ndml.client import Content, Filter, RankingWeights
from ndml.errors import FieldInvalid

MOST_CONTENT_BYTES = 262_144
"""As the proto bounds Content.data."""

TraceId = Annotated[str, typer.Argument(help="Id of the memory: 32 hexadecimal digits, as search and list show it.", show_default=False)]
Labels = Annotated[list[str] | None, typer.Option("--label", "-l", help="Label as key=value; may be repeated.", metavar="KEY=VALUE")]
Speaker = Annotated[str | None, typer.Option(help="Who said it.")]
SaidAt = Annotated[str | None, typer.Option(help="When it was said: 2026-05-01 or 2026-05-01T18:30:00Z. Without a zone it is UTC.")]
KindName = Annotated[str | None, typer.Option(help="episodic, semantic or procedural.")]
Salience = Annotated[float | None, typer.Option(help="Importance, 0 to 1.")]
Protect = Annotated[bool | None, typer.Option("--protect/--no-protect", help="Forgetting leaves it alone, or no longer.")]
ExpiresAt = Annotated[str | None, typer.Option(help="Deleted from this time on, as --said-at.")]
ValidFrom = Annotated[str | None, typer.Option(help="When it began to hold, as --said-at. Default: when it was said.")]
ValidUntil = Annotated[str | None, typer.Option(help="When it ceased to hold, as --said-at.")]
ValidAt = Annotated[str | None, typer.Option("--valid-at", help="What it says holds at this time.")]
TimeToLive = Annotated[float | None, typer.Option("--ttl", help="Seconds to live from now; with --expires-at the earlier of the two.")]
Deduplicate = Annotated[bool, typer.Option("--deduplicate", help="Leave out what says the same as another memory.")]
WithStrength = Annotated[bool, typer.Option("--strength", help="With how strong it is now.")]
Source = Annotated[str | None, typer.Option(help="Where it came from, for example a URI.")]
WithEmbedding = Annotated[bool, typer.Option("--embedding", help="With the vectors.")]
Speakers = Annotated[list[str] | None, typer.Option("--speaker", help="Said by this speaker; may be repeated.")]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="Of this kind; may be repeated.")]
Since = Annotated[str | None, typer.Option("--since", help="Said at this time or after.")]
Until = Annotated[str | None, typer.Option("--until", help="Said before this time.")]
Contents = Annotated[
    list[Path] | None, typer.Option("--content", help="An image, a recording, a file that belongs to it; may be repeated.", exists=True)
]
SoughtContent = Annotated[Path | None, typer.Option("--content", help="Look for contents like this image instead of words.", exists=True)]
File = Annotated[Path, typer.Argument(help="File; - is stdin or stdout.", allow_dash=True)]


def content_of(path: Path) -> Content:
    """A file as a content; its name says what it is. Raises FieldInvalid, OSError."""
    size = path.stat().st_size
    if size > MOST_CONTENT_BYTES:
        raise FieldInvalid(f"{path} has {size:,} bytes, a content at most {MOST_CONTENT_BYTES:,}: make it smaller", field="content")
    kind, _ = guess_type(path.name)
    return Content(kind or "application/octet-stream", path.read_bytes(), uri=path.name)


def labels_of(pairs: list[str] | None) -> dict[str, str]:
    """["a=1", …] as a mapping. Raises FieldInvalid."""
    found: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise FieldInvalid(f"a label is key=value, got {pair!r}", field="label")
        found[key] = value
    return found


def filter_of(
    labels: list[str] | None,
    kinds: list[str] | None,
    speakers: list[str] | None,
    since: str | None,
    until: str | None,
    valid_at: str | None = None,
) -> Filter | None:
    """The conditions that were given; None for none."""
    wanted: dict[str, Any] = {
        "metadata": labels_of(labels),
        "kinds": kinds or (),
        "speakers": speakers or (),
        "said_from": time("since", since),
        "said_until": time("until", until),
        "valid_at": time("valid-at", valid_at),
    }
    return Filter(**wanted) if any(wanted.values()) else None


def weights_of(salience: float | None, strength: float | None, others: list[str] | None = None) -> RankingWeights | None:
    """The weights that were given, `others` as signal=number; None for none. Raises FieldInvalid."""
    given = {} if salience is None else {"salience": salience}
    given |= {} if strength is None else {"strength": strength}
    names = [each.name for each in fields(RankingWeights)]
    for pair in others or ():
        name, _, number = pair.partition("=")
        try:
            weight = float(number)
        except ValueError:
            raise FieldInvalid(f"a weight is signal=number, for example lexical=0.5; got {pair!r}", field="weight") from None
        if name not in names:
            raise FieldInvalid(f"there is no signal {name!r}: give one of {', '.join(names)}", field="weight")
        given[name] = weight
    return RankingWeights(**given) if given else None


def time(name: str, text: str | None) -> datetime | None:
    return time_of(name, text) if text else None
