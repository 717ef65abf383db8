"""House rules on every source file. Each rule is a function over one file, and is itself tested on a sample that breaks it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FUNCTION_LINES, MODULE_LINES, LINE_LENGTH, SERVICER_LINES = 70, 500, 140, 10


@dataclass(frozen=True)
class Source:
    """One file: path relative to the repository, text, tree."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def docstrings(self) -> dict[int, str]:
        """id of the constant -> text of every docstring, attribute docstrings included: any expression statement that is a string."""
        return {
            id(node.value): node.value.value
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        }

    def inside(self, *folders: str) -> bool:
        return self.path.startswith(tuple(f"{folder}/" for folder in folders))


Rule = Callable[[Source], Iterator[str]]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def called(node: ast.AST) -> str:
    """Last name of what a call calls: `a.b.c()` gives "c"; "" for anything else."""
    if not isinstance(node, ast.Call):
        return ""
    target = node.func
    return target.attr if isinstance(target, ast.Attribute) else target.id if isinstance(target, ast.Name) else ""


def long_function(source: Source) -> Iterator[str]:
    for function in functions(source.tree):
        length = (function.end_lineno or 0) - function.lineno + 1
        if length > FUNCTION_LINES:
            yield f"{function.lineno}: {function.name} has {length} lines, at most {FUNCTION_LINES}: split it"


def long_module(source: Source) -> Iterator[str]:
    length = len(source.text.splitlines())
    if length > MODULE_LINES:
        yield f"{length}: {length} lines, at most {MODULE_LINES}: split the module"


def long_line(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        # A comment for a tool is not read by people.
        if len(re.sub(r"\s+# (type: |noqa|fmt: ).*", "", line)) > LINE_LENGTH:
            yield f"{number}: {len(line)} characters, at most {LINE_LENGTH}"


def _broad(node: ast.expr | None) -> bool:
    if isinstance(node, ast.Tuple):
        return any(_broad(part) for part in node.elts)
    return node is None or (isinstance(node, ast.Name) and node.id in ("Exception", "BaseException"))


def swallowed_exception(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and _broad(node.type):
            silent = (
                isinstance(s, ast.Pass | ast.Continue) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)) for s in node.body
            )
            if all(silent):
                yield f"{node.lineno}: swallows every exception: catch what you expect, or log it"
        if isinstance(node, ast.Call) and called(node) == "suppress" and any(_broad(argument) for argument in node.args):
            yield f"{node.lineno}: suppresses every exception"


def unfinished(source: Source) -> Iterator[str]:
    marker = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT and marker.search(token.string):
            yield f"{token.start[0]}: {token.string}: an issue or nothing"
    if any(marker.search(text) for text in source.docstrings.values()):
        yield "1: a docstring speaks of unfinished work"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.dump(node):
            yield f"{node.lineno}: raises NotImplementedError: raise ndml.errors.NotAvailable, or leave it out"


