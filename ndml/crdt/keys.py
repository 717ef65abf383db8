"""Ed25519 keys of authors and operators: made once, kept in a PEM file that nobody else reads."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ndml.disk import sync_directory
from ndml.errors import FieldInvalid

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
MAX_KEY_FILE_BYTES = 4096  # a PEM of Ed25519 has some 120 bytes; what is larger is another file
# Kubernetes mounts secrets readable by the pod's group, so that is allowed; the world, and writing, are not.
_TOO_OPEN = stat.S_IWGRP | stat.S_IRWXO


def load_or_create(path: Path) -> Ed25519PrivateKey:
    """The key in `path`; where there is none, a fresh one, on disk with mode 0600 before this returns.

    Processes that create it at the same time end with the same key. Raises FieldInvalid where the file is no unencrypted Ed25519 key in
    PEM or is open to others, OSError where it cannot be read or written.
    """
    if not path.exists():
        _create(path)
    return load(path)


def load(path: Path) -> Ed25519PrivateKey:
    """The key in `path`. Raises as load_or_create, and FileNotFoundError."""
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        data = file.read(MAX_KEY_FILE_BYTES + 1)
    if os.name == "posix" and mode & _TOO_OPEN:
        raise FieldInvalid(f"{path} is open to others (mode {mode:04o}): `chmod 600` it, and make a new key if it leaked", field="key")
    if len(data) > MAX_KEY_FILE_BYTES:
        raise FieldInvalid(f"{path} is larger than a key file can be: name the PEM file of an Ed25519 key", field="key")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FieldInvalid(f"{path} is not an unencrypted private key in PEM ({error}): make one with NDML", field="key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise FieldInvalid(f"{path} holds a {type(key).__name__}: updates are signed with Ed25519", field="key")
    return key


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """What others check its signatures with. 32 bytes."""
    return key.public_key().public_bytes_raw()


def public_key(raw: bytes) -> Ed25519PublicKey:
    """The key of 32 raw bytes. Raises FieldInvalid."""
    if len(raw) != PUBLIC_BYTES:
        raise FieldInvalid(f"a public key has {PUBLIC_BYTES} bytes, not {len(raw)}", field="public_key")
    return Ed25519PublicKey.from_public_bytes(raw)


def is_signed(public: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is the key's over `message`. The lock of the interpreter is free meanwhile, so threads check in parallel."""
    try:
        public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _create(path: Path) -> None:
    """Whole or not at all: written beside, then linked in place, which fails where another process was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            return
    finally:
        fresh.unlink()
    sync_directory(path.parent)
