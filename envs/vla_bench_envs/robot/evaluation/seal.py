"""Which method is which: hidden from the operator until the report, and committed to by a hash in the plan.

It hides from a glance, not from somebody who opens the file: the computer that plays the methods must know them.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Seal:
    """A sealed map."""

    nonce: str
    """128 random bits in hexadecimal, without which trying all maps would tell which one the hash is of."""

    methods: dict[str, str]
    """Specification of each method by its alias."""

    @classmethod
    def of(cls, methods: tuple[str, ...], nonce: str) -> "Seal":
        """Return the map in which the nonce decides who is who."""
        drawn = np.random.default_rng(int(nonce, 16)).permutation(len(methods))
        return cls(nonce, {alias(place): methods[int(index)] for place, index in enumerate(drawn)})

    @property
    def sha256(self) -> str:
        """Return what a plan commits to."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def alias(place: int) -> str:
    """Return the name under which a method is played and recorded."""
    return f"sealed-{place + 1}"
