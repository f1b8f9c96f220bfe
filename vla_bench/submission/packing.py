"""From directories of runs to a pack."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vla_bench import journal, provenance
from vla_bench.errors import NoResultsError, OptionError, RunLockedError, VlaBenchError
from vla_bench.submission import archive, claims, layout, manifest, runs
from vla_bench.submission.examination import broken
from vla_bench.submission.manifest import Label
from vla_bench.submission.runs import PackedRun

SUFFIX = ".zip"
BLANK = Label()


class UnfitRunsError(VlaBenchError):
    """Refuse to pack what `vla-bench verify` would refuse."""

    def __init__(self, found: list[str]) -> None:
        super().__init__(
            f"these results would be refused by 'vla-bench verify': {'; '.join(found)}: submit directories as "
            f"'vla-bench run' wrote them, one plan each"
        )


@dataclass(frozen=True)
class _Gathered:
    """The files of one run, read while nobody writes to it."""

    run: PackedRun
    files: dict[str, bytes]


def submit(sources: tuple[Path, ...], out: Path, label: Label = BLANK) -> dict[str, Any]:
    """Pack runs into one file and return its manifest; what would not verify is not packed.

    The same runs and words make the same bytes, in whatever order and from whatever directories they are given.

    Raises:
        OptionError: If `out` does not end in `.zip`.
        NoResultsError: If a source holds no run, or a run no episode.
        RunLockedError: If a run is still being played.
        MixedRunsError: If the runs cannot stand in one table.
        UnfitRunsError: If they cannot be read, or are not as the harness writes them.
        PackError: If they are more than a pack may hold.
        ResultsWriteError: If the pack cannot be written.
    """
    if out.suffix != SUFFIX:
        raise OptionError("--out", str(out), f"a name that ends in {SUFFIX}")
    gathered = _named([_gather(directory) for directory in _directories(sources)])
    if found := [f"{one.run.name}: {rule}" for one in gathered for rule in broken(one.run)]:
        raise UnfitRunsError(found)
    files = {layout.run_file(one.run.name, name): content for one in gathered for name, content in one.files.items()}
    with TemporaryDirectory(prefix="vla-bench-submit-") as directory:
        root = Path(directory)
        for name, content in files.items():
            archive.write(root / name, content)
        files |= {name: text.encode() for name, text in claims.computed(root).items()}
        made = manifest.composed(label, files, [one.run for one in gathered])
        content = archive.packed(files | {layout.MANIFEST: manifest.encoded(made)})
        archive.write(root / out.name, content)
        with archive.unpacked(root / out.name):  # a pack that is too large to be verified is none
            archive.write(out, content)
    return made


def _directories(sources: tuple[Path, ...]) -> list[Path]:
    """Return the directories of runs, each once."""
    found: list[Path] = []
    for source in sources:
        journals = [path for place in ("", "*/") for path in sorted(source.glob(f"{place}{journal.NAME}"))]
        if not journals:
            raise NoResultsError(source, "is no run and holds none" if source.exists() else "does not exist")
        found += [path.parent for path in journals]
    return list(dict.fromkeys(path.resolve() for path in found))


def _gather(directory: Path) -> _Gathered:
    with _at_rest(directory):
        content = (directory / journal.NAME).read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # as `journal.read` drops a last line that was cut
        if not whole:
            raise NoResultsError(directory, "holds no finished episode yet")
        if not (directory / provenance.NAME).exists():
            raise NoResultsError(directory, f"holds a journal and no {provenance.NAME}")
        files = {journal.NAME: whole, provenance.NAME: (directory / provenance.NAME).read_bytes()}
        run, found = runs.read(directory, str(directory))
    if run is None:
        raise UnfitRunsError(found)
    return _Gathered(run, files)


def _named(gathered: list[_Gathered]) -> list[_Gathered]:
    """Name every run by its plan, as the harness does; of several runs of one plan, the later ones get a number."""
    ordered = sorted(gathered, key=lambda one: (one.run.plan_name, one.run.sessions[0]["started"], *one.files.values()))
    seen: dict[str, int] = {}
    named = []
    for one in ordered:
        plan_name = one.run.plan_name
        seen[plan_name] = seen.get(plan_name, 0) + 1
        name = plan_name if seen[plan_name] == 1 else f"{plan_name}~{seen[plan_name]}"
        named.append(replace(one, run=replace(one.run, name=name)))
    return named


@contextmanager
def _at_rest(directory: Path) -> Iterator[None]:
    """Hold off writers while inside, without touching the lock's file.

    Raises:
        RunLockedError: If somebody writes to the run.
    """
    path = directory / journal.LOCK
    if not path.exists():
        yield
        return
    with path.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as caught:
            raise RunLockedError(directory, stream.read().strip() or "its name is not known") from caught
        yield
