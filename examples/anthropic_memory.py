"""Anthropic's memory tool over NDML: the model's files are memories of a user, kept by the suite and found by its searches and chats.

    tool = NdmlMemoryTool(NdmlClient("127.0.0.1:7700", user="ann"))
    anthropic.Anthropic().beta.messages.run_tools(model=..., max_tokens=..., messages=[...], tools=[tool]).until_done()

A file is one memory of at most 65,536 bytes, a directory is what its files' paths share: one without files is not there. An edit is
refused where somebody else changed the file since it was read. Answers are worded as the SDK's own backend words them.
"""

from __future__ import annotations

import posixpath

from anthropic.lib.tools import BetaAbstractMemoryTool, BetaFunctionToolResultType, ToolError
from anthropic.types import beta

from ndml.client import Filter, Memory, NdmlClient
from ndml.errors import NdmlError

ROOT = "/memories"
PATH = "file.path"
EMPTY = "file.empty"  # a memory has a text: an empty file has this label, and a blank for text
_DEPTH = 2
_NUMBER_WIDTH = 6
_CONTEXT_LINES = 2


class NdmlMemoryTool(BetaAbstractMemoryTool):
    """The memory tool of one user: the client's."""

    def __init__(self, client: NdmlClient) -> None:
        super().__init__()
        self._client = client

    def execute(self, command: beta.BetaMemoryTool20250818Command) -> BetaFunctionToolResultType:
        """Carries a command out. Raises ToolError for whatever the model has to know, what the suite refuses included."""
        try:
            return super().execute(command)
        except NdmlError as error:
            raise ToolError(f"{error.reason}: {error.message}") from error

    def view(self, command: beta.BetaMemoryTool20250818ViewCommand) -> str:
        """A file with line numbers, or what a directory holds."""
        path = normal(command.path)
        file = self._file(path)
        if file is not None:
            lines = content_of(file).split("\n")
            first, last = command.view_range if command.view_range and len(command.view_range) == 2 else (1, -1)
            shown = numbered(lines, max(1, first), len(lines) if last == -1 else last)
            return f"Here's the content of {command.path} with line numbers:\n{shown}"
        below = self._below(path)
        if not below and path != ROOT:
            raise ToolError(f"The path {command.path} does not exist. Please provide a valid path.")
        header = f"Here're the files and directories up to {_DEPTH} levels deep in {command.path}, excluding hidden items:"
        return f"{header}\n{listing(command.path, {memory.metadata[PATH][len(path) + 1 :]: _size(memory) for memory in below})}"

    def create(self, command: beta.BetaMemoryTool20250818CreateCommand) -> str:
        """A new file."""
        path = normal(command.path)
        if self._file(path) is not None or path == ROOT or self._below(path):
            raise ToolError(f"File {command.path} already exists")
        self._check_parents(path)
        self._client.add(command.file_text or " ", metadata=_labels(path, command.file_text))
        return f"File created successfully at: {command.path}"

    def str_replace(self, command: beta.BetaMemoryTool20250818StrReplaceCommand) -> str:
        """Other words in place of some that stand in the file once."""
        file = self._existing(command.path)
        content = content_of(file)
        lines = [content[:at].count("\n") + 1 for at in occurrences(content, command.old_str)]
        if not lines:
            text = f"old_str `{command.old_str}` did not appear verbatim in {command.path}."
            raise ToolError(f"No replacement was performed, {text}")
        if len(lines) > 1:
            text = f"Multiple occurrences of old_str `{command.old_str}` in lines: {', '.join(map(str, lines))}. Please ensure it is unique"
            raise ToolError(f"No replacement was performed. {text}")
        changed = content.replace(command.old_str, command.new_str)
        self._write(file, changed)
        shown = numbered(changed.split("\n"), max(1, lines[0] - _CONTEXT_LINES), lines[0] + _CONTEXT_LINES)
        return f"The memory file has been edited. Here is the snippet showing the change (with line numbers):\n{shown}"

    def insert(self, command: beta.BetaMemoryTool20250818InsertCommand) -> str:
        """A text after a line; 0: at the top."""
        file = self._existing(command.path)
        lines = content_of(file).removesuffix("\n").split("\n") if content_of(file) else []
        if not 0 <= command.insert_line <= len(lines):
            text = f"{command.insert_line}. It should be within the range [0, {len(lines)}]."
            raise ToolError(f"Invalid `insert_line` parameter: {text}")
        lines.insert(command.insert_line, command.insert_text.rstrip("\n"))
        self._write(file, "\n".join(lines).removesuffix("\n") + "\n")
        return f"The file {command.path} has been edited."

    def delete(self, command: beta.BetaMemoryTool20250818DeleteCommand) -> str:
        """A file, or a directory with all its files, for good."""
        path = normal(command.path)
        if path == ROOT:
            raise ToolError("Cannot delete the /memories directory itself")
        for memory in self._at(path, command.path):
            self._client.delete(memory.trace_id, allow_missing=True)
        return f"Successfully deleted {command.path}"

    def rename(self, command: beta.BetaMemoryTool20250818RenameCommand) -> str:
        """Another path for a file, or for a directory's files."""
        old, new = normal(command.old_path), normal(command.new_path)
        if old == ROOT:
            raise ToolError("Cannot rename the /memories directory itself")
        if self._file(new) is not None or new == ROOT or self._below(new):
            raise ToolError(f"The destination {command.new_path} already exists")
        moved = self._at(old, command.old_path)
        if new.startswith(f"{old}/"):
            raise ToolError(f"The destination {command.new_path} lies inside {command.old_path}")
        self._check_parents(new)
        for memory in moved:
            path = new + memory.metadata[PATH].removeprefix(old)
            self._client.update(memory.trace_id, metadata=_labels(path, content_of(memory)), expected_version=memory.version)
        return f"Successfully renamed {command.old_path} to {command.new_path}"

    def clear_all_memory(self) -> str:
        """Every file, for good; memories that are no files stay."""
        for memory in self._below(ROOT):
            self._client.delete(memory.trace_id, allow_missing=True)
        return "All memory cleared"

    def _file(self, path: str) -> Memory | None:
        return next(iter(self._client.list(filter=Filter(metadata={PATH: path}), page_size=1)), None)

    def _below(self, path: str) -> list[Memory]:
        files = self._client.list(filter=Filter(metadata={PATH: True}), page_size=1000)
        return [memory for memory in files if memory.metadata[PATH].startswith(f"{path}/")]

    def _at(self, path: str, named: str) -> list[Memory]:
        """The file, or the directory's files. Raises ToolError where there is neither."""
        file = self._file(path)
        found = [file] if file is not None else self._below(path)
        if not found:
            raise ToolError(f"The path {named} does not exist")
        return found

    def _existing(self, named: str) -> Memory:
        path = normal(named)
        file = self._file(path)
        if file is not None:
            return file
        if path == ROOT or self._below(path):
            raise ToolError(f"The path {named} is not a file.")
        raise ToolError(f"The path {named} does not exist. Please provide a valid path.")

    def _check_parents(self, path: str) -> None:
        while (path := posixpath.dirname(path)) != ROOT:
            if self._file(path) is not None:
                raise ToolError(f"{path} is a file, not a directory")

    def _write(self, file: Memory, content: str) -> None:
        labels = _labels(file.metadata[PATH], content)
        self._client.update(file.trace_id, text=content or " ", metadata=labels, expected_version=file.version)


