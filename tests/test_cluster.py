"""A plan on a cluster comes out as it does here, whoever plays it and whichever node dies."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from test_parallel import PLAN, SHARED, outcomes
from toy import ToySuite

import vla_bench
from vla_bench import cli, journal
from vla_bench.cluster import errors
from vla_bench.cluster.options import FleetOptions
from vla_bench.cluster.outpost import Opened, Outpost, installation
from vla_bench.errors import OptionError
from vla_bench.parallel.crew import CannotWorkError, CrewOptions
from vla_bench.runner import run

STORE_BYTES = 80 * 2**20
"""Of each node's shared memory: as little as Ray takes."""

ATTEMPTS = 4


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return outcomes(run(PLAN.resolve(), tmp_path_factory.mktemp("alone")))


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    """A head that plays nothing, and a node with two processors, as processes of this machine."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'vla-bench[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # as on every node of a cluster: the same installation
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = started()
        grown(made)
        yield made
        made.shutdown()


def started():
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False, "include_log_monitor": False}
    return patient(lambda: Cluster(initialize_head=True, head_node_args=head))


def grown(cluster, n_gpus: int = 0):
    size = {"num_cpus": 2 * max(1, n_gpus), "num_gpus": n_gpus, "object_store_memory": STORE_BYTES}
    return patient(lambda: cluster.add_node(**size, include_log_monitor=False))


def patient(begin: Callable[[], Any]) -> Any:
    """Ray gives its own processes 15 s to begin and then gives up: on a busy machine they may need several attempts."""
    for _ in range(ATTEMPTS):
        try:
            return begin()
        except Exception as caught:
            if "timed out during startup" not in str(caught):
                raise
    pytest.skip(f"Ray's own processes could not begin here within its 15 s, {ATTEMPTS} times: something else runs")


def fleet(cluster, crews: int = 1, workers: int = 2, **options) -> FleetOptions:
    return FleetOptions(cluster.address, crews, crew=CrewOptions(workers), **options)


def test_an_outpost_plays_what_it_is_sent_until_it_is_closed(alone: dict) -> None:
    """Without Ray: what a node does."""
    plan = SHARED.resolve()
    outpost = Outpost(plan, CrewOptions(1), vla_bench.registry.registered(plan.policy, plan.methods))
    opened = outpost.open()
    assert (opened.problem, opened.policy, opened.node) == ("", "toy-shared", os.uname().nodename)
    for cell in list(plan.cells())[:3]:
        ended = outpost.play(0, (cell, "full"), attempt=1)
        assert not ended.lost
        assert outcomes([ended.record]).items() <= alone.items()
    outpost.close()


def test_a_cluster_finds_the_outcomes_of_one_machine(cluster, alone: dict, tmp_path: Path) -> None:
    records = run(PLAN.resolve(), tmp_path / "far", crew=fleet(cluster, crews=2, workers=1))
    assert outcomes(records) == alone
    assert not any(record.timed for record in records)
    assert len(journal.read(tmp_path / "far")) == len(alone)
    run(replace(PLAN, tasks=(0,), episodes=1).resolve(), tmp_path / "near")
    far, near = (json.loads((tmp_path / name / "provenance.json").read_text()) for name in ("far", "near"))
    assert far["conditions"] == near["conditions"]
    assert [(one["crews"], one["workers"]) for one in far["sessions"]] == [("2", "2")]


def test_a_node_that_dies_loses_only_the_episodes_in_flight_which_are_played_again(
    cluster, alone: dict, tmp_path: Path
) -> None:
    doomed = grown(cluster)
    ours = tmp_path / "run"

    def remove_it() -> None:
        while len(journal.read(ours)) < 6:
            time.sleep(0.02)
        cluster.remove_node(doomed, allow_graceful=False)

    killer = Thread(target=remove_it, daemon=True)
    killer.start()
    slow = replace(SHARED, policy="toy-shared:1,delay_s=0.2")
    records = run(slow.resolve(), ours, crew=fleet(cluster, crews=2))
    killer.join()
    assert outcomes(records) == alone
    written = journal.read(ours)
    lost = [record for record in written if record.is_broken]
    assert 1 <= len(lost) <= 2  # what its two workers had in hand
    assert all("its crew on node" in record.error and "was lost" in record.error for record in lost)
    again = {record.key: record.attempt for record in records}
    assert all(again[record.key] == record.attempt + 1 for record in lost)
    finished = [record.key for record in written if not record.is_broken]
    assert len(finished) == len(set(finished)) == len(alone)


def test_a_worker_that_dies_on_a_node_costs_its_episode_alone(cluster, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    suite = ToySuite("toy-far@1", kills_once=str(flag))
    vla_bench.register("suite", suite.name, suite)
    plan = replace(PLAN, suite=suite.name, tasks=(0,), episodes=3).resolve()
    records = run(plan, tmp_path / "run", crew=fleet(cluster))
    assert not any(record.is_broken for record in records)
    (lost,) = [record for record in journal.read(tmp_path / "run") if record.is_broken]
    assert (lost.error, lost.policy) == ("its worker was ended by signal 9", "toy")


def test_a_crew_that_cannot_begin_says_why_and_where(cluster, tmp_path: Path) -> None:
    with pytest.raises(CannotWorkError, match=r"no_such_option.*on node"):
        run(replace(PLAN, policy="toy:0,no_such_option=1").resolve(), tmp_path, crew=fleet(cluster))


def test_a_crew_for_which_no_node_has_room_is_not_waited_for_forever(cluster, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("vla_bench.cluster.fleet.ROOM_S", 2.0)
    with pytest.raises(
        errors.NoRoomError, match=r"a crew with 2 CPU, 0\.5 GPU within 2 s; the whole cluster has .* 0 GPU"
    ):
        run(PLAN.resolve(), tmp_path, crew=fleet(cluster, gpus=0.5))


def test_crews_are_placed_where_gpus_are_and_each_sees_its_own(cluster, alone: dict, tmp_path: Path) -> None:
    """Ray believes what a node says it has, and hides from a crew what is another's."""
    node, note = grown(cluster, n_gpus=2), tmp_path / "devices"
    try:
        plan = replace(SHARED, policy=f"toy-shared:1,delay_s=0.02,devices={note}")
        records = run(plan.resolve(), tmp_path / "run", crew=fleet(cluster, crews=2, gpus=1))
    finally:
        cluster.remove_node(node)
    assert outcomes(records) == alone
    assert set(note.read_text().split()) == {"0", "1"}


