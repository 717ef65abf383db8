"""Commands on memories: add, search, get, list, update, resolve, delete, forget, profile, stats."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from ndml.cli import options as opt
from ndml.cli.cards import cards, decision, when
from ndml.cli.output import table, text_and_id
from ndml.cli.session import LONGEST_S, Session
from ndml.cli.transfer import add_file
from ndml.client import Hit, Memory, Provenance, SearchResult
from ndml.errors import FieldInvalid


def register(app: typer.Typer) -> None:
    app.command("add")(add)
    app.command("search")(search)
    app.command("get")(get)
    app.command("list")(list_)
    app.command("update")(update)
    app.command("resolve")(resolve)
    app.command("delete")(delete)
    app.command("forget")(forget)
    app.command("profile")(profile)
    app.command("stats")(stats)


def add(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="What to remember; - reads it from stdin.", show_default=False)] = "",
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="A conversation, one JSON object a line: text, speaker, said_at, session, …", allow_dash=True),
    ] = None,
    content: opt.Contents = None,
    speaker: opt.Speaker = None,
    said_at: opt.SaidAt = None,
    kind: opt.KindName = None,
    label: opt.Labels = None,
    salience: opt.Salience = None,
    source: opt.Source = None,
    deduplicate: opt.Deduplicate = False,
    protect: Annotated[bool, typer.Option("--protect", help="Forgetting leaves it alone.")] = False,
    expires_at: opt.ExpiresAt = None,
    ttl: opt.TimeToLive = None,
    valid_from: opt.ValidFrom = None,
    valid_until: opt.ValidUntil = None,
    request_id: Annotated[str, typer.Option(help="Makes a repeat safe: the same id writes once.", show_default=False)] = "",
) -> None:
    """Remember a sentence, stdin, images and other files, or a whole conversation file."""
    session: Session = context.obj
    if (file is None) == (not (text or content)):
        raise FieldInvalid("give one of: a text, - for stdin, --content, --file", field="text")
    if file is not None:
        beside = (content, speaker, said_at, kind, label, salience, source, expires_at, ttl, valid_from, valid_until)
        if protect or any(value is not None for value in beside):
            raise FieldInvalid("with --file these stand in the lines: leave out --speaker, --said-at, --kind, --label, …", field="file")
        add_file(session, file, request_id, deduplicate)
        return
    with session.client() as client:
        added = client.add(
            sys.stdin.read().rstrip("\n") if text == "-" else text,
            speaker=speaker or "",
            said_at=opt.time("said-at", said_at),
            kind=kind or "",
            metadata=opt.labels_of(label),
            salience=salience or 0.0,
            provenance=Provenance(source) if source else None,
            protected=protect,
            expires_at=opt.time("expires-at", expires_at),
            ttl_s=ttl,
            valid_from=opt.time("valid-from", valid_from),
            valid_until=opt.time("valid-until", valid_until),
            contents=tuple(map(opt.content_of, content or ())),
            deduplicate=deduplicate,
            request_id=request_id,
        )
    known = " (there already)" if added.replayed else " (says the same: nothing was stored)" if added.deduplicated else ""
    session.output.result(added, added.trace_id + known)
    # Beside the result, so that $(ndml add …) is the id alone.
    if added.gate is not None and not session.output.as_json:
        session.output.note(decision(added.gate))


def search(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help="What to look for, in words.", show_default=False)] = "",
    content: opt.SoughtContent = None,
    space: Annotated[str, typer.Option(help="Joint encoder in whose space to look for contents; docs/recall.md.", show_default=False)] = "",
    k: Annotated[int, typer.Option("-k", help="How many hits at most; limit 1,000.")] = 10,
    min_score: Annotated[float | None, typer.Option(help="Leave out hits below this score.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show each signal's share of the score.")] = False,
    strength: opt.WithStrength = False,
    salience_weight: Annotated[float | None, typer.Option(help="Weight of salience beside similarity.", show_default=False)] = None,
    strength_weight: Annotated[float | None, typer.Option(help="Weight of strength beside similarity.", show_default=False)] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="Weight of a signal, for example lexical=0.5; may be repeated.", metavar="SIGNAL=NUMBER")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="How to rank: full (every signal), fast (similarity and words) or dense.", show_default=False)
    ] = "",
    neighbours: Annotated[int, typer.Option(help="With so many of its session before and after each hit.", min=0, max=5)] = 0,
    ancestors: Annotated[
        int, typer.Option(help="With what each hit was made out of, replaced or was caused by: steps back.", min=0, max=5)
    ] = 0,
    episode: Annotated[
        bool, typer.Option("--episode", help="With the episode of its session that each hit is part of; neighbours are of it then.")
    ] = False,
    diversity: Annotated[float, typer.Option(help="How much a hit loses for being like those before it.", min=0.0, max=1.0)] = 0.0,
    max_tokens: Annotated[int, typer.Option(help="Tokens of all hits together; what does not fit is passed over. 0: any.", min=0)] = 0,
    label: opt.Labels = None,
    kind: opt.Kinds = None,
    speaker: opt.Speakers = None,
    since: opt.Since = None,
    until: opt.Until = None,
    valid_at: opt.ValidAt = None,
) -> None:
    """Find the memories nearest to a question, or to an image."""
    session: Session = context.obj
    if bool(query) == (content is not None):
        raise FieldInvalid("give one of: words, --content", field="query")
    with session.client() as client:
        found = client.search(
            query,
            content=None if content is None else opt.content_of(content),
            space=space,
            k=k,
            min_score=min_score,
            explain=explain,
            include_strength=strength,
            weights=opt.weights_of(salience_weight, strength_weight, weight),
            mode=mode,
            neighbours=neighbours,
            ancestors=ancestors,
            episode=episode,
            diversity=diversity,
            max_tokens=max_tokens,
            filter=opt.filter_of(label, kind, speaker, since, until, valid_at),
        )
    session.output.result({"hits": found.hits, "stats": found.stats}, *_shown(found, explain, strength))
    if found.stats.partial:
        session.output.note("partial: an owner did not answer, hits may be missing")


def get(
    context: typer.Context,
    trace_id: opt.TraceId,
    embedding: opt.WithEmbedding = False,
    strength: opt.WithStrength = False,
    history: Annotated[bool, typer.Option("--history", help="With what happened to it, and why.")] = False,
    siblings: Annotated[bool, typer.Option("--siblings", help="With the other contents, where several were written at once.")] = False,
) -> None:
    """Show one memory, an archived one too."""
    session: Session = context.obj
    with session.client() as client:
        memory = client.get(
            trace_id, include_embedding=embedding, include_strength=strength, include_history=history, include_siblings=siblings
        )
    session.output.result(memory, *cards(memory))


def list_(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many at most; 0: all.", min=0)] = 50,
    archived: Annotated[bool, typer.Option("--archived", help="Those too that forgetting took out of the index.")] = False,
    label: opt.Labels = None,
    kind: opt.Kinds = None,
    speaker: opt.Speakers = None,
    since: opt.Since = None,
    until: opt.Until = None,
    valid_at: opt.ValidAt = None,
) -> None:
    """List memories, last learned first."""
    session: Session = context.obj
    with session.client() as client:
        wanted = opt.filter_of(label, kind, speaker, since, until, valid_at)
        pages = client.list(filter=wanted, page_size=min(limit, 1000) or 1000, include_archived=archived)
        found = list(itertools.islice(pages, limit or None))
    rows = ((when(m.said_at), m.speaker, text_and_id(m.text, m.trace_id)) for m in found)
    session.output.result({"memories": found}, table("=said", "speaker", "memory", rows=rows))


def update(
    context: typer.Context,
    trace_id: opt.TraceId,
    text: Annotated[str | None, typer.Option(help="New text; it is embedded anew.")] = None,
    speaker: opt.Speaker = None,
    said_at: opt.SaidAt = None,
    kind: opt.KindName = None,
    label: opt.Labels = None,
    salience: opt.Salience = None,
    source: opt.Source = None,
    protect: opt.Protect = None,
    expires_at: Annotated[str | None, typer.Option(help="Deleted from this time on; never takes that back.")] = None,
    valid_from: opt.ValidFrom = None,
    valid_until: Annotated[str | None, typer.Option(help="When it ceased to hold; never takes that back.")] = None,
    expected_version: Annotated[int, typer.Option(help="Only when it still has this version.", show_default=False)] = 0,
) -> None:
    """Change what is given; labels are replaced as a whole."""
    session: Session = context.obj
    with session.client() as client:
        memory = client.update(
            trace_id,
            text=text,
            speaker=speaker,
            said_at=opt.time("said-at", said_at),
            kind=kind,
            metadata=None if label is None else opt.labels_of(label),
            salience=salience,
            provenance=None if source is None else Provenance(source),
            protected=protect,
            expires_at="never" if expires_at == "never" else opt.time("expires-at", expires_at),
            valid_from=opt.time("valid-from", valid_from),
            valid_until="never" if valid_until == "never" else opt.time("valid-until", valid_until),
            expected_version=expected_version,
        )
    session.output.result(memory, *cards(memory))


def resolve(
    context: typer.Context,
    trace_id: opt.TraceId,
    keep: Annotated[
        str, typer.Option(help="Content to keep, as get --siblings names it. Default: the one shown.", show_default=False)
    ] = "",
) -> None:
    """End a conflict: keep one of several contents that were written at different nodes at the same time."""
    session: Session = context.obj
    with session.client() as client:
        memory = client.resolve(trace_id, keep)
    session.output.result(memory, *cards(memory))


def delete(
    context: typer.Context,
    trace_id: opt.TraceId,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Do not fail when it is not there.")] = False,
) -> None:
    """Remove one memory for good."""
    session: Session = context.obj
    with session.client() as client:
        deleted = client.delete(trace_id, allow_missing=allow_missing)
    session.output.result({"trace_id": trace_id, "deleted": deleted}, "deleted" if deleted else "was not there")


def forget(context: typer.Context, yes: Annotated[bool, typer.Option("--yes", help="Do not ask: there is no way back.")] = False) -> None:
    """Erase everything of --user, or with --agent or --session what belongs to it, for good. Repeating it goes on where it stopped."""
    session: Session = context.obj
    named = ("user", session.user), ("agent", session.agent), ("session", session.session)
    scope = ", ".join(f"{name} {value}" for name, value in named if value)
    with session.client() as client:
        if not yes and not sys.stdin.isatty():
            raise FieldInvalid(f"all memories of {scope} would be erased, and there is no way back: say --yes", field="yes")
        if not yes and not typer.confirm(f"Erase all memories of {scope}? There is no way back"):
            raise typer.Exit(1)
        with session.output.progress("erasing", None) as ticker, client.forget(timeout_s=LONGEST_S) as steps:
            for erased in steps:
                ticker.reach(erased, erased)
    session.output.result({"erased": steps.erased, "done": steps.done}, f"{steps.erased:,} memories of {scope} erased; none is left")


def profile(context: typer.Context, speaker: opt.Speakers = None, until: opt.Until = None, valid_at: opt.ValidAt = None) -> None:
    """Show what the user's memories tell of them now: where they live, what they work as."""
    session: Session = context.obj
    with session.client() as client:
        found = client.profile(filter=opt.filter_of(None, None, speaker, None, until, valid_at))
    rows = [
        [each.whose or "user", f"{each.kind} {each.what}".strip(), when(each.since), text_and_id(each.memory.text, each.memory.trace_id)]
        for each in found.properties
    ]
    read = f"{len(rows)} properties, of {'the last ' if found.partial else ''}{found.traces_read:,} memories"
    session.output.result(found, *([table("whose", "property", "=since", "memory", rows=rows)] if rows else []), read)


