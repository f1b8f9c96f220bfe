"""A pack holds what others need to check results, and nothing that nobody can check."""

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from toy import ToyPolicy, ToySuite

import vla_bench
from vla_bench import RunPlan, cli, journal, provenance, registry, stats, tables
from vla_bench.compare import compare_df
from vla_bench.errors import MixedRunsError, NoResultsError, OptionError, RunAbortedError, RunLockedError
from vla_bench.merge import merge
from vla_bench.parallel.crew import CrewOptions
from vla_bench.runner import run
from vla_bench.submission import Evidence, Label, PackError, evidence_of, examine, opened, runs, submit, verify
from vla_bench.submission.evidence import receipt_of
from vla_bench.submission.examination import broken, sha256_of
from vla_bench.submission.manifest import ABSOLUTE
from vla_bench.submission.packing import UnfitRunsError
from vla_bench.submission.runs import PackedRun

PLAN = RunPlan("toy@1", "toy:1", ("full", "action-reuse:2"), episodes=5, tasks=(0, 2))
SMALL = RunPlan("toy@1", "toy:3", ("full",), episodes=2, tasks=(0,))
ALONE = RunPlan("toy@1", "toy:1", ("action-reuse:2",), episodes=1)
COMMIT = 40 * "c"


@pytest.fixture(scope="module", autouse=True)
def _quickly() -> Iterator[None]:
    with quickly():
        yield


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory that holds one run."""
    return play(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def pack(played: Path) -> Path:
    """Return a pack of that run; not to be changed."""
    submit((played,), played / "pack.zip", Label("toys", "somebody", "none"))
    return played / "pack.zip"


@pytest.fixture
def copy(pack: Path, tmp_path: Path) -> Path:
    """Return a copy of the pack beside which a receipt may be written."""
    path = tmp_path / "copy.zip"
    path.write_bytes(pack.read_bytes())
    return path


@pytest.fixture
def suite() -> Iterator[ToySuite]:
    """Return a toy suite that a test may break."""
    with own_suite() as own:
        yield own


@contextmanager
def own_suite() -> Iterator[ToySuite]:
    """Install a toy suite of its own while inside."""
    own = ToySuite("toy-submitted@1")
    vla_bench.register("suite", own.name, own)
    yield own
    registry._registered.pop(("suite", own.name), None)
    registry.suites.cache_clear()


@contextmanager
def quickly(resampled: Callable = stats._resampled) -> Iterator[None]:
    """Leave out what takes seconds while inside; and one commit, whatever happens to this checkout meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        patch.setattr(stats, "_resampled", lambda n, rng, resamples: resampled(n, rng, 20))
        patch.setattr(registry, "_installed", cache(registry._installed))
        patch.setattr(provenance, "commit", lambda: COMMIT)
        yield


def play(results: Path, plan: RunPlan = PLAN) -> Path:
    """Play a plan as the command line does, in a directory of its own, and return the directory of both."""
    run(plan.resolve(), results / plan.resolve().id)
    return results


def packed(results: Path, plan: RunPlan = PLAN) -> Path:
    """Play a plan, and return the pack of it."""
    submit((play(results, plan),), results / "pack.zip", Label("toys", "somebody", "none"))
    return results / "pack.zip"


def read(results: Path, plan: RunPlan = PLAN) -> PackedRun:
    found, wrong = runs.read(results / plan.resolve().id, plan.resolve().id)
    assert not wrong
    return found


