"""What a pack says of itself: everything in it is computed from its files, but for the words of who made it."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vla_bench import __version__, journal, provenance
from vla_bench.submission import layout
from vla_bench.submission.archive import PackError
from vla_bench.submission.runs import PackedRun
from vla_bench.submission.shapes import misfits, short

SCHEMA = 1

SHAPE: dict[str, Any] = {
    "schema": int,
    "vla_bench": str,
    "title": str,
    "contact": str,
    "notes": str,
    "claims": dict[str, str],
    "runs": dict[str, dict[str, Any]],
    "files": dict[str, dict[str, Any]],
}

ABSOLUTE = re.compile(r"(?<![\w.~/\\-])~?(?:/[\w.@+~-]+){2,}")
"""A path of two or more parts from the root or a home, in any text; not what follows a word, as in `GPU/PCIe/SSE2`."""


@dataclass(frozen=True)
class Label:
    """What somebody writes on a pack; nobody checks it."""

    title: str = ""
    contact: str = ""
    notes: str = ""


def composed(
    label: Label, files: Mapping[str, bytes], runs: Sequence[PackedRun], version: str = __version__
) -> dict[str, Any]:
    """Return the manifest of these files, itself excluded."""
    return {
        "schema": SCHEMA,
        "vla_bench": version,
        **asdict(label),
        "claims": {name: layout.MEANINGS[name] for name in sorted(files) if name.startswith("claims/")},
        "runs": {run.name: _about(run, files) for run in sorted(runs, key=lambda run: run.name)},
        "files": {
            name: {
                "is": layout.meaning(name),
                "size_bytes": len(files[name]),
                "sha256": hashlib.sha256(files[name]).hexdigest(),
            }
            for name in sorted(files)
        },
    }


def encoded(manifest: Mapping[str, Any]) -> bytes:
    """Return the bytes of the file."""
    return (json.dumps(manifest, indent=2) + "\n").encode()


def read(pack: Path, root: Path) -> dict[str, Any]:
    """Return the manifest of an unpacked pack, every value of the kind it should be; nothing in it is believed.

    Raises:
        PackError: If it cannot be read, or was written in a form that this version does not know.
    """
    try:
        found = json.loads((root / layout.MANIFEST).read_bytes())
    except (ValueError, RecursionError) as caught:
        raise PackError(pack, [f"{layout.MANIFEST} is no JSON ({type(caught).__name__}: {caught})"]) from caught
    if not isinstance(found, dict):
        raise PackError(pack, [f"{layout.MANIFEST} is {short(found)}; expected an object"])
    if found.get("schema") != SCHEMA:
        known = f"this vla-bench {__version__} reads {SCHEMA}, verify with the version that the pack names"
        raise PackError(pack, [f"{layout.MANIFEST} has schema {short(found.get('schema'))}; {known}"])
    if wrong := misfits(found, SHAPE) + [f"{name!r} is unknown" for name in found if name not in SHAPE]:
        raise PackError(pack, [f"{layout.MANIFEST}: {one}" for one in wrong])
    return found


def contents(root: Path) -> dict[str, bytes]:
    """Return the files of an unpacked pack, the manifest excluded."""
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    names = {path.relative_to(root).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if name != layout.MANIFEST}


def wrong_files(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Iterator[str]:
    """Yield every file whose size or hash is not what the manifest says, or that only one of both knows."""
    listed = manifest["files"]
    yield from (f"{name!r} is in the pack and not in {layout.MANIFEST}" for name in files if name not in listed)
    for name, said in listed.items():
        if name not in files:
            yield f"{name!r} is in {layout.MANIFEST} and not in the pack"
            continue
        digest = hashlib.sha256(files[name]).hexdigest()
        found = {"is": layout.meaning(name), "size_bytes": len(files[name]), "sha256": digest}
        for key in dict.fromkeys([*found, *said]):
            if said.get(key) != found.get(key):
                yield f"{name!r}: {key} is {short(found.get(key))}, {layout.MANIFEST} says {short(said.get(key))}"


def wrong_words(manifest: Mapping[str, Any], files: Mapping[str, bytes], runs: Sequence[PackedRun]) -> Iterator[str]:
    """Yield what the manifest says of claims and runs otherwise than the files; all runs must have been read."""
    expected = _flat(composed(Label(), files, runs))
    claimed = _flat(manifest)
    for name in dict.fromkeys([*expected, *claimed]):
        if expected.get(name) != claimed.get(name):
            found = f"the files say {short(expected.get(name))}"
            yield f"{layout.MANIFEST} says of {name} {short(claimed.get(name))}; {found}"


def _flat(manifest: Mapping[str, Any]) -> dict[str, Any]:
    runs = {f"run {run!r}, {key}": value for run, about in manifest["runs"].items() for key, value in about.items()}
    return {repr(name): said for name, said in manifest["claims"].items()} | runs


def _about(run: PackedRun, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what somebody wants to know before unpacking: what was played, by which code, and what it gives away."""
    text = "".join(
        files[layout.run_file(run.name, name)].decode(errors="replace") for name in (journal.NAME, provenance.NAME)
    )
    specs = [run.plan["policy"], *run.plan["methods"]]
    named = {piece for spec in specs for piece in re.split(r"[:,=+]", spec) if "/" in piece}
    return {
        "suite": run.plan["suite"],
        "policy": run.plan["policy"],
        "policy_fingerprint": run.conditions["policy"],
        "methods": run.plan["methods"],
        "commits": run.commits,
        "dirty": run.is_dirty,
        "local_paths": sorted(named | set(ABSOLUTE.findall(text))),
    }
