"""A pack verified: examined, replayed if asked, and the receipt of it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vla_bench import __version__, provenance
from vla_bench.submission.evidence import Evidence, receipt_of
from vla_bench.submission.examination import Examination, examine
from vla_bench.submission.replay import Replay, replay

SCHEMA = 1


@dataclass(frozen=True)
class Verification:
    """What is known of a pack after all was done."""

    examination: Examination
    replay: Replay | None

    @property
    def found(self) -> list[str]:
        """Return everything wrong."""
        return [*self.examination.found, *(self.replay.found if self.replay else [])]

    @property
    def remarks(self) -> list[str]:
        """Return what is no fault of the pack."""
        return [*self.examination.remarks, *(self.replay.remarks if self.replay else [])]

    @property
    def evidence(self) -> Evidence:
        """Return what the pack has earned here."""
        if self.found:
            return Evidence.SELF_REPORTED
        return Evidence.REPLAYED if self.replay is not None and self.replay.is_as_recorded else Evidence.RECOMPUTED


def verify(pack: Path, n_replayed: int = 0, seed: int | None = None) -> Verification:
    """Check a pack, play episodes again if nothing was wrong so far, and write the receipt next to it.

    Args:
        pack: The file.
        n_replayed: Episodes to play again.
        seed: Of the draw; None takes it from the pack's hash.

    Raises:
        OptionError: If there is no such file.
        ResultsWriteError: If the receipt cannot be written.
    """
    examination = examine(pack)
    drawn_by = int(examination.sha256[:8], 16) if seed is None else seed
    replayed = replay(examination.runs, n_replayed, drawn_by) if n_replayed and not examination.found else None
    verification = Verification(examination, replayed)
    provenance.write_json(receipt_of(pack), _receipt(pack, verification, n_replayed))
    return verification


def _receipt(pack: Path, verification: Verification, n_asked: int) -> dict[str, Any]:
    """Return what the file says; of earlier receipts nothing is kept."""
    replayed = verification.replay
    return {
        "schema": SCHEMA,
        "note": "a statement of whoever ran 'vla-bench verify', not a signature",
        "pack": pack.name,
        "pack_sha256": verification.examination.sha256,
        "evidence": str(verification.evidence),
        "found": verification.found,
        "remarks": verification.remarks,
        "checked": verification.examination.checked,
        "replay": replayed and {"seed": replayed.seed, "asked": n_asked, "episodes": replayed.episodes},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "vla_bench": __version__,
        "commit": provenance.commit(),
        "packages": provenance.packages(),
        "machine": provenance.machine(),
    }
