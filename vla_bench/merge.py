"""`vla-bench merge`: one run from the parts that several machines have played."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from vla_bench import journal, provenance
from vla_bench.errors import NoResultsError, OptionError, VlaBenchError
from vla_bench.types import EpisodeRecord


class UnmergeableError(VlaBenchError):
    """Refuse parts that are not of one run."""

    def __init__(self, one: Path, other: Path, differences: list[str]) -> None:
        shown = "; ".join(differences[:5])
        super().__init__(
            f"{one} and {other} are not of one run: {shown}; expected the same plan under the same conditions, each "
            f"part played with 'vla-bench run --shard I/N'"
        )


@dataclass(frozen=True)
class Merge:
    """Put the parts of a run together, played with `vla-bench run --shard I/N` on machines that share no disk.

    Parts must have the same plan and conditions (policy, physics, pixels, processor); what two parts hold alike is
    taken once. The parts stay as they are. Run the same plan on the merged directory to play what is still missing.
    """

    parts: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of runs, each with its journal."""

    out: Path = Path("results/merged")
    """Directory of the merged run; it must hold none yet."""

    def run(self) -> int:
        """Write the merged run, and print how much it holds."""
        if len(self.parts) < 2:
            raise OptionError("PARTS", self.parts, "at least two directories of runs")
        n_episodes, n_twice = merge(self.parts, self.out)
        twice = f"; {n_twice} were in several parts, alike" if n_twice else ""
        print(f"{self.out}: {n_episodes} episodes of {len(self.parts)} parts{twice}")
        return 0


def merge(parts: tuple[Path, ...], out: Path) -> tuple[int, int]:
    """Write the run that holds all episodes of some parts, and return how many, and how many were there several times.

    Raises:
        NoResultsError: If a part holds no run, or `out` holds one already.
        UnmergeableError: If parts differ in plan or conditions, or in how an episode went.
    """
    if journal.read(out) or provenance.read(out) is not None:
        raise NoResultsError(out, "holds a run already: merge into a new directory")
    found = [_provenance(part) for part in parts]
    for part, one in zip(parts[1:], found[1:], strict=True):
        differing = [
            *provenance.differences(_plain(found[0]["plan"]), _plain(one["plan"])),
            *provenance.differences(found[0]["conditions"], one["conditions"]),
        ]
        if differing:
            raise UnmergeableError(parts[0], part, differing)
    records, n_twice = _gathered(parts)
    with journal.writing(out) as pages:
        sessions = sorted((one for part in found for one in part["sessions"]), key=lambda one: one["started"])
        whole = {"plan": found[0]["plan"], "conditions": found[0]["conditions"], "sessions": sessions}
        provenance.write_json(out / provenance.NAME, whole)
        for record in records:
            pages.append(record)
    return len(journal.latest(records)), n_twice


def _gathered(parts: tuple[Path, ...]) -> tuple[list[EpisodeRecord], int]:
    """Return all records of some parts, finished ones once, and how many were there several times."""
    records: list[EpisodeRecord] = []
    known: dict[Any, tuple[Path, EpisodeRecord]] = {}
    n_twice = 0
    for part in parts:
        for record in journal.read(part):
            if record.key not in known:
                records.append(record)
                if not record.is_broken:
                    known[record.key] = (part, record)
                continue
            before, finished = known[record.key]
            if record.is_broken:
                continue  # an error here does not undo what has worked there
            if _facts(finished) != _facts(record):
                cell = record.cell
                what = f"task {cell.task} from state {cell.init_state} under {record.method!r} went otherwise"
                raise UnmergeableError(before, part, [what])
            n_twice += 1
    return records, n_twice


def _provenance(part: Path) -> dict[str, Any]:
    found = provenance.read(part)
    if found is None or not journal.read(part):
        raise NoResultsError(part, "is no run" if part.exists() else "does not exist")
    return found


def _plain(plan: dict[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in plan.items()}


def _facts(record: EpisodeRecord) -> tuple:
    """Return what must be equal between two plays of one episode."""
    return (record.outcome, record.n_steps, record.init_state_sha256, record.actions_sha256, record.protocol)