def normal(path: str) -> str:
    """The path without detours. Raises ToolError where it leads out of /memories."""
    plain = posixpath.normpath(path)
    if plain != ROOT and not plain.startswith(f"{ROOT}/"):
        raise ToolError(f"Path must start with /memories, got: {path}")
    return plain


def content_of(file: Memory) -> str:
    """What stands in the file."""
    return "" if EMPTY in file.metadata else file.text


def numbered(lines: list[str], first: int, last: int) -> str:
    """Lines `first` to `last`, counted from 1, each behind its number."""
    return "\n".join(f"{number:>{_NUMBER_WIDTH}}\t{line}" for number, line in enumerate(lines[first - 1 : last], first))


def occurrences(text: str, part: str) -> list[int]:
    """Where `part` begins in `text`, without overlaps."""
    found = []
    at = text.find(part)
    while at >= 0 and part:
        found.append(at)
        at = text.find(part, at + len(part))
    return found


def listing(shown: str, files: dict[str, int]) -> str:
    """A directory's entries with their sizes; `files` has the size of each by its path below the directory."""
    sizes: dict[tuple[str, ...], int] = {(): sum(files.values())}
    for name, size in files.items():
        parts = tuple(name.split("/"))
        for depth in range(1, min(len(parts), _DEPTH) + 1):
            if not any(part.startswith(".") for part in parts[:depth]):
                sizes[parts[:depth]] = sizes.get(parts[:depth], 0) + size
    rows = []
    for parts, size in sorted(sizes.items()):
        name = "/".join(parts)
        slash = "/" if parts and name not in files else ""
        rows.append(f"{_readable(size)}\t{shown}" + (f"/{name}{slash}" if parts else ""))
    return "\n".join(rows)


def _labels(path: str, content: str) -> dict[str, str]:
    return {PATH: path} if content else {PATH: path, EMPTY: "1"}


def _size(file: Memory) -> int:
    return len(content_of(file).encode())


def _readable(size: int) -> str:
    power = min(max(size.bit_length() - 1, 0) // 10, 3)
    return f"{size / 1024**power:.1f}".removesuffix(".0") + "BKMG"[power]
