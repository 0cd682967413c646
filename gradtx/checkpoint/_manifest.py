"""Seal what is known of a checkpoint in a file of two lines, and open it again."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from pathlib import Path

from gradtx.checkpoint._files import read_small
from gradtx.checkpoint._json import LONGEST, canonical, parsed
from gradtx.checkpoint._parse import FORMAT, VERSION, manifest_of
from gradtx.checkpoint._records import Manifest
from gradtx.core import DamagedError

#: The name of the file, written last: without it a directory is no checkpoint.
NAME = "manifest.json"
#: The directory of the arrays beside it.
ARRAYS = "arrays"

_LONGEST_LAST = 256  # two digests and their names


def sealed(manifest: Manifest, key: bytes | None) -> bytes:
    """Return the contents of the file: the manifest, and a line with its digests."""
    data = dataclasses.asdict(manifest)
    data["files"] = [record._asdict() for record in manifest.files]
    body = canonical({"format": FORMAT, "version": VERSION, **data})
    return body + b"\n" + canonical(_digests(body, key)) + b"\n"


def read_manifest(directory: Path, key: bytes | None = None) -> Manifest:
    """Return the manifest of a checkpoint, after its own digests were checked.

    Raises:
      DamagedError: if it is missing, damaged, or not signed with `key`.
    """
    path = directory / NAME
    raw = read_small(path, LONGEST)
    try:
        return unsealed(raw, key)
    except DamagedError as error:
        raise DamagedError(f"{path}: {error.args[0]}") from error


def unsealed(raw: bytes, key: bytes | None = None) -> Manifest:
    """Return the manifest that `sealed` wrote.

    Raises:
      DamagedError: for any other bytes; nothing else, whatever they are.
    """
    body, _, last = raw.removesuffix(b"\n").rpartition(b"\n")
    if not body or b"\n" in body or not raw.endswith(b"\n"):
        raise DamagedError("expected two lines, the manifest and its digest.")
    digests = parsed(last) if len(last) <= _LONGEST_LAST else None
    if not isinstance(digests, dict) or not {"sha256"} <= digests.keys() <= {
        "sha256",
        "hmac",
    }:
        raise DamagedError("the last line holds no digest.")
    if digests["sha256"] != hashlib.sha256(body).hexdigest():
        raise DamagedError("its bytes are not those that were written (SHA-256).")
    if key is not None:
        if "hmac" not in digests:
            raise DamagedError(
                "it is not signed, and a key was given to check it with."
            )
        given, wanted = str(digests["hmac"]), _digests(body, key)["hmac"]
        if not hmac.compare_digest(given.encode(), wanted.encode()):
            raise DamagedError("it was changed, or signed with another key (HMAC).")
    data = parsed(body)
    try:
        return manifest_of(data)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DamagedError(f"the manifest has another form: {error}.") from error


def is_signed(directory: Path) -> bool:
    """Say whether a manifest carries a signature, be it right or wrong."""
    return b'"hmac"' in read_small(directory / NAME, LONGEST).rpartition(b"}\n{")[2]


def _digests(body: bytes, key: bytes | None) -> dict[str, str]:
    digests = {"sha256": hashlib.sha256(body).hexdigest()}
    if key is not None:
        digests["hmac"] = hmac.new(key, body, hashlib.sha256).hexdigest()
    return digests
