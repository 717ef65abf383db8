"""The roster on disk: one JSON file with its checksum, replaced whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ndml.errors import FieldInvalid
from ndml.placement import NodeRecord, Roster, check_record
from ndml.runtime.files import claim_directory, write_durably
from ndml.runtime.log import get_logger

log = get_logger(__name__)

_FORMAT = 1
_FILE = "roster.json"
_FOUNDERS = "founders.json"


class RosterFile:
    """RosterStore in `directory`.

    A file that cannot be trusted is kept beside as evidence and the node starts without it: peers and heartbeats bring every record back
    within a second, whereas a node that refuses to start helps nobody.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / _FILE

    def load(self) -> dict[str, NodeRecord]:
        """Raises OSError where the file is there and cannot be read."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            return _decode(data)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FieldInvalid) as error:
            aside = self.path.with_name(f"{_FILE}.corrupt-{sha256(data).hexdigest()[:12]}")
            self.path.replace(aside)
            log.warning("roster_corrupt", path=str(self.path), kept_as=str(aside), error=str(error))
            return {}

    def founders(self, listed: Sequence[str]) -> list[str]:
        """A list that cannot be read counts as lost with the roster: it begins anew. An empty one begins nothing. Raises OSError."""
        claim_directory(self.path.parent, "store.data_dir")
        path = self.path.with_name(_FOUNDERS)
        try:
            known = json.loads(path.read_bytes())
            if isinstance(known, list) and all(isinstance(node_id, str) for node_id in known):
                return known
            log.warning("founders_corrupt", path=str(path))
        except FileNotFoundError:
            log.info("roster_begun", founders=list(listed))
        except (ValueError, RecursionError) as error:
            log.warning("founders_corrupt", path=str(path), error=str(error))
        if listed:
            write_durably(path, json.dumps(list(listed)).encode())
        return list(listed)

    def save(self, roster: Roster) -> None:
        write_durably(self.path, _encode(roster))


def _encode(roster: Roster) -> bytes:
    body = {"format": _FORMAT, "nodes": [roster[node_id].to_json() for node_id in sorted(roster)]}
    return json.dumps({"sha256": _checksum(body), **body}, indent=1).encode()


def _decode(data: bytes) -> dict[str, NodeRecord]:
    """What `_encode` made. Raises one of the errors that `load` lists where `data` is anything else."""
    body: dict[str, Any] = json.loads(data)
    stated = body.pop("sha256")
    if stated != _checksum(body):
        raise ValueError("the checksum does not match")
    if body["format"] != _FORMAT:
        raise ValueError(f"format {body['format']}, this release reads {_FORMAT}")
    records = [NodeRecord.from_json(node) for node in body["nodes"]]
    for record in records:
        check_record(record)
    return {record.node_id: record for record in records}


def _checksum(body: dict[str, Any]) -> str:
    return sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