def test_a_node_of_another_kind_is_refused() -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'vla-bench[ray]'")
    from vla_bench.cluster.fleet import Fleet

    one = Opened("a", "toy", {"processor": "x"}, installation())
    made = Fleet(PLAN.resolve(), FleetOptions())
    made._check(one)
    with pytest.raises(errors.OtherNodeError, match="node b would play under other conditions: processor: 'x' against"):
        made._check(replace(one, node="b", conditions={"processor": "y"}))
    with pytest.raises(errors.OtherNodeError, match=r"numpy: .* against '0\.1'"):
        made._check(replace(one, installation={**installation(), "numpy": "0.1"}))


WORDS = "run --suite toy@1 --policy toy:1 --method full --method action-reuse:2 --no-timed --episodes 5 --results"


def test_no_cluster_says_how_to_make_one(tmp_path: Path, capsys) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'vla-bench[ray]'")
    assert cli.main([*WORDS.split(), str(tmp_path), "--cluster", "127.0.0.1:9"]) == 2
    assert "no Ray cluster at '127.0.0.1:9'" in capsys.readouterr().err


def test_the_command_finds_the_cluster_of_its_machine(cluster, alone: dict, tmp_path: Path, capsys) -> None:
    assert cli.main([*WORDS.split(), str(tmp_path), "--cluster", "auto", "--workers", "2"]) == 0
    assert "not timed" in capsys.readouterr().out
    (directory,) = tmp_path.iterdir()
    assert outcomes(journal.read(directory)) == alone


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--cluster auto", "--cluster is 'auto'; expected none for a timed plan"),
        ("--no-timed --gpus 0.5", "left out without --cluster"),
        ("--no-timed --cluster auto --crews 0", "at least 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(words: str, expected: str, tmp_path: Path, capsys) -> None:
    started = ["run", "--suite", "toy@1", "--policy", "toy:1", "--results", str(tmp_path), *words.split()]
    assert cli.main(started) == 2
    assert expected in capsys.readouterr().err


def test_a_timed_plan_is_played_by_one_process(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--no-timed"):
        run(replace(PLAN, timed=True).resolve(), tmp_path, crew=FleetOptions())


def test_messages_say_what_to_do() -> None:
    assert str(errors.MissingRayError(ImportError("No module named 'ray'"))) == (
        "--cluster needs 'ray', which cannot be imported (No module named 'ray'): pip install 'vla-bench[ray]'"
    )
    assert str(errors.NoClusterError("auto", ConnectionError("nobody there\nmore"))) == (
        "no Ray cluster at 'auto' (nobody there): start one with 'ray start --head', and on every other node "
        "'ray start --address HOST:6379', or name another address"
    )
    assert str(errors.NoRoomError({"CPU": 2.0, "GPU": 0.5}, {"CPU": 1.0}, 120.0)) == (
        "no node had room for a crew with 2 CPU, 0.5 GPU within 120 s; the whole cluster has 1 CPU, 0 GPU free: "
        "choose other --workers or --gpus, or add nodes"
    )
    assert str(errors.OtherNodeError("b", ["processor: 'x' against 'y'"])) == (
        "node b would play under other conditions: processor: 'x' against 'y': a run needs nodes of one kind with one "
        "installation; leave this one out, or play its part with --shard as a run of its own"
    )
    assert str(errors.LostCrewError(3, "its crew was lost")) == (
        "3 crews in a row were lost before they could begin; the last: its crew was lost: see the logs of Ray, or play "
        "on one node with --workers alone to see why"
    )