def stats(context: typer.Context) -> None:
    """Count memories: of --user, else of the tenant."""
    session: Session = context.obj
    with session.client(needs_user=False) as client:
        found = client.stats()
    rows = [
        ("memories", f"{found.traces:,}"),
        ("in memory now", f"{found.resident_traces:,}"),
        *([("archived", f"{found.archived_traces:,}")] if found.archived_traces else []),
        ("users", f"{found.owners:,}"),
        ("content", f"{found.content_bytes:,} bytes"),
        *((kind, f"{count:,}") for kind, count in sorted(found.traces_by_kind.items())),
        ("vectors", f"{found.dimension} x float32, {found.embedding_model}"),
    ]
    session.output.result(found, table("", "", rows=rows))


def _shown(found: SearchResult, explain: bool, strength: bool) -> list[RenderableType]:
    columns = [">#", ">score", *(["signals"] if explain else []), *([">strength"] if strength else []), "=said", "speaker", "memory"]
    rows = [row for number, hit in enumerate(found, 1) for row in _hit_rows(number, hit, explain, strength)]
    stats = found.stats
    summary = f"{len(found)} of {stats.traces_in_scope:,} memories, {stats.total_ms:.1f} ms ({stats.index})"
    return [table(*columns, rows=rows), summary] if rows else [summary]


