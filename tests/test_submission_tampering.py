"""Whatever is changed in a pack is found, by its hashes, its figures, the rules of honest runs, or a replay."""

import hashlib
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from test_submission import COMMIT, PLAN, SMALL, content, packed, play, quickly

from vla_bench import RunPlan, journal, provenance
from vla_bench.submission import PackError, archive, claims, examine, opened, runs, submit
from vla_bench.submission.manifest import Label, composed, encoded

Files = dict[str, bytes]
Records = list[dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def _quickly() -> Iterator[None]:
    with quickly():
        yield


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pack of two methods on two tasks; not to be changed."""
    return packed(tmp_path_factory.mktemp("pack"), PLAN)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pack of two episodes; not to be changed."""
    return packed(tmp_path_factory.mktemp("small"), SMALL)


def journal_of(files: Files) -> str:
    return next(name for name in files if name.endswith(journal.NAME))


def with_records(files: Files, change: Callable[[Records], Any]) -> Files:
    """Return the files with another journal, and nothing else changed."""
    records = [json.loads(line) for line in files[journal_of(files)].splitlines()]
    changed = change(records)
    lines = [json.dumps(record, separators=(",", ":")) for record in (records if changed is None else changed)]
    return files | {journal_of(files): "".join(f"{line}\n" for line in lines).encode()}


def rehashed(files: Files) -> Files:
    """Return the files with a manifest whose sizes and hashes are right."""
    manifest = json.loads(files["manifest.json"])
    for name, said in manifest["files"].items():
        said |= {"size_bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
    return files | {"manifest.json": encoded(manifest)}


def forged(files: Files) -> Files:
    """Return the files with figures and manifest that follow from the records, as a careful forger would make them."""
    rest = {name: file for name, file in files.items() if name.startswith("runs/")}
    with TemporaryDirectory() as directory:
        root = Path(directory)
        for name, file in rest.items():
            archive.write(root / name, file)
        rest |= {name: text.encode() for name, text in claims.computed(root).items()}
        read = [runs.read(path, path.name)[0] for path in sorted((root / "runs").iterdir())]
    return rest | {"manifest.json": encoded(composed(Label(), rest, read))}


def found_in(path: Path, files: Files) -> list[str]:
    path.write_bytes(archive.packed(files))
    return examine(path).found


def at_first(ended: str, /, **change: Any) -> Callable[[Records], None]:
    """Return a change of the first episode of `full` that ended so."""

    def apply(records: Records) -> None:
        next(one for one in records if one["method"] == "full" and one["outcome"] == ended).update(change)

    return apply


def times(factor: float) -> Callable[[Records], None]:
    """Return a change of one policy time."""

    def apply(records: Records) -> None:
        records[-1]["queries"]["policy_ms"][-1] *= factor

    return apply


def method_renamed(records: Records) -> None:
    for record in records:
        record["method"] = record["method"].replace("action-reuse:2", "action-reuse:4")


def unlike_warmup(records: Records) -> None:
    for record in records:
        record["queries"]["is_warmup"] = [True for _ in record["queries"]["is_warmup"]]


TAMPERED: dict[str, tuple[Callable[[Records], Any], str, str]] = {
    "a failure becomes a success": (
        at_first("timeout", outcome="success"),
        "'full', column 'success': claimed '0.8', recomputed '0.9'",
        "",
    ),
    "a success becomes a failure": (
        at_first("success", outcome="timeout"),
        "'full', column 'success': claimed '0.8', recomputed '0.7'",
        "steps; the horizon is 12",
    ),
    "more steps": (
        at_first("success", n_steps=12),
        "column 'steps_to_success'",
        "expected that n_steps is what its queries executed",
    ),
    "an episode is deleted": (
        lambda records: records[:4] + records[5:],
        "column 'episodes': claimed '10', recomputed '9'",
        "is missing, later ones were played",
    ),
    "an episode is added": (
        lambda records: [*records, records[-1]],
        "is out of turn",  # of two equal episodes the latest counts: no figure changes
        "expected attempt 2",
    ),
    "an episode of no plan is added": (
        lambda records: [*records, records[-1] | {"cell": {"task": 2, "init_state": 0, "seed": 4}}],
        "column 'episodes'",
        "is not in the plan",
    ),
    "two episodes are swapped": (
        lambda records: [records[1], records[0], *records[2:]],
        "is out of turn",
        "takes 2 sessions, the provenance knows 1",
    ),
    "a query is faster": (times(1e-3), "column 'policy_ms_per_success'", ""),
    "a query is slower": (times(1e3), "column 'policy_ms_per_success'", "step_ms holds observe_ms and policy_ms"),
    "a stage takes longer than its query": (
        lambda records: records[0]["queries"]["stages_ms"][0].update(all=5.0),
        "expected that stages_ms add up to at most policy_ms",
        "'all': 5.0",
    ),
    "a method is renamed": (
        method_renamed,
        "'action-reuse:4' is in the records and not claimed",
        "its method is 'action-reuse:4'; expected 'full' or 'action-reuse:2'",
    ),
    "queries are called warm-up": (unlike_warmup, "column 'timed_queries'", "1 sessions have 20 each"),
    "another initial state": (
        lambda records: records[0].update(init_state_sha256=64 * "0"),
        "began from state",
        "no figure can be computed: these runs cannot stand in one comparison",
    ),
    "a method is called exact": (
        lambda records: [one | {"division": "exact"} for one in records],
        "column 'division': claimed 'lossy', recomputed 'exact'",
        "'action-reuse:2': its division is 'exact'; here it is 'lossy'",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_changed_journal_is_found_even_if_hashes_and_figures_are_made_to_match(
    name: str, pack: Path, tmp_path: Path
) -> None:
    change, by_figures, by_rules = TAMPERED[name]
    files = with_records(content(pack), change)
    (tmp_path / "careless.zip").write_bytes(archive.packed(files))
    with pytest.raises(PackError, match=r"sha256 is '[0-9a-f]{64}', "):
        opened(tmp_path / "careless.zip")
    second = found_in(tmp_path / "rehashed.zip", rehashed(files))
    assert not [one for one in second if "sha256 is" in one]
    assert any(by_figures in one for one in second), second
    if name == "another initial state":  # no figure follows from such records
        assert any(by_rules in one for one in second)
        return
    third = found_in(tmp_path / "forged.zip", forged(files))
    assert not [one for one in third if one.startswith("claims/")]
    assert any(by_rules in one for one in third) if by_rules else third == []


def test_another_claim_is_named_with_column_and_row(pack: Path, tmp_path: Path) -> None:
    files = content(pack)
    rows = files["claims/summary.csv"].decode().splitlines()
    cells = rows[2].split(",")
    cells[rows[0].split(",").index("success")] = "0.95"
    files["claims/summary.csv"] = "\n".join([rows[0], rows[1], ",".join(cells), rows[1], ""]).encode()
    found = found_in(tmp_path / "edited.zip", rehashed(files))
    assert found == [
        "claims/summary.csv: row 'toy@1' / 'toy' / 'full' stands in it more than once",
        "claims/summary.csv: row 'toy@1' / 'toy' / 'action-reuse:2', column 'success': claimed '0.95', "
        "recomputed '0.8'",
    ]
    for text in (b"", b"\xff", b'a,"b', b"suite,policy,method\n", 10**6 * b"a"):
        assert found_in(tmp_path / "edited.zip", rehashed(files | {"claims/summary.csv": text}))


def test_a_comparison_that_no_record_supports_is_refused(small: Path, pack: Path, tmp_path: Path) -> None:
    claimed = content(pack)["claims/comparison.csv"]
    found = found_in(tmp_path / "more.zip", content(small) | {"claims/comparison.csv": claimed})
    assert "claims/comparison.csv is claimed; the records hold no reference with another method" in found
    left_out = {name: file for name, file in content(pack).items() if name != "claims/comparison.csv"}
    found = found_in(tmp_path / "less.zip", left_out)
    assert "claims/comparison.csv: row 'toy@1' / 'toy' / 'full' is in the records and not claimed" in found


def test_a_swapped_journal_is_found(tmp_path: Path) -> None:
    plans = [RunPlan(**{**vars(SMALL), "seed": seed}) for seed in (0, 1)]
    for plan in plans:
        play(tmp_path, plan)
    submit((tmp_path,), tmp_path / "pack.zip")
    files = content(tmp_path / "pack.zip")
    one, other = (f"runs/{plan.resolve().id}/{journal.NAME}" for plan in plans)
    swapped = files | {one: files[other], other: files[one]}
    assert sum("sha256 is" in found for found in found_in(tmp_path / "swapped.zip", swapped)) == 2
    found = found_in(tmp_path / "swapped.zip", forged(swapped))
    assert sum("is not in the plan" in one for one in found) == 4


def test_provenance_that_contradicts_itself_is_found(small: Path, tmp_path: Path) -> None:
    files = content(small)
    name = next(name for name in files if name.endswith(provenance.NAME))
    changes: list[tuple[Callable[[dict], Any], str]] = [
        (lambda found: found["plan"].update(episodes=1), "the run is called"),
        (lambda found: found["plan"]["protocol"].update(image_size=9), "of its content it would be"),
        (lambda found: found["conditions"].update(protocol="other"), "the conditions name the protocol"),
        (lambda found: found["conditions"].update(processor="other"), "the conditions say 'other'"),
        (lambda found: found["sessions"].clear(), "'sessions' is empty"),
        (lambda found: found["sessions"].append(found["sessions"][0] | {"started": "1999"}), "in the order of time"),
        (lambda found: found["sessions"][0].update(commit=f"{COMMIT}-dirty"), "says of run"),
    ]
    for change, said in changes:
        found = json.loads(files[name])
        change(found)
        wrong = found_in(tmp_path / "edited.zip", rehashed(files | {name: json.dumps(found).encode()}))
        assert any(said in one for one in wrong), (said, wrong)


def leaves(item: Any, way: tuple = ()) -> list[tuple]:
    """Return the way to every value inside, containers included."""
    inside = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    return [way, *(place for key, one in inside for place in leaves(one, (*way, key)))]


def replaced(item: Any, way: tuple, value: Any) -> Any:
    item = deepcopy(item)
    if not way:
        return value
    parent = item
    for key in way[:-1]:
        parent = parent[key]
    parent[way[-1]] = value
    return item


NASTY = (None, True, -1, 1.5, 1e300, float("nan"), 10**30, "x", "\ud800", "/", [], {}, [[]], {"x": []})


@pytest.mark.parametrize("file", ["manifest.json", provenance.NAME, journal.NAME])
def test_no_value_in_a_file_makes_it_crash(
    file: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    differences = claims.differences
    monkeypatch.setattr(claims, "differences", lambda root: differences(root) if rng.random() < 0.1 else ([], 0))
    files = content(small)
    name = next(name for name in files if name.endswith(file))
    lines = files[name].splitlines() if file == journal.NAME else [files[name]]
    whole = json.loads(lines[0])
    rng = np.random.default_rng(0)
    for way in leaves(whole):
        for value in rng.choice(np.array(NASTY, dtype=object), 2):
            edited = json.dumps(replaced(whole, way, value)).encode()
            changed = files | {name: b"\n".join([edited, *lines[1:], b""])}
            found_in(tmp_path / "edited.zip", changed if file == "manifest.json" else rehashed(changed))


@pytest.mark.parametrize("text", [10**5 * b"[", b'{"a":' + 10**5 * b"[", b"", b"null", b"[1]", b"\xff", b'{"suite":1}'])
def test_no_text_in_a_file_makes_it_crash(text: bytes, small: Path, tmp_path: Path) -> None:
    for name in content(small):
        if not name.startswith("claims/"):
            assert found_in(tmp_path / "edited.zip", content(small) | {name: text + b"\n"})


def test_another_schema_is_not_guessed_at(small: Path, tmp_path: Path) -> None:
    files = content(small)
    changed = json.loads(files["manifest.json"]) | {"schema": 2}
    (found,) = found_in(tmp_path / "pack.zip", files | {"manifest.json": encoded(changed)})
    assert found.startswith("manifest.json has schema 2; this vla-bench 0.1.0 reads 1")
