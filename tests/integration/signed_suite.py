"""Settings of a suite that signs its updates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ndml.crdt import keys
from ndml.crdt.roster import Author, Roster
from ndml.testing.layout import Role


def signed_settings(directory: Path, nodes: int, others: Mapping[str, Ed25519PrivateKey] | None = None) -> dict[Role, dict[str, str]]:
    """For SuiteOptions.settings: keys of so many memory nodes in their data directories, a roster of them and `others`, an operator."""
    names = [f"memory-node-{number}" for number in range(1, nodes + 1)]
    known = {name: keys.load_or_create(directory / name / "author.pem") for name in names} | dict(others or {})
    operator = Ed25519PrivateKey.generate()
    path = directory / "roster.json"
    path.write_bytes(Roster(1, {name: Author(keys.public_bytes(key)) for name, key in known.items()}).sign(operator).to_json())
    common = {"SIGNING__ROSTER": str(path), "SIGNING__OPERATOR": keys.public_bytes(operator).hex()}
    return {"memory-node": {f"REPLICATION__{name}": value for name, value in common.items()}, "consensus": common}
