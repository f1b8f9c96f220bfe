"""What can be wrong with a published checkpoint or with what it is shown."""

from collections.abc import Iterable
from pathlib import Path

from vla_bench.errors import VlaBenchError


class PublishedCheckpointError(VlaBenchError):
    """Refuse a folder or file that is not the published checkpoint it should be."""

    def __init__(self, path: Path, found: str, expected: str) -> None:
        super().__init__(
            f"{path}: {found}; expected {expected}. Download the checkpoint again, with all of its files, into one "
            f"folder, and name that folder"
        )


class StatisticsKeyError(VlaBenchError):
    """Refuse to turn answers into actions by statistics that the checkpoint does not have."""

    def __init__(self, wanted: str, known: Iterable[str], weights: Path) -> None:
        super().__init__(
            f"{weights} has no statistics {wanted!r} to turn its answers into actions; it has "
            f"{', '.join(sorted(known)) or 'none'}: use the checkpoint that was trained for this suite, or name "
            f"statistics with stats=..."
        )


class UnfitPictureError(VlaBenchError):
    """Refuse an observation that the model cannot be shown."""

    def __init__(self, policy: str, found: str, expected: str, protocol: str) -> None:
        super().__init__(f"the observation has {found}; {policy!r} needs {expected}: run it with --protocol {protocol}")
