"""Parts of a plan, played apart, make the same run as one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from toy import ToySuite

import vla_bench
from vla_bench import RunPlan, cli, journal, tables
from vla_bench.errors import NoResultsError, OptionError
from vla_bench.merge import UnmergeableError, merge
from vla_bench.runner import run, shard_of

PLAN = RunPlan(suite="toy@1", policy="toy:1", methods=("full", "action-reuse:2"), episodes=5)


def played(directory: Path, shard: str = "", plan: RunPlan = PLAN) -> Path:
    run(plan.resolve(), directory, shard=shard_of(shard))
    return directory


def facts(directory: Path) -> dict:
    return {record.key: (record.outcome, record.actions_sha256) for record in journal.read(directory)}


def test_parts_hold_every_start_once_with_all_its_methods_and_make_the_whole(tmp_path: Path) -> None:
    whole = played(tmp_path / "whole")
    parts = [played(tmp_path / f"part{index}", f"{index}/4") for index in range(1, 5)]
    assert sum(len(facts(part)) for part in parts) == len(facts(whole))
    for part in parts:
        starts = [{cell for name, cell in facts(part) if name == method} for method in PLAN.methods]
        assert starts[0] == starts[1]
    assert cli.main(["merge", *map(str, parts), "--out", str(tmp_path / "merged")]) == 0
    assert facts(tmp_path / "merged") == facts(whole)
    one, other = (tables.summarise(tables.load(path)) for path in (whole, tmp_path / "merged"))
    assert one["success"].tolist() == other["success"].tolist()
    run(PLAN.resolve(), tmp_path / "merged")  # nothing is missing
    assert len(journal.read(tmp_path / "merged")) == len(facts(whole))


def test_what_is_missing_can_be_played_on_the_merged_run(tmp_path: Path) -> None:
    parts = (played(tmp_path / "1", "1/3"), played(tmp_path / "3", "3/3"))
    merge(parts, tmp_path / "merged")
    assert len(facts(tmp_path / "merged")) == 20
    assert facts(played(tmp_path / "merged")) == facts(played(tmp_path / "whole"))


def test_what_two_parts_hold_alike_is_taken_once(tmp_path: Path, capsys) -> None:
    parts = [str(played(tmp_path / name, shard)) for name, shard in (("a", "1/2"), ("b", ""))]
    assert cli.main(["merge", *parts, "--out", str(tmp_path / "merged")]) == 0
    assert "30 episodes of 2 parts; 16 were in several parts, alike" in capsys.readouterr().out
    assert len(journal.read(tmp_path / "merged")) == 30


def test_an_error_in_one_part_gives_way_to_the_episode_of_another(tmp_path: Path) -> None:
    suite = ToySuite("toy-own@1")
    vla_bench.register("suite", suite.name, suite)
    plan = replace(PLAN, suite=suite.name, tasks=(0,), methods=("full",))
    suite.raises_at = {(0, 1)}
    broken = played(tmp_path / "broken", plan=plan)
    suite.raises_at = set()
    whole = played(tmp_path / "whole", plan=plan)
    for name, parts in (("one", (broken, whole)), ("other", (whole, broken))):
        merge(parts, tmp_path / name)
        assert not any(record.is_broken for record in journal.latest(journal.read(tmp_path / name)))


def test_parts_of_different_runs_are_refused(tmp_path: Path) -> None:
    one = played(tmp_path / "one", "1/2")
    other = played(tmp_path / "other", "2/2", replace(PLAN, policy="toy:2"))
    with pytest.raises(UnmergeableError, match="policy: 'toy:1' against 'toy:2'"):
        merge((one, other), tmp_path / "merged")
    twin = played(tmp_path / "twin", "1/2")
    lines = (twin / journal.NAME).read_text().splitlines()
    changed = json.loads(lines[0]) | {"n_steps": 1}
    (twin / journal.NAME).write_text("\n".join([json.dumps(changed), *lines[1:]]) + "\n")
    with pytest.raises(UnmergeableError, match="went otherwise"):
        merge((one, twin), tmp_path / "merged")
    with pytest.raises(NoResultsError, match="does not exist"):
        merge((one, tmp_path / "nothing"), tmp_path / "merged")
    with pytest.raises(NoResultsError, match="holds a run already"):
        merge((one, one), twin)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("text", ["3/2", "0/2", "a/b", "2", "1/2/3", "-1/2"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--shard"):
        shard_of(text)
