"""What the review threads are made of: files, functions and what they do in plain words, grounds, conditions, policies. All made up."""

from __future__ import annotations

from tests.quality.recall.phrases import Forms

FILES = (
    "ledger/posting.rs", "ledger/rates.rs", "web/session.rs", "web/upload.rs", "sync/merge.rs", "sync/backlog.rs", "geo/route.rs",
    "geo/tiles.rs", "mail/compose.rs", "mail/bounce.rs", "store/segments.rs", "store/compact.rs",
)  # fmt: skip
PEOPLE = (
    "Marit", "Joost", "Chiara", "Babak", "Wen", "Oluchi", "Stefan", "Ines", "Hugo", "Leila", "Tariq", "Birgit", "Pavel", "Sofia", "Declan",
    "Amara",
)  # fmt: skip
FUNCTIONS: tuple[Forms, ...] = (
    ("parse_header", "reading of the first line", "code that takes the preamble apart"),
    ("flush_queue", "emptying of the waiting line", "step that sends out everything pending"),
    ("RetryPolicy", "rule for trying again", "class that decides on another attempt"),
    ("normalise_name", "cleaning of spellings", "routine that brings titles into one form"),
    ("acquire_lease", "taking of the exclusive right", "part that claims ownership for a while"),
    ("split_batch", "cutting into portions", "division of big loads"),
    ("checksum_of", "computing of the control sum", "fingerprint of the bytes"),
    ("open_cursor", "start of a scan", "handle for walking through results"),
    ("render_row", "drawing of one line", "output of a single entry"),
    ("merge_ranges", "joining of overlapping spans", "code that fuses intervals"),
    ("evict_oldest", "throwing out what is stale", "removal of what was used longest ago"),
    ("decode_utf", "turning bytes into text", "character conversion"),
    ("TokenBucket", "brake for eager callers", "limiter"),
    ("find_nearest", "search for the closest one", "neighbour lookup"),
    ("apply_patch", "putting a change onto a document", "code that edits in place"),
    ("watch_folder", "listening for new files", "observer of the directory"),
    ("round_amount", "cutting off of fractions", "how sums lose their decimals"),
    ("load_plugins", "discovery of extensions", "start of add-ons"),
    ("seal_segment", "closing of a full piece", "end of writing to a part"),
    ("sort_stable", "bringing into order", "arrangement that keeps ties"),
    ("backoff_delay", "pause between attempts", "wait that grows"),
    ("verify_token", "check of credentials", "test whether a caller is who he says"),
    ("diff_trees", "comparison of two hierarchies", "finding of what differs below a root"),
    ("escape_html", "making markup harmless", "protection of pages against foreign tags"),
    ("schedule_job", "planning of later work", "entry of tasks into the timetable"),
    ("collect_stats", "gathering of figures", "counting at run time"),
)
DOINGS = (
    "[copy|clone] the whole buffer", "[take|hold] the lock twice", "start at one and not at zero", "[swallow|ignore] the second error",
    "sleep before the first try", "return an empty list here", "[use|keep] a global", "sort when nobody asks for order",
    "allocate in the loop", "compare by reference", "need two passes", "log at warning level", "keep the old signature",
    "go through strings at all", "read the clock twice", "leave the handle open", "panic and not return", "call itself",
)  # fmt: skip
GROUNDS = (
    "the borrowed slice would outlive its page", "callers in the nightly job still pass null",
    "the hardware counter wraps after nine hours", "auditors want every attempt on paper", "two threads meet there at start-up",
    "the spec numbers its rows that way",
    "older phones send it upside down", "the compiler cannot prove it otherwise", "it saves a round trip in nine of ten cases",
    "the bank rejects anything with a sign", "profilers blamed the other variant", "we promised this order in the public notes",
    "Windows refuses the rename while somebody reads", "an iterator would borrow self for too long",
    "the vendor's sandbox replies with 200 always", "the map is tiny, never above eight entries",
    "that is how the first version shipped and data on disk depends on it",
    "a lazy variant leaked descriptors in March", "legal asked us to forget at once", "the kernel merges the writes anyway",
    "the fuzzer found a cycle", "otherwise a leap second doubles the bill", "a partial write must never be visible",
    "the embedded build has no heap", "the caller has checked it already", "it must survive being killed half-way",
    "our licence forbids the other crate", "the translators need the raw form",
)  # fmt: skip
CONDITIONS: tuple[Forms, ...] = (
    ("the list is empty", "there are no elements", "nothing is passed in"),
    ("two stamps are equal", "events share the same instant", "things happen at the very same time"),
    ("the path has a blank", "a folder name contains a space", "directories are spelled with gaps"),
    ("the number is negative", "a value lies below zero", "somebody enters minus something"),
    ("the peer hangs up", "the other side disconnects", "the connection drops mid-way"),
    ("the disk is full", "no room is left for writing", "storage runs out"),
    ("the text is Arabic", "letters run from right to left", "the script is written the other way round"),
    ("the file is above 4 GB", "a document is enormous", "input does not fit 32 bits"),
    ("it is called twice", "somebody invokes it again", "a repeat comes in"),
    ("the clock goes back", "time jumps to an earlier hour", "winter time begins"),
    ("the key has a colon", "an identifier contains punctuation", "names use that separator themselves"),
    ("the node is alone", "a cluster has one member", "there is nobody else to vote"),
    ("the amount is zero", "nothing is due", "the sum is nil"),
    ("the cache is cold", "it was started a second ago", "no values have been kept yet"),
)
REPAIRS = (
    "return early now", "added a guard and a test", "went over to checked arithmetic", "compare by id when that happens", "quote it first",
    "moved the check in front of the loop", "hold the guard until the end of the block", "use a saturating subtraction",
    "turned it into an error of its own", "reserve the room beforehand", "read in pieces of {n} kB", "kept the last known value",
    "made it idempotent with a marker", "take the monotonic one", "percent-encode the separator", "fall back to the slow path",
    "drop the connection and start anew", "set a floor of {n}", "handle it in the caller", "replaced the match by a table",
    "clamped it to {n}", "wrote the temporary next to the target", "wait for at most {n} ms", "let the type forbid it",
)  # fmt: skip
NEW_NAMES = (
    "read_preamble", "drain_pending", "AttemptRule", "fold_title", "claim_lease", "portion_of", "digest_bytes", "begin_scan", "draw_line",
    "fuse_spans", "drop_stale", "bytes_to_text", "CallerBrake", "closest_to", "edit_in_place", "observe_dir", "trim_fraction",
    "find_addons", "finish_part", "order_keeping_ties", "pause_before", "check_caller", "compare_below", "defuse_markup", "plan_later",
    "tally", "advance_mark", "settle_rows", "pick_winner", "unfold", "spill_over", "stamp_now", "weigh_edges", "carve_out", "bind_late",
    "pour_into", "shade_area", "tell_apart",
)  # fmt: skip
POLICIES: tuple[tuple[Forms, tuple[str, ...]], ...] = (
    (("error handling", "what happens when something fails"), ("one enum for the whole crate", "an error type per module", "boxed errors")),
    (("logging", "notes written at run time"), ("spans everywhere", "only at the edges", "nothing below warning")),
    (("time stamps", "moments in the records"), ("milliseconds as integers", "RFC 3339 strings", "a pair of seconds and nanoseconds")),
    (("locking", "guarding shared state"), ("one coarse mutex", "a reader-writer lock", "sharded locks", "an actor that owns it")),
    (("buffering", "holding bytes back"), ("a fixed ring", "a growing vector", "memory maps")),
    (("public interface", "what others may call"), ("builders", "plain structs with defaults", "free functions")),
    (("test data", "samples for checks"), ("golden files", "generated inputs", "recorded traffic")),
    (("retries", "trying again"), ("in the caller", "inside the client with jitter", "none at all")),
    (("serialisation", "form on disk"), ("JSON lines", "length-prefixed records", "a columnar layout")),
    (("configuration", "knobs for operators"), ("one TOML file", "environment only", "flags on the command line")),
)
TROUBLES = (
    "the nightly run took three hours with it", "support could not read the output", "it deadlocked twice last week",
    "nobody but its author understands it", "the binary grew by nine megabytes", "customers on Windows were cut off",
    "we cannot change a field without a migration", "it hid the real failure in the pilot", "memory doubled under load",
    "the auditors objected", "the partner's parser rejects it", "it made every test depend on every other",
    "the battery of the handhelds drained", "upgrades would need all machines to stop", "it lost the last entries on power cuts",
    "the lint bot now finds forty problems", "the newcomers used it wrongly each time", "rounding crept in",
)  # fmt: skip
LIMITS: tuple[Forms, ...] = (
    ("timeout in ms", "longest wait"),
    ("buffer size in kB", "room for bytes in transit"),
    ("batch size", "number of things that go together"),
    ("retry limit", "greatest number of attempts"),
    ("cache capacity", "amount kept at hand"),
    ("queue depth", "pending items before it refuses"),
    ("page size", "entries on one sheet"),
)
EXPERTISE: tuple[Forms, ...] = (
    ("wrote the first version", "is its original author"),
    ("owns the protocol", "is responsible for the wire format"),
    ("ran the fuzzer on it", "did the hostile-input campaign"),
    ("deals with the auditors", "answers to the inspection"),
    ("keeps the benchmarks", "looks after the performance figures"),
)
FOLLOW_UPS: tuple[Forms, ...] = (
    ("the async variant", "non-blocking version"),
    ("the Windows port", "support for Microsoft's system"),
    ("the migration of old data", "conversion of existing records"),
    ("the metrics", "figures for the monitoring"),
    ("the docs", "written explanation"),
    ("the fuzz target", "harness for random input"),
    ("the clean-up of dead code", "removal of what nobody calls"),
    ("the configuration switch", "knob to turn it off"),
)
