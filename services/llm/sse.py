"""Server-sent events, as chat completion streams use them: bytes in, the `data` of each event out."""

from __future__ import annotations

import codecs

_MAX_EVENT_CHARS = 1 << 20  # an event carries a few tokens; a megabyte without an end is no event stream


class EventTooLong(Exception):
    """No end of event within a megabyte."""


class SseDecoder:
    """Fed with chunks cut anywhere, inside a character too. Raises EventTooLong; UnicodeDecodeError for what is not UTF-8."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("strict")
        self._line = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[str]:
        """Events that this chunk completes."""
        *lines, self._line = (self._line + self._utf8.decode(chunk)).split("\n")
        if len(self._line) > _MAX_EVENT_CHARS:
            raise EventTooLong
        return [event for line in lines if (event := self._take(line.removesuffix("\r"))) is not None]

    def close(self) -> list[str]:
        """The stream ended: an event whose blank line is missing still counts."""
        found = [event for line in (self._line, "") if (event := self._take(line.removesuffix("\r"))) is not None]
        self._line = ""
        return found

    def _take(self, line: str) -> str | None:
        if line.startswith("error:"):  # llama.cpp up to September 2025: a field that the standard does not have
            line = f'data: {{"error": {line[6:].strip()}}}'
        if line.startswith("data:"):
            self._data.append(line[5:].removeprefix(" "))
            self._size += len(line)
            if self._size > _MAX_EVENT_CHARS:
                raise EventTooLong
            return None
        if line or not self._data:
            return None  # comments, other fields, blank lines between events
        event, self._data, self._size = "\n".join(self._data), [], 0
        return event or None  # empty data keeps a connection open, and is no event
