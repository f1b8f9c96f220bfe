"""How much a figure on the leaderboard rests on."""

import hashlib
import json
from enum import StrEnum
from pathlib import Path


class Evidence(StrEnum):
    """What has been done to believe results, in the order of how much that is."""

    SELF_REPORTED = "self-reported"
    """Records as somebody hands them over."""

    RECOMPUTED = "recomputed"
    """A pack whose hashes hold, and of which every figure was computed anew from its records."""

    REPLAYED = "replayed"
    """Moreover, episodes drawn at random were played again and ended as recorded."""


def evidence_of(path: Path) -> Evidence:
    """Return what the receipt next to a pack says; without one, or with another pack's, `SELF_REPORTED`.

    A receipt is a statement of whoever ran `vla-bench verify`, not a signature: anybody can write one. Believe those
    that you, or a machine you trust, have made.
    """
    try:
        receipt = json.loads(receipt_of(path).read_bytes())
        found = Evidence(receipt["evidence"])
        with path.open("rb") as stream:
            is_of_this_pack = receipt["pack_sha256"] == hashlib.file_digest(stream, "sha256").hexdigest()
        return found if is_of_this_pack and receipt["found"] == [] else Evidence.SELF_REPORTED
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # no receipt, or none that says so
        return Evidence.SELF_REPORTED


def receipt_of(pack: Path) -> Path:
    """Return where the receipt of a pack lies."""
    return pack.with_name(f"{pack.name}.receipt.json")
