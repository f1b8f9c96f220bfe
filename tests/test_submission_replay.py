"""A replay tells what nobody can read off records: whether the episodes happen."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_submission import PLAN, SMALL, content, own_suite, packed, quickly
from test_submission_tampering import Records, at_first, forged, with_records
from toy import ToyPolicy, ToySuite

from vla_bench import RunPlan, cli, provenance, registry
from vla_bench.submission import Evidence, archive, evidence_of, examine, verify
from vla_bench.submission.replay import replay


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


@pytest.fixture(scope="module")
def improved(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pack in which one failure became a success, with figures and hashes to match; not to be changed."""
    path = tmp_path_factory.mktemp("improved") / "pack.zip"
    path.write_bytes(archive.packed(forged(with_records(content(pack), at_first("timeout", outcome="success")))))
    return path


@pytest.fixture
def suite() -> Iterator[ToySuite]:
    with own_suite() as own:
        yield own


def copied(pack: Path, directory: Path) -> Path:
    """Return a copy beside which a receipt may be written."""
    return Path(shutil.copy(pack, directory / "copy.zip"))


def test_a_forgery_that_keeps_all_rules_is_caught_by_a_replay(improved: Path, tmp_path: Path) -> None:
    path = copied(improved, tmp_path)
    assert verify(path).evidence is evidence_of(path) is Evidence.RECOMPUTED
    (found,) = verify(path, n_replayed=20).found
    assert "'full' task" in found
    assert found.endswith("played again it differs in outcome (recorded success, played timeout)")
    assert evidence_of(path) is Evidence.SELF_REPORTED
    assert cli.main(["verify", str(path), "--replay", "20"]) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path_m": 0.5}, "path_m (recorded 0.5, played "),
        ({"jerk": 0.25}, "jerk (recorded 0.25, played "),
        ({"init_state_sha256": 64 * "0"}, f"init_state_sha256 (recorded {64 * '0'}, played "),
        ({"division": "trained"}, "division (recorded trained, played exact)"),
    ],
)
def test_a_replay_compares_more_than_the_outcome(change: dict, said: str, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "forged.zip"
    path.write_bytes(archive.packed(with_records(content(small), at_first("success", **change))))
    (found,) = replay(examine(path).runs, 2, 0).found
    assert said in found


def test_a_replay_compares_the_rows_of_every_query(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "forged.zip"
    fewer = with_records(content(small), lambda records: records[0]["queries"]["rows_computed"].__setitem__(0, 5))
    path.write_bytes(archive.packed(forged(fewer)))
    (found,) = verify(path, n_replayed=2).found
    assert "rows_computed of its queries (recorded [5, 10" in found


def test_other_times_throughout_are_not_found(small: Path, tmp_path: Path) -> None:
    """Nobody can verify times from afar: this is what a pack cannot show."""

    def slower(records: Records) -> None:
        for record in records:
            record["wall_s"] *= 2
            for name in ("observe_ms", "policy_ms", "step_ms", "apply_ms"):
                record["queries"][name] = [2 * ms for ms in record["queries"][name]]

    path = tmp_path / "forged.zip"
    path.write_bytes(archive.packed(forged(with_records(content(small), slower))))
    assert verify(path, n_replayed=2).evidence is Evidence.REPLAYED


def other_physics(suite: ToySuite, monkeypatch: pytest.MonkeyPatch) -> None:
    suite.physics = "v2"


def other_weights(suite: ToySuite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyPolicy, "fingerprint", "other weights")


def no_protocol(suite: ToySuite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToySuite, "protocols", lambda suite: {})


def no_policy(suite: ToySuite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry._registered, ("policy", "toy"))


def no_suite(suite: ToySuite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry._registered, ("suite", suite.name))
    registry.suites.cache_clear()


def no_success(suite: ToySuite, monkeypatch: pytest.MonkeyPatch) -> None:
    suite.raises_at = {(0, 0), (0, 1)}


ELSEWHERE = {
    other_physics: "differ in environment physics: 'v1' against 'v2'",
    other_weights: "differ in policy: 'toy-3' against 'other weights'",
    no_protocol: "differ in the suite 'toy-submitted@1', its protocol or its tasks",
    no_suite: "is not installed here as it was played",
    no_policy: "cannot be replayed here: no policy named 'toy'",
    no_success: "could not be played: RuntimeError: the toy was told to break",
}
"""What may differ where a pack is replayed, and what is said of it."""


@pytest.mark.parametrize("differ", ELSEWHERE, ids=lambda differ: differ.__name__)
def test_a_machine_that_cannot_replay_says_why_and_the_pack_is_none_the_worse(
    differ: Callable, suite: ToySuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path, RunPlan(**{**vars(SMALL), "suite": suite.name}))
    differ(suite, monkeypatch)
    done = verify(path, n_replayed=2)
    assert done.found == []
    assert any(ELSEWHERE[differ] in one for one in done.remarks), done.remarks
    assert done.evidence is evidence_of(path) is Evidence.RECOMPUTED
    assert len(done.replay.episodes) == 2


@pytest.mark.parametrize("key", ["commit", "packages", "machine"])
def test_a_difference_that_other_code_or_another_machine_may_explain_is_told_and_not_held_against_the_pack(
    key: str, improved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"commit": "other", "packages": {"numpy": "0"}, "machine": {"processor": "other", "accelerator": "none"}}
    monkeypatch.setattr(provenance, key, lambda: other[key])
    done = verify(copied(improved, tmp_path), n_replayed=20)
    assert done.found == []
    assert any("this proves nothing, since " in one for one in done.remarks)
    assert done.evidence is Evidence.RECOMPUTED


def test_the_draw_follows_from_the_seed_and_without_one_from_the_pack(pack: Path) -> None:
    found = examine(pack)
    drawn = [[key(episode) for episode in replay(found.runs, 3, seed).episodes] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(set(one)) == 3 for one in drawn)


def key(episode: dict) -> tuple:
    return tuple(episode.values())