def _hit_rows(number: int, hit: Hit, explain: bool, strength: bool) -> list[list[object]]:
    """The hit, and what it came from and what stands around it in its session, in their order."""
    blank = [""] * (explain + strength)

    def beside(mark: str, memories: Sequence[Memory]) -> list[list[object]]:
        return [["", mark, *blank, when(each.said_at), each.speaker, text_and_id(each.text, each.trace_id)] for each in memories]

    hit_row = _hit_row(number, hit, explain, strength)
    rows = [*beside("from", hit.ancestors), *beside("before", hit.before), hit_row, *beside("after", hit.after)]
    if hit.episode is not None:
        seen = f"{hit.episode.turns} turns until {when(hit.episode.last_said_at)}"
        rows.append(["", "episode", *blank, when(hit.episode.first_said_at), "", text_and_id(seen, hit.episode.episode_id)])
    return rows


def _hit_row(number: int, hit: Hit, explain: bool, strength: bool) -> list[object]:
    memory = hit.memory
    signals = [" ".join(f"{name}={share:.3f}" for name, share in hit.signals.items())] if explain else []
    strong = [f"{memory.strength.strength:.3f}" if memory.strength else ""] if strength else []
    said = [when(memory.said_at), memory.speaker, text_and_id(memory.text, memory.trace_id)]
    return [number, f"{hit.score:.3f}", *signals, *strong, *said]
