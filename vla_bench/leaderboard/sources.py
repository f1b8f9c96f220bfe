"""What stands on the leaderboard: sources, each with its evidence, and why one is refused or left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vla_bench import tables
from vla_bench.errors import MixedRunsError, NoResultsError, OptionError, VlaBenchError
from vla_bench.submission import evidence
from vla_bench.submission.evidence import Evidence
from vla_bench.tables import REFERENCE_METHOD, Results

REMEDY = "or leave out what cannot be shown with --skip-unfit, which the page then names"
"""What can always be done about a source that is refused."""


class UnfitSourceError(VlaBenchError):
    """Refuse a source whose rows could not be read as the others are."""

    def __init__(self, source: Path, found: str, expected: str, remedy: str) -> None:
        self.reason = found
        super().__init__(
            f"{source} cannot stand on the leaderboard: found {found}; expected {expected}: {remedy}, {REMEDY}"
        )


class EmptyLeaderboardError(VlaBenchError):
    """Refuse to write a page without a row."""

    def __init__(self, left_out: int) -> None:
        super().__init__(
            f"no row is left: all {left_out} sources were left out by --skip-unfit; expected at least one that can be "
            f"shown: run the command without --skip-unfit to read what is wrong with the first"
        )


@dataclass(frozen=True)
class Source:
    """Results that share a machine and a clock, and are compared with nothing outside."""

    name: str
    """Its folder's name, with as much of the path before it as it takes to tell sources apart."""

    results: Results

    evidence: Evidence


@dataclass(frozen=True)
class LeftOut:
    """A source that is not shown."""

    name: str

    reason: str


def read_sources(paths: Sequence[Path], skip_unfit: bool = False) -> tuple[list[Source], list[LeftOut]]:
    """Return the sources that can be shown, and those that are left out with the reason.

    Args:
        paths: Runs, directories of runs, folders of exported frames, or submission packs.
        skip_unfit: Leave out what would be refused; a path that does not exist is refused all the same.

    Raises:
        NoResultsError: If a path does not exist, or holds nothing.
        OptionError: If a path is given twice.
        UnfitSourceError: If a source holds methods without the reference, or runs that cannot be compared.
        EmptyLeaderboardError: If everything was left out.
    """
    sources, left_out = [], []
    for path, name in zip(paths, _names(paths), strict=True):
        if not path.exists():
            raise NoResultsError(path, "does not exist")
        try:
            sources.append(Source(name, _read(path), evidence.evidence_of(path)))
        except VlaBenchError as caught:
            if not skip_unfit:
                raise
            reason = caught.reason if isinstance(caught, UnfitSourceError) else str(caught).replace(str(path), name)
            left_out.append(LeftOut(name, reason))
    if not sources:
        raise EmptyLeaderboardError(len(left_out))
    return sources, left_out


def _read(path: Path) -> Results:
    """Return the source's frames, each suite and policy with its reference."""
    try:
        results = tables.read(path)
    except MixedRunsError as caught:
        raise UnfitSourceError(
            path,
            f"runs of several conditions ({caught})",
            "one protocol and one machine in a source",
            "give each machine and protocol a source of its own",
        ) from caught
    except UnicodeError as caught:
        raise UnfitSourceError(
            path,
            f"a name that is no text ({caught.reason if isinstance(caught, UnicodeEncodeError) else caught})",
            "names of letters that UTF-8 can write",
            "mend the records",
        ) from caught
    for (suite, policy), group in results.episodes.groupby(["suite", "policy"]):
        methods = sorted(set(group["method"]))
        if REFERENCE_METHOD not in methods:
            raise UnfitSourceError(
                path,
                f"no episode of {REFERENCE_METHOD!r} in {suite}, policy {policy}, only of {', '.join(methods)}",
                f"{REFERENCE_METHOD!r} on the same starts, which speed-up and difference are relative to",
                f"add it to the run with --method {REFERENCE_METHOD}",
            )
    return results


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart: a page does not say where on a disk they lie."""
    parts = [path.resolve().parts for path in paths]
    for path, own in zip(paths, parts, strict=True):
        if parts.count(own) > 1:
            raise OptionError("RESULTS", str(path), "each source once")

    def ends(own: tuple[str, ...]) -> str:
        depths = range(1, len(own))
        alone = (depth for depth in depths if sum(other[-depth:] == own[-depth:] for other in parts) == 1)
        return "/".join(own[-next(alone, len(own)) :])

    return [ends(own) for own in parts]
