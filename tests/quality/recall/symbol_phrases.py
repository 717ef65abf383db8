"""How the notes on symbols say and ask things. {f} is a function by its path, {key} a setting, {code} an error, {lib} a library."""

from __future__ import annotations

OPENINGS = (
    "[Notes|Log|Working notes] on {package}.",
    "[Back|Again] [on|at] {package} [today|this week|].",
    "[Today|This morning]: {package}.",
)
TRACE = (
    "[Crash|Stack trace] from {place}: {error} at {f}({file}:{line})",
    "{place} [died|fell over] with {error}\n  at {f}({file}:{line})\n  at java.lang.Thread.run(Thread.java:829)",
    "[Seen|Got this] in {place}: `{f}` [threw|raised] {error}, {file} line {line}.",
    "Traceback of {place}, [innermost|last] frame {f} ({file}:{line}): {error}",
    "[Pager|Alert|Incident]: {error} in {f}, {file}:{line}, [on|from] {place}.",
)
CAUSE = (
    "[It turned out that|Found it:|The reason:] {cause}, [hence|so] {short} [failed|gave up].",
    "{short} [broke|failed] because {cause}.",
    "[Root cause|Explanation] [for|of] {short}: {cause}.",
)
FIXED = (
    "[Fixed|Mended] in {hash}: {short} now {repair}.",
    "{short} {repair} [as of|since] {hash}.",
    "[With|In] commit {hash} {short} {repair}.",
    "[Closed by|Solved with|Done in] {hash}: {short} {repair}[, with a test|, finally].",
)
SETTING = (
    "[Set|Raised|Changed] {key} to {value} in {place}.",
    "{key}={value} [is what we run in|from today on in|goes to] {place}.",
    "[We settled on|Agreed:] {key}: {value} [for|in] {place}.",
    "{key} [was|is] {value} [in|for] {place} [since Monday|now].",
)
MEANT = (
    "{code} [means that|says that|is what you get when] {cause}.",
    "[For the record|Note]: {code} [is thrown|comes up] when {cause}.",
    "[If you see|On] {code}: {cause}.",
    "{code}[, once more:| again:|:] {cause}.",
)
BUMPED = (
    "[Upgraded|Moved] {lib} [to|up to] {new} from {old}: {reason}.",
    "{lib} {old} -> {new}, [because|since] {reason}.",
    "[We are on|Pinned] {lib} {new} [instead of|and no longer] {old}; {reason}.",
    "[Now|Since today] [using|with] {lib} {new}, {old} before: {reason}.",
)
RENAMED = (
    "`{f}` is [called|named] `{renamed}` [now|from now on].",
    "[Renamed|Moved] {f} to {renamed}.",
    "{f} [became|turned into] {renamed} [in the refactoring|last night|].",
)
OWNED = (
    "{short} [lives|is defined] in {path}[, ask|; ask] {person}.",
    "{person} [looks after|owns] {short}, see {path}.",
    "[Moved|Put] {short} into {path}; {person} [knows it|reviews it].",
    "[Look|See] [in|into] {path} for {short}; {person} [wrote|maintains] it.",
)
ASK_TRACE = (
    "[Where|In which place] did {name} [throw|fail] and with what?",
    "[Which error|What] came out of {name}?",
    "What [was the stack trace|crash did we see] in {name}?",
    "[How|Where] did {name} [crash|fall over|die]?",
)
ASK_CAUSE = (
    "[Why|For what reason] did {name} [fail|break]?",
    "What [made|was the cause that made] {name} fail?",
    "What was [behind the failure|the root cause] of {name}?",
    "[What is|Tell me] the [reason for|cause of] the crash of {name}?",
)
ASK_FIX = (
    "[What|Which change] [fixed|mended] {name} after its crash, and how did the crash look?",
    "How did {name} [crash|fail], and [what does it do now|how was it mended]?",
    "[Show|Give] me the crash of {name} [and its fix|and the commit that mended it].",
)
ASK_SETTING = (
    "What is {name} [set to|in force]?",
    "[Which value|What value] does {name} have?",
    "To what did we [set|change] {name}?",
    "[Tell me|What is|Say] the [value|current value] of {name}?",
)
ASK_MEANT = (
    "What does {name} mean?",
    "[When|Why] do we [get|see] {name}?",
    "[What is|Explain] {name}?",
    "[What causes|What is behind|What triggers|Where does] {name} [come from|]?",
)
ASK_BUMPED = (
    "Why [did we move|do we run] {name}?",
    "What [speaks for|was the reason for] {name}?",
    "For what reason [was it|did we choose] {name}?",
    "[What made us|What led us to] [choose|pick|take] {name}?",
)
ASK_RENAMED = (
    "What is {name} called now?",
    "[Which|What] new name did {name} get?",
    "[To what|Into what] was {name} renamed?",
    "[Under which name|As what] do we [find|know|have] {name} now?",
    "[What is|Tell me] the new name of {name}?",
)
ASK_OWNED = (
    "[Where|In which file] is {name} [defined|kept]?",
    "Who [owns|looks after|knows] {name}?",
    "Whom do I ask about {name}[, and where is it|]?",
    "[Who|Which person] [is responsible for|maintains] {name}?",
)
