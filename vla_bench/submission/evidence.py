"""How much a figure on the leaderboard rests on."""

from enum import StrEnum


class Evidence(StrEnum):
    """What has been done to believe results, in the order of how much that is."""

    SELF_REPORTED = "self-reported"
    """Records as somebody hands them over."""

    RECOMPUTED = "recomputed"
    """A pack whose hashes hold, and of which every figure was computed anew from its records."""

    REPLAYED = "replayed"
    """Moreover, episodes drawn at random were played again and ended as recorded."""