def content(pack: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(pack) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def manifest_of(pack: Path) -> dict:
    return json.loads(content(pack)["manifest.json"])


def test_an_honest_pack_verifies_with_its_figures_and_all_of_its_episodes_replay(copy: Path) -> None:
    done = verify(copy, n_replayed=99)
    assert done.found == done.remarks == []
    assert done.evidence is evidence_of(copy) is Evidence.REPLAYED
    assert [episode["result"] for episode in done.replay.episodes] == 20 * ["as recorded"]
    assert done.examination.checked[0] == "4 files: sizes and SHA-256"


def test_a_pack_claims_what_the_table_and_the_comparison_say(played: Path, pack: Path) -> None:
    files = content(pack)
    results = tables.read(played)
    assert files["claims/summary.csv"].decode() == tables.summarise(results).to_csv(index=False)
    assert files["claims/comparison.csv"].decode() == compare_df(results).to_csv(index=False)
    (name,) = manifest_of(pack)["runs"]
    assert files[f"runs/{name}/{journal.NAME}"] == (played / name / journal.NAME).read_bytes()


def test_without_a_reference_nothing_is_compared(tmp_path: Path) -> None:
    play(tmp_path, ALONE)
    play(tmp_path, RunPlan("toy@1", "toy:2", ("full",), episodes=1, tasks=(0,)))
    with pytest.raises(MixedRunsError, match="policy: toy-1"):  # one name, two policies
        submit((tmp_path,), tmp_path / "pack.zip")
    submit((tmp_path / ALONE.resolve().id,), tmp_path / "pack.zip")
    assert "claims/comparison.csv" not in content(tmp_path / "pack.zip")
    assert examine(tmp_path / "pack.zip").found == []


def test_the_same_runs_make_the_same_bytes(tmp_path: Path) -> None:
    one, other = (RunPlan("toy@1", "toy:1", ("full",), episodes=1, seed=seed) for seed in (0, 1))
    for name in ("one", "other"):
        play(tmp_path / name, one)
    play(tmp_path / "one", other)
    (tmp_path / "moved").mkdir()
    (tmp_path / "one" / other.resolve().id).rename(tmp_path / "moved" / "renamed")
    sources = (tmp_path / "one", tmp_path / "other", tmp_path / "moved" / "renamed")
    for number, order in enumerate((sources, sources[::-1], (sources[1], *sources))):
        submit(order, tmp_path / f"{number}.zip")
    packs = [(tmp_path / f"{number}.zip").read_bytes() for number in range(3)]
    assert packs[0] == packs[1] == packs[2]
    first, second = (plan.resolve().id for plan in (one, other))
    assert set(manifest_of(tmp_path / "0.zip")["runs"]) == {first, f"{first}~2", second}


def test_a_pack_is_read_like_the_runs_in_it(played: Path, pack: Path) -> None:
    for name in ("runs", "episodes", "queries"):
        for read in (opened(pack), tables.read(pack)):
            pd.testing.assert_frame_equal(getattr(read, name), getattr(tables.read(played), name))


@pytest.mark.parametrize("way", ["workers", "shards", "realtime"])
def test_runs_of_other_ways_to_play_verify(way: str, tmp_path: Path) -> None:
    """Several workers and parts keep no order; a run with latency in the loop is examined, and not replayed."""
    results = tmp_path / "results"
    if way == "workers":
        plan = replace(PLAN, timed=False).resolve()
        run(plan, results / plan.id, crew=CrewOptions(2))
    elif way == "shards":
        plan = PLAN.resolve()
        for index in (1, 2):
            run(plan, tmp_path / f"part{index}", shard=(index, 2))
        merge((tmp_path / "part1", tmp_path / "part2"), results / plan.id)
    else:
        plan = replace(PLAN, realtime="70", waiting="continue").resolve()
        run(plan, results / plan.id)
    submit((results,), tmp_path / "pack.zip", Label("toys", "somebody", "none"))
    done = verify(tmp_path / "pack.zip", n_replayed=4)
    assert done.found == []
    assert {one["result"] for one in done.replay.episodes} == {"not played" if way == "realtime" else "as recorded"}


def test_a_run_in_flight_is_refused(tmp_path: Path) -> None:
    directory = play(tmp_path, ALONE) / ALONE.resolve().id
    with journal.writing(directory), pytest.raises(RunLockedError, match="is being written by another process"):
        submit((tmp_path,), tmp_path / "pack.zip")
    assert not (tmp_path / "pack.zip").exists()
    submit((tmp_path,), tmp_path / "pack.zip")  # free again


def test_a_last_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    path = play(tmp_path, ALONE) / ALONE.resolve().id / journal.NAME
    submit((tmp_path,), tmp_path / "whole.zip")
    path.write_bytes(path.read_bytes() + b'{"suite": "to')
    submit((tmp_path,), tmp_path / "cut.zip")
    assert (tmp_path / "cut.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()


@pytest.mark.parametrize("n_queries", [0, 3, 40, 41])
def test_runs_that_were_interrupted_verify(n_queries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter(range(10**6))

    def act_and_stop(policy: ToyPolicy, obs: dict, act=ToyPolicy.act):
        if next(asked) in (n_queries + 10, 2 * n_queries + 40):
            raise KeyboardInterrupt
        return act(policy, obs)

    monkeypatch.setattr(ToyPolicy, "act", act_and_stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            play(tmp_path)
        assert 0 < len(read(tmp_path).records) < 20
        assert list(broken(read(tmp_path))) == []
    play(tmp_path)
    assert len(read(tmp_path).sessions) == 3
    assert list(broken(read(tmp_path))) == []


def test_runs_with_errors_and_their_retries_verify(tmp_path: Path, suite: ToySuite) -> None:
    plan = RunPlan(**{**vars(PLAN), "suite": suite.name})
    suite.raises_at = {(2, index) for index in range(5)}
    with pytest.raises(RunAbortedError):
        play(tmp_path, plan)
    assert list(broken(read(tmp_path, plan))) == []
    suite.raises_at = {(2, 1), (2, 3)}
    play(tmp_path, plan)
    submit((tmp_path,), tmp_path / "pack.zip")
    done = examine(tmp_path / "pack.zip")
    assert done.found == []
    assert "4 episodes ended in an error" in done.remarks[-1]
    suite.raises_at = set()
    play(tmp_path, plan)
    assert list(broken(read(tmp_path, plan))) == []
    assert {record.attempt for record in read(tmp_path, plan).records} == {1, 2, 3}


def test_runs_that_only_ended_in_errors_are_packed_without_figures(tmp_path: Path, suite: ToySuite) -> None:
    suite.raises_at = {(0, 0)}
    play(tmp_path, RunPlan(suite.name, "toy:1", ("full", "action-reuse:2"), episodes=1, tasks=(0,)))
    submit((tmp_path,), tmp_path / "pack.zip")
    assert examine(tmp_path / "pack.zip").found == []


def test_what_would_not_verify_is_not_packed(tmp_path: Path) -> None:
    path = play(tmp_path) / PLAN.resolve().id / journal.NAME
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises(UnfitRunsError) as caught:
        submit((tmp_path,), tmp_path / "pack.zip")
    assert str(caught.value).startswith("these results would be refused by 'vla-bench verify': ")
    assert "is missing, later ones were played" in str(caught.value)
    assert not (tmp_path / "pack.zip").exists()


def test_sources_without_runs_are_named(tmp_path: Path, played: Path) -> None:
    for source, message in ((tmp_path, "is no run and holds none"), (tmp_path / "nowhere", "does not exist")):
        with pytest.raises(NoResultsError, match=message):
            submit((source,), tmp_path / "pack.zip")
    with pytest.raises(OptionError, match="a name that ends in"):
        submit((played,), tmp_path / "pack.tar")


def test_code_that_was_not_committed_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "commit", lambda: f"{COMMIT}-dirty")
    play(tmp_path, ALONE)
    assert cli.main(["submit", str(tmp_path), "--out", str(tmp_path / "pack.zip")]) == 0
    assert "made on uncommitted changes" in capsys.readouterr().out
    assert [about["dirty"] for about in manifest_of(tmp_path / "pack.zip")["runs"].values()] == [True]
    assert cli.main(["verify", str(tmp_path / "pack.zip")]) == 0
    assert "nobody else has this code" in capsys.readouterr().out


def test_local_paths_are_told_and_no_others_get_in(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    vla_bench.register("policy", "toy-heavy", lambda weights: ToyPolicy(1))
    weights = "/home/somebody/weights/toy.bin"
    play(tmp_path, RunPlan("toy@1", f"toy-heavy:{weights}", ("full",), episodes=1))
    assert cli.main(["submit", str(tmp_path), "--out", str(tmp_path / "pack.zip")]) == 0
    said = capsys.readouterr().out
    assert said.count("the pack names the local path") == 1
    assert said.endswith(f"{weights}\n")
    assert all(str(tmp_path).encode() not in file for file in content(tmp_path / "pack.zip").values())


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("reference:/home/me/w.safetensors,device=cuda", ["/home/me/w.safetensors"]),
        ("no such file: '/mnt/data/x' or ~/y/z", ["/mnt/data/x", "~/y/z"]),
        ("NVIDIA/PCIe/SSE2, 4.5 / Mesa, https://host/page, 3/4", []),
    ],
)
def test_local_paths_are_recognised(text: str, paths: list[str]) -> None:
    assert ABSOLUTE.findall(text) == paths


def test_the_commands_say_what_they_found(copy: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["verify", str(copy), "--replay", "3"]) == 0
    said = capsys.readouterr().out
    assert said.count(": as recorded") == 3
    assert f"replayed with --seed {int(sha256_of(copy)[:8], 16)}" in said
    assert "evidence: replayed" in said
    for wrong in (["--replay", "-1"], ["--seed", "-1"]):
        assert cli.main(["verify", str(copy), *wrong]) == 2
    assert cli.main(["verify", str(copy.parent / "nowhere.zip")]) == 2
    assert "a file that 'vla-bench submit' wrote" in capsys.readouterr().err


def test_a_receipt_says_what_was_done(copy: Path) -> None:
    verify(copy, n_replayed=2, seed=7)
    receipt = json.loads(receipt_of(copy).read_text())
    assert receipt_of(copy).name == "copy.zip.receipt.json"
    assert receipt["replay"]["seed"] == 7
    assert len(receipt["replay"]["episodes"]) == receipt["replay"]["asked"] == 2
    assert {"evidence", "found", "checked", "time", "packages", "machine"} <= set(receipt)


def test_a_receipt_is_believed_of_its_own_pack_only(copy: Path, tmp_path: Path) -> None:
    assert evidence_of(copy) is Evidence.SELF_REPORTED
    verify(copy)
    assert evidence_of(copy) is Evidence.RECOMPUTED
    receipt = json.loads(receipt_of(copy).read_text())
    other = tmp_path / "other.zip"
    other.write_bytes(b"another pack")
    receipt_of(other).write_text(json.dumps(receipt))
    assert evidence_of(other) is Evidence.SELF_REPORTED
    for wrong in ({"evidence": "certain"}, {"found": ["one"]}, {"pack_sha256": None}):
        receipt_of(copy).write_text(json.dumps(receipt | wrong))
        assert evidence_of(copy) is Evidence.SELF_REPORTED
    for text in ("", "[]", "null", "\udcff", 10**5 * "["):
        receipt_of(copy).write_bytes(text.encode(errors="surrogateescape"))
        assert evidence_of(copy) is Evidence.SELF_REPORTED
    assert evidence_of(tmp_path) is evidence_of(tmp_path / "nowhere") is Evidence.SELF_REPORTED


def test_a_pack_that_is_refused_loses_its_receipt(copy: Path) -> None:
    verify(copy)
    copy.write_bytes(copy.read_bytes()[:-1])
    assert cli.main(["verify", str(copy)]) == 1
    assert json.loads(receipt_of(copy).read_text())["evidence"] == "self-reported"
    assert evidence_of(copy) is Evidence.SELF_REPORTED


def test_the_message_of_a_pack_that_cannot_be_read() -> None:
    assert str(PackError("a.zip", ["one", "two"])) == (
        "a.zip cannot be read as a pack: one; two: ask for an untouched copy, or make it again with 'vla-bench submit'"
    )
