"""What the task logs are made of: projects, their parts by several names, causes, repairs, wishes, people. All made up."""

from __future__ import annotations

from tests.quality.recall.phrases import Forms

PROJECTS = (
    "Harborlight", "Quillpost", "Tidewheel", "Sundial", "Copperline", "Fernway", "Brickset", "Oxbow", "Pinecall", "Saltmarsh",
    "Lanternfish", "Marrowgate",
)  # fmt: skip
PARTS: tuple[Forms, ...] = (
    ("nightly backup", "overnight copy of the database", "saved snapshot made while we sleep"),
    ("sign-in page", "login screen", "form where people get into their account"),
    ("invoice mailer", "job that sends the bills", "billing letters"),
    ("search box", "lookup field", "place where one types what one wants to find"),
    ("image resizer", "thumbnail maker", "code that shrinks pictures"),
    ("payment webhook", "callback of the card provider", "notice that somebody has paid"),
    ("import script", "spreadsheet loader", "tool that reads in CSV files"),
    ("rate limiter", "throttle", "guard against callers that ask too often"),
    ("session store", "cache that keeps visitors logged in", "server-side cookies"),
    ("address form", "fields for street and town", "page where delivery details go"),
    ("map tiles", "background map", "cartography layer"),
    ("push notifications", "alerts on the phone", "messages to mobile devices"),
    ("PDF export", "printable report", "download for paper"),
    ("password reset", "recovery of forgotten credentials", "mail with the link for a new passphrase"),
    ("translation files", "texts in other languages", "localised strings"),
    ("admin dashboard", "operators' overview", "internal control panel"),
    ("calendar sync", "exchange of appointments", "bridge to people's agendas"),
    ("audit log", "record of who did what", "trail of actions"),
    ("feature flags", "switches for unfinished functions", "toggles"),
    ("staging server", "test environment", "machine for trying releases"),
    ("container build", "docker image", "packaging of the service"),
    ("job queue", "line of waiting work", "background tasks"),
    ("shopping cart", "basket", "list of what a customer is about to buy"),
    ("stock counter", "inventory tally", "number of items in the warehouse"),
    ("recommendation list", "suggested articles", "what else you may like"),
    ("chat widget", "support bubble", "live help in the corner"),
)
CAUSES = (
    "the certificate had run out on Sunday", "two workers took the same lock in opposite order", "a column was renamed in one query only",
    "the disk had forty megabytes left", "the change to summer time moved every stamp by an hour",
    "the mock speaks euros and the code cents", "an environment variable was empty in the new shell",
    "the parser now takes Latin-1 for granted", "the retry loop never gave up",
    "somebody had committed a half-merged file", "the proxy cut every body above one megabyte", "the test depended on the order of a set",
    "a leap day fell into the sample", "the token was rotated and one machine kept the old one", "a semicolon went missing in the template",
    "the pool held ten connections and twelve were wanted", "the file names differ only in case and that laptop does not care",
    "an upstream mirror served a truncated archive", "a background thread outlived its fixture", "the index was never built on the replica",
    "a float was compared for equality", "the cron entry ran under another account", "the page size had shrunk from 500 to 50",
    "a migration was applied twice", "an emoji in a nickname needs four bytes", "the firewall dropped idle sockets after five minutes",
    "the clock of the runner was nine minutes late", "a cache key left out the tenant", "the feature branch was cut before the hotfix",
    "recursion hit the limit on a folder that links to itself", "the stub returned a list where a page was due",
    "a trailing blank stood in the secret", "memory ran out when all shards warmed up together", "the DNS entry still named the old host",
    "the regular expression backtracked for minutes", "a rounding rule went from half-up to half-even",
)  # fmt: skip
REPAIRS = (
    "renewed it and put a reminder into the calendar", "gave both the same order", "pinned the dependency to 3.{n}",
    "sorted before comparing", "raised the limit to {n}", "moved it behind a transaction",
    "read the setting once at start and fail loudly when it is empty",
    "declared UTF-8 everywhere", "capped it at {n} attempts", "reverted commit {hash}", "streamed the body in pieces of {n} kB",
    "rebuilt from scratch with the cache off", "switched the column to bigint", "added the missing quote and a lint rule against it",
    "let it wait for the thread", "compare within a thousandth now", "put the tenant into the key", "cherry-picked {hash}",
    "gave the account rights on the folder", "cleaned up {n} GB of old artefacts", "made the step idempotent", "trimmed the value on load",
    "warmed them one after the other", "set the time-to-live to {n} seconds", "swapped the expression for a small parser",
    "wrote the date with its zone", "took {n} as the batch size", "asked the provider for a fresh key",
)  # fmt: skip
ERRORS = (
    "E{n}: connection refused", "exit status {n}", "HTTP {n}", "AssertionError: expected {n}, got 0", "timeout after {n} s",
    "segmentation fault in worker {n}", "OSError: errno {n}", "{n} of 400 checks red", "SQLSTATE {n}", "panic at line {n}",
)  # fmt: skip
OPTIONS = (
    "Postgres", "SQLite", "Redis", "RabbitMQ", "Kafka", "Terraform", "Ansible", "Svelte", "htmx", "FastAPI", "Flask", "Go", "Rust", "Zig",
    "protobuf", "MessagePack", "nginx", "Caddy", "Grafana", "ClickHouse", "DuckDB", "Vite", "Poetry", "Bazel",
)  # fmt: skip
PURPOSES: tuple[Forms, ...] = (
    ("storage of events", "keeping what happened", "the place where incidents are written down"),
    ("deployments", "bringing releases to the machines", "rollouts"),
    ("front end", "user interface", "what runs in the browser"),
    ("messages between services", "wire format", "how the parts talk to each other"),
    ("dependency management", "keeping libraries in order", "package handling"),
    ("reverse proxy", "what stands before the web servers", "entry of the traffic"),
    ("monitoring", "charts and alarms", "watching the system's health"),
    ("caching", "holding hot values", "quick copies of slow answers"),
    ("scripting", "small helper programs", "glue code"),
    ("analytics", "counting and reporting", "numbers for management"),
)
REASONS = (
    "the team knows it by heart", "it needs no server of its own", "its licence lets us ship it", "half the memory is enough for it",
    "the vendor promised ten years of patches", "it survives a power cut without repair", "Windows users can run it too",
    "one binary is easier to hand over", "its error texts are readable", "the auditors had it on their list already",
    "it compiles in a third of the time", "we could drop four libraries with it", "support answers within an hour",
    "the other one lost rows in my trial", "newcomers understand it in a day", "it works without a network", "it costs nothing below 5 TB",
    "the intern wrote the connector last year", "benchmarks on our own load favoured it", "it speaks the protocol of our customers",
)  # fmt: skip
MEASURES: tuple[tuple[str, Forms, tuple[int, int]], ...] = (
    ("s", ("run time", "duration", "time that one pass takes"), (4, 900)),
    ("MB", ("size", "weight on disk", "amount of space it needs"), (3, 4000)),
    ("requests/s", ("throughput", "load it bears", "amount it can handle"), (40, 9000)),
    ("%", ("error rate", "share of failures", "portion that goes wrong"), (1, 60)),
    ("ms", ("latency", "delay", "time until the answer"), (5, 2500)),
    ("rows", ("row count", "number of records", "quantity of entries"), (800, 900000)),
)
WISHES: tuple[tuple[Forms, str], ...] = (
    (("commit messages", "what I write when I record a change"), "start with a verb, no ticket numbers"),
    (("summaries", "short reports at the end"), "five lines at most, figures first"),
    (("branch names", "what lines of work are called"), "begin with my initials"),
    (("shell commands", "things you execute"), "show them before anything is deleted"),
    (("tables", "rows and columns in answers"), "no more than four columns, units in the head"),
    (("code comments", "remarks inside the source"), "say why and never what"),
    (("dates", "days and months in texts"), "year first, always with dashes"),
    (("test data", "samples for checks"), "never real customers, not even one"),
    (("dependencies", "libraries from outside"), "ask me before one is added"),
    (("log lines", "what the program prints while it works"), "one event a line, as JSON"),
    (("working hours", "when you may disturb me"), "nothing after half past six"),
    (("screenshots", "pictures of the page"), "only in light mode, 1200 pixels wide"),
    (("meeting notes", "protocols of our calls"), "decisions in bold at the top"),
    (("error texts", "what a user reads when something breaks"), "name the field and the way out"),
)
SETTINGS: tuple[Forms, ...] = (
    ("port", "number it listens on"),
    ("replica count", "quantity of copies"),
    ("memory limit in MiB", "ceiling for RAM"),
    ("retention in days", "time its data is kept"),
    ("worker count", "parallel hands at work"),
    ("queue length", "room for jobs that wait"),
    ("timeout in seconds", "patience before it gives up"),
)
EVENTS: tuple[Forms, ...] = (
    ("release", "going live", "launch"),
    ("security audit", "examination by the outside experts", "penetration test"),
    ("demo for the customer", "presentation to the client", "show in front of the buyers"),
    ("database migration", "move to the new tables", "schema change"),
    ("load test", "stress trial", "rehearsal under heavy traffic"),
    ("handover", "passing it on to the operators", "transfer of responsibility"),
)
SYMPTOMS: tuple[Forms, ...] = (
    ("lost orders", "dropped purchases", "sales that vanished"),
    ("answered with blank pages", "showed nothing at all", "gave people an empty screen"),
    ("charged people twice", "took the money two times", "doubled what was paid"),
    ("went down for twenty minutes", "was unreachable", "suffered an outage"),
    ("sent mails to the wrong person", "mixed up recipients", "leaked letters to strangers"),
    ("was slow as treacle", "crawled", "took ages to respond"),
    ("mangled names with accents", "spoiled foreign letters", "garbled special characters"),
    ("lost its settings after a restart", "forgot its configuration", "came up unconfigured"),
)
FIRST_NAMES = (
    "Ilse", "Tomasz", "Priya", "Mateo", "Aoife", "Kwame", "Sunniva", "Dario", "Yuki", "Hanne", "Ravi", "Noor", "Petra", "Emeka", "Lucie",
    "Anders", "Zofia", "Bilal",
)  # fmt: skip
DUTIES: tuple[Forms, ...] = (
    ("set it up", "installed it"),
    ("holds the keys", "has the access codes"),
    ("pays the bill", "covers the costs"),
    ("wrote the manual", "authored the handbook"),
    ("is on call for it", "gets woken when it breaks"),
)
FOLDERS = ("src", "lib", "services", "app", "tools", "packages", "core", "ops", "scripts", "web")
MODULES = (
    "runner", "glue", "main", "helpers", "bridge", "steps", "worker", "handlers", "views", "pipeline", "adapter", "entry", "rules", "io",
    "client", "schedule",
)  # fmt: skip
ENDINGS = ("py", "ts", "go", "yaml", "toml", "sh")
