"""What the notes on symbols are made of: parts of names, packages, errors, libraries, causes. All made up."""

from __future__ import annotations

VERBS = (
    "load", "flush", "merge", "parse", "fetch", "drain", "commit", "resolve", "evict", "encode", "schedule", "verify", "rotate", "replay",
)  # fmt: skip
KINDS = ("pending", "stale", "remote", "local", "partial", "shared", "nightly", "signed", "cold", "inbound")
THINGS = (
    "manifest", "cursor", "lease", "batch", "segment", "token", "snapshot", "route", "ledger", "bucket", "header", "queue", "digest",
    "replica",
)  # fmt: skip
KNOBS = ("timeout", "limit", "interval", "retries", "budget", "threshold", "workers", "size", "backoff", "window")
PACKAGES = (
    ("ledger", "posting"), ("web", "session"), ("sync", "backlog"), ("geo", "tiles"), ("mail", "bounce"), ("store", "compact"),
    ("billing", "invoice"), ("search", "planner"), ("auth", "keyring"), ("media", "thumbs"),
)  # fmt: skip
PEOPLE = (
    "Marit", "Joost", "Chiara", "Babak", "Wen", "Oluchi", "Stefan", "Ines", "Hugo", "Leila", "Tariq", "Birgit", "Pavel", "Sofia", "Declan",
)  # fmt: skip
ERRORS = ("TimeoutException", "IllegalStateException", "KeyError", "OverflowError", "BrokenPipeError", "AccessDenied", "ParseError")
CODES = ("E", "SQL-", "HTTP-", "NET", "FS", "QX")
LIBRARIES = ("fastwire", "tokforge", "pgline", "hexstore", "rivulet", "quillcore", "bramble", "latchkey", "sundial", "corvid")
PLACES = ("staging", "production", "the canary", "the nightly build", "the EU cluster", "the load test")
CAUSES = (
    "the clock of the host ran backwards", "two threads had opened the same file", "the vendor answered with an empty body",
    "a certificate had run out overnight", "the disk was full of old dumps", "somebody had deployed half of the change",
    "the cache still held last week's schema", "a null slipped through the import", "the proxy cut long connections",
    "the counter wrapped after nine hours", "the test data had leap days", "the connection pool was too small",
    "the index was being rebuilt", "a retry had doubled every entry", "the new kernel reports sizes in pages",
)  # fmt: skip
REPAIRS = (
    "takes the lock before the read", "checks the length first", "gives up after the third attempt", "copies the buffer",
    "closes the handle in every branch", "compares by value", "starts from the last good checkpoint", "skips rows without a key",
    "asks the clock once", "writes to a side file and renames it", "keeps entries for an hour", "sorts before it compares",
)  # fmt: skip
REASONS = (
    "the old one leaked descriptors", "it is the first with the security patch", "the new scheduler halves our p99",
    "we need its streaming reader", "the licence changed", "the previous one is out of support", "it builds on ARM",
    "its parser accepts our dialect", "the crash on shutdown is gone there", "everybody else in the house runs it",
)  # fmt: skip
CHATTER = (
    "[Lunch at noon|Coffee], anyone?", "[The build is green|All green] again.", "I am [out|away] [this afternoon|tomorrow morning].",
    "[Stand-up|The meeting] is moved [by an hour|to ten].", "[Nice|Good] weekend, everybody.", "Who has the [door key|projector]?",
    "[Reviewing|Reading] this [now|after lunch].", "[Thanks|Great], [merging|shipping] it.", "The [printer|wifi] is [down|slow] again.",
    "I will [write it up|make a ticket] [today|later].",
)  # fmt: skip
