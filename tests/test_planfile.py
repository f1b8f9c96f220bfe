"""A plan is a file: what it says is run, and what is said beside it wins."""

from pathlib import Path

import pytest
import toy

from vla_bench import cli, registry
from vla_bench.errors import UnknownNameError
from vla_bench.planfile import PlanFileError, expanded, read, shipped

assert toy.TOY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(
        'suite = "toy@1"\npolicy = "toy:1"\nmethods = ["full", "action-reuse:2"]\nepisodes = 2\ntasks = [0]\n'
    )
    return path


def test_a_plan_is_run_and_a_second_run_has_nothing_left(path: Path, tmp_path: Path, capsys) -> None:
    for _ in range(2):
        assert cli.main(["run", "--plan", str(path), "--results", str(tmp_path / "results")]) == 0
    said = capsys.readouterr()
    assert "4 episodes of toy@1" in said.err
    assert "action-reuse:2" in said.out
    assert len(list((tmp_path / "results").iterdir())) == 1


def test_what_is_said_beside_a_plan_wins(path: Path) -> None:
    words = expanded(["run", f"--plan={path}", "--episodes", "7", "--method", "full"])
    assert words == [
        "run",
        "--episodes",
        "7",
        "--method",
        "full",
        "--suite",
        "toy@1",
        "--policy",
        "toy:1",
        "--tasks",
        "0",
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [("suite = ", "it is no TOML"), ("suit = 'toy@1'", "it has the option 'suit'"), (None, "it cannot be read")],
)
def test_what_is_no_plan_is_refused(path: Path, content: str | None, problem: str) -> None:
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(PlanFileError, match=f"{path} is no plan: {problem}.*expected TOML with some of suite, policy"):
        read(str(path))


def test_a_plan_that_nobody_ships_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="no plan named 'ablation-everything'"):
        read("ablation-everything")


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_plan_that_ships_names_what_exists(name: str) -> None:
    plan = read(name)
    suite = registry.suite(plan["suite"])
    assert plan["protocol"] in suite.protocols()
    assert registry.policy(plan["policy"]).name.startswith("reference-oft")
    methods = [registry.method(method).name for method in plan["methods"]]
    assert methods[0] == "full"
    assert len(set(methods)) == len(methods) > 2