def stray_print(source: Source) -> Iterator[str]:
    # settings.py speaks to the operator's terminal before logs are configured; healthcheck.py is a command, not a service.
    if not source.inside("services", "ndml/runtime") or source.path in ("ndml/runtime/settings.py", "ndml/runtime/healthcheck.py"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{node.lineno}: print: use ndml.runtime.log"


_METRIC = re.compile(r"ndml_[a-z][a-z0-9_]*")
_ATTRIBUTE = re.compile(r"(ndml|gen_ai|rpc|service|error|network|exception)(\.[a-z][a-z0-9_]*)+")
_OTEL_OWN = re.compile(r"(ndml|gen_ai|rpc)\.")
# Their first argument names a span, an attribute or a metric.
_NAMED_BY_FIRST = {
    *("span", "start_span", "start_as_current_span", "server_span_at", "set_attribute"),
    *("Counter", "Gauge", "Histogram", "Summary"),
}


def _is_module(dotted: str) -> bool:
    """`ndml.v1`, `ndml.runtime.log`: names of packages and of their loggers, told from attribute keys by being there on disk."""
    head = ROOT.joinpath(*dotted.split(".")[:2])
    return head.is_dir() or head.with_suffix(".py").is_file()


def _is_file_name(dotted: str) -> bool:
    return dotted.rsplit(".", 1)[-1] in ("db", "lock", "json", "yaml", "log")


def stray_key(source: Source) -> Iterator[str]:
    """Names of telemetry stand in semconv.py. Method paths start with "/", service names have capitals: neither matches."""
    if source.path == "ndml/runtime/semconv.py" or not source.inside("ndml", "services"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in source.docstrings:
            text = node.value
            attribute = _ATTRIBUTE.fullmatch(text) and not _is_module(text) and not _is_file_name(text)
            if _METRIC.fullmatch(text) or attribute:
                yield f"{node.lineno}: {text!r}: name it in ndml/runtime/semconv.py"
        if isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
            head = str(node.values[0].value)
            if head.startswith("ndml_") or (_OTEL_OWN.match(head) and not _is_module(head.rstrip("."))):
                yield f"{node.lineno}: f-string that builds a key from {head!r}"
        if isinstance(node, ast.Call) and called(node) in _NAMED_BY_FIRST and node.args and isinstance(node.args[0], ast.Constant):
            yield f"{node.lineno}: {called(node)}({node.args[0].value!r}): name it in ndml/runtime/semconv.py"


def servicer(source: Source) -> Iterator[str]:
    """A servicer converts; whoever wants to abort raises."""
    if source.inside("services"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and called(node) in ("abort", "abort_with_status"):
                yield f"{node.lineno}: {called(node)}: raise a leaf of ndml.errors"
    if not source.path.endswith("/servicer.py"):
        return
    for function in functions(source.tree):
        body = [
            statement for statement in function.body if not (isinstance(statement, ast.Expr) and id(statement.value) in source.docstrings)
        ]
        length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
        if function.name[0].isupper() and length > SERVICER_LINES:
            yield f"{function.lineno}: {function.name} has {length} lines, at most {SERVICER_LINES}: move the work into a core module"


RULES: list[Rule] = [
    long_function,
    long_module,
    long_line,
    swallowed_exception,
    unfinished,
    stray_print,
    stray_key,
    servicer,
]


def _sources() -> list[Source]:
    found = []
    for folder in ("ndml", "services", "scripts", "examples", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT).as_posix()
            if "_pb2" not in path.name and "node_modules" not in relative:
                found.append(Source(relative, path.read_text()))
    return found


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    return _sources()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_source_keeps_the_rule(rule: Rule, sources: list[Source]) -> None:
    assert len(sources) > 100
    broken = [f"{source.path}:{finding}" for source in sources for finding in rule(source)]
    assert not broken, "\n" + "\n".join(broken)


def _function(lines: int) -> str:
    return "def long():\n" + "    x = 1\n" * (lines - 1)


def _method(lines: int) -> str:
    return "class A:\n    def Get(self):\n" + "        x = 1\n" * lines


_LOGGED = "try:\n    a()\nexcept Exception:\n    log()\n"

# rule, path, text that breaks it, text beside it that does not
SAMPLES = [
    (long_function, "ndml/a.py", _function(FUNCTION_LINES + 1), _function(FUNCTION_LINES)),
    (long_module, "ndml/a.py", "x = 1\n" * (MODULE_LINES + 1), "x = 1\n" * MODULE_LINES),
    (long_line, "ndml/a.py", "x" * (LINE_LENGTH + 1), "x" * LINE_LENGTH),
    (swallowed_exception, "ndml/a.py", "try:\n    a()\nexcept Exception:\n    pass\n", "try:\n    a()\nexcept OSError:\n    pass\n"),
    (swallowed_exception, "ndml/a.py", "while x:\n    try:\n        a()\n    except:\n        continue\n", "while x:\n    continue\n"),
    (swallowed_exception, "ndml/a.py", "with suppress(Exception):\n    a()\n", "with suppress(OSError):\n    a()\n"),
    (swallowed_exception, "ndml/a.py", "try:\n    a()\nexcept (OSError, Exception):\n    ...\n", _LOGGED),
    (unfinished, "ndml/a.py", "x = 1  # TODO later\n", "x = 'TODO'  # a word in data\n"),
    (unfinished, "ndml/a.py", 'def a():\n    """FIXME."""\n', 'def a():\n    """Fixes me."""\n'),
    (unfinished, "ndml/a.py", "raise NotImplementedError\n", "try:\n    a()\nexcept NotImplementedError:\n    b()\n"),
    (stray_print, "services/x/a.py", "print(1)\n", "log.print(1)\n"),
    (stray_print, "ndml/runtime/a.py", "print(1)\n", "x = 'print'\n"),
    (stray_key, "services/x/a.py", "x = 'ndml_my_metric'\n", "x = 'ndml-gateway'\n"),
    (stray_key, "services/x/a.py", "x = {'ndml.my.attribute': 1}\n", "x = 'ndml.v1'\ny = 'ndml.runtime.log'\n"),
    (stray_key, "services/x/a.py", "x = 'rpc.method'\n", "x = '/ndml.v1.MemoryService/AddMemory'\n"),
    (stray_key, "services/x/a.py", "x = f'gen_ai.{y}'\n", "x = f'ndml.v1.{y}'\n"),
    (stray_key, "services/x/a.py", "with span('my_work'):\n    a()\n", "with span(semconv.SPAN_EMBED):\n    a()\n"),
    (stray_key, "ndml/runtime/a.py", "X = Counter('x', 'what')\n", "X = Counter(names.X, 'what')\n"),
    (stray_key, "ndml/runtime/a.py", "x.set_attribute('error.type', 1)\n", '"""error.type"""\n'),
    (servicer, "services/x/core.py", "await context.abort(1, 'no')\n", "raise TraceNotFound('no')\n"),
    (servicer, "services/x/servicer.py", _method(SERVICER_LINES + 1), _method(SERVICER_LINES)),
]


@pytest.mark.parametrize(("rule", "path", "bad", "good"), SAMPLES, ids=[f"{row[0].__name__}-{i}" for i, row in enumerate(SAMPLES)])
def test_a_rule_catches_what_breaks_it_and_nothing_beside(rule: Rule, path: str, bad: str, good: str) -> None:
    assert list(rule(Source(path, bad)))
    assert not list(rule(Source(path, good)))


def test_every_rule_has_a_sample() -> None:
    assert {rule.__name__ for rule in RULES} == {row[0].__name__ for row in SAMPLES}
