"""Everything about a pack that can be checked without playing: its files, its records and its figures."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla_bench import __version__, journal
from vla_bench.submission import archive, claims, episode_rules, manifest, order_rules, run_rules, runs
from vla_bench.submission.archive import PackError
from vla_bench.submission.runs import PackedRun
from vla_bench.tables import Results, load

N_RULES = len(episode_rules.EPISODE_RULES) + len(episode_rules.QUERY_RULES) + len(run_rules.RULES) + order_rules.N_RULES
"""Rules that honest runs keep and that records are held against."""


@dataclass
class Examination:
    """What was found in a pack."""

    sha256: str
    """Of the file itself."""

    found: list[str] = field(default_factory=list)
    """Everything wrong; a pack that verifies has none."""

    remarks: list[str] = field(default_factory=list)
    """What is no fault of the pack, and what a reader wants to know."""

    checked: list[str] = field(default_factory=list)
    """What was looked at."""

    runs: list[PackedRun] = field(default_factory=list)
    """All runs, if all of them could be read."""


def examine(pack: Path) -> Examination:
    """Check files, records and figures of a pack, and go on after what is wrong as far as that makes sense.

    Raises:
        OptionError: If there is no such file.
    """
    try:
        with archive.unpacked(pack) as root:
            examined = Examination(sha256_of(pack))
            _examine(examined, manifest.read(pack, root), root)
    except PackError as caught:
        return Examination(sha256_of(pack), caught.found)
    return examined


def opened(pack: Path) -> Results:
    """Return the frames of the runs in a pack whose hashes hold. Figures and records are left to `vla-bench verify`.

    Raises:
        OptionError: If there is no such file.
        PackError: If it is no untouched pack.
    """
    with archive.unpacked(pack) as root:
        examined = Examination("")
        _read(examined, manifest.read(pack, root), root)
        if examined.found:
            raise PackError(pack, examined.found)
        return load(root / "runs")


def sha256_of(path: Path) -> str:
    """Return the hash of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _examine(examined: Examination, said: dict[str, Any], root: Path) -> None:
    files = _read(examined, said, root)
    examined.checked.append(f"{len(files)} files: sizes and SHA-256")
    if not examined.runs:
        return
    examined.found += manifest.wrong_words(said, files, examined.runs)
    for run in examined.runs:
        examined.found += [f"{run.name}: {one}" for one in broken(run)]
        examined.remarks += [f"{run.name}: {one}" for one in _remarks(run)]
    n_records, n_queries = _counts(examined.runs)
    examined.checked.append(f"{n_records} records with {n_queries} queries: {N_RULES} rules that honest runs keep")
    wrong, n_figures = claims.differences(root)
    examined.found += wrong
    examined.checked.append(f"{n_figures} figures: computed anew from the records")
    if said["vla_bench"] != __version__:
        remark = f"packed by vla-bench {said['vla_bench']}, verified by {__version__}: other versions may have other"
        examined.remarks.append(f"{remark} columns, rules or divisions")


def _read(examined: Examination, said: dict[str, Any], root: Path) -> dict[str, bytes]:
    """Check the hashes, read all runs, and return the files; without one of the runs there are none."""
    files = manifest.contents(root)
    examined.found += manifest.wrong_files(said, files)
    names = sorted({name.split("/")[1] for name in files if name.startswith("runs/")})
    read = [runs.read(root / "runs" / name, name) for name in names]
    wrong = [one.replace(f"{root}/", "") for _, found in read for one in found]
    examined.found += wrong
    examined.runs += [] if wrong else [run for run, _ in read if run is not None]
    return files


def broken(run: PackedRun) -> Iterator[str]:
    """Yield every rule of honest runs that a run breaks, with what was found."""
    for record in run.records:
        yield from (f"{episode_rules.place(record)}: {one}" for one in episode_rules.broken(record))
    for rule in run_rules.RULES:
        yield from rule(run)
    yield from order_rules.broken(run)


def _remarks(run: PackedRun) -> Iterator[str]:
    if run.is_dirty:
        yield f"made on uncommitted changes ({', '.join(run.commits)}): nobody else has this code"
    if run.resolved is None:
        yield (
            f"{run.plan['suite']} is not installed here as it was played (suite, protocol or tasks): horizons, starts "
            f"and the order of turns were not checked"
        )
    planned = run.plan["episodes"] * len(run.plan["tasks"]) * len(run.plan["methods"])
    latest = journal.latest(run.records)
    if len(latest) < planned:
        yield f"{len(latest)} of {planned} planned episodes were played"
    if n_errors := sum(record.is_broken for record in latest):
        yield f"{n_errors} episodes ended in an error and are in no rate"


def _counts(found: list[PackedRun]) -> tuple[int, int]:
    records = [record for run in found for record in run.records]
    return len(records), sum(len(record.queries) for record in records)
