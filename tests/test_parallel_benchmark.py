"""The benchmark of parallel play counts what it says: every start once in every way, nobody alone in a crew of two."""

import time
from dataclasses import dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy  # noqa: F401 - it registers itself

from vla_bench import Outcome, RunPlan, journal
from vla_bench.parallel.dealing import Ended, lost_record
from vla_bench.stats import Interval

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "parallel_play.py"
PLAN = RunPlan("toy@1", "toy-shared:1,delay_s=0.01", episodes=6, tasks=(0,), timed=False)


@pytest.fixture(scope="module")
def script() -> Any:
    spec = spec_from_file_location("parallel_play", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Hands:
    """Stands for a crew whose seats end in turns, 20 ms after each other."""

    n_seats: int = 2
    breaks: bool = False

    def __post_init__(self) -> None:
        self.playing: dict[int, Any] = {}
        self.n_given = 0
        self.busy: list[int] = []
        """Seats that play at every look."""

    def free(self) -> list[int]:
        return [seat for seat in range(self.n_seats) if seat not in self.playing]

    def give(self, seat: int, turn: Any, attempt: int) -> None:
        self.playing[seat] = turn
        self.n_given += 1

    def look(self) -> list[Ended]:
        time.sleep(0.02)
        self.busy.append(len(self.playing))
        seat = self.n_given % 2 if len(self.playing) > 1 else min(self.playing)
        record = lost_record(PLAN.resolve(), "toy", self.playing.pop(seat), 1, 0.0, "broken")
        return [Ended(seat, record if self.breaks else replace(record, outcome=Outcome.SUCCESS, error=None))]


@pytest.mark.parametrize("n_seats", [1, 2])
def test_every_start_is_timed_once_and_nobody_plays_alone(script: Any, n_seats: int, tmp_path: Path) -> None:
    plan = PLAN.resolve()
    turns = [(cell, "full") for cell in plan.cells()]
    hands = Hands(n_seats)
    began = time.perf_counter()
    with journal.writing(tmp_path) as pages:
        found = script.occupied_s(hands, turns, pages)
    whole_s = time.perf_counter() - began
    assert set(found) == set(turns)
    assert hands.busy[:6] == [n_seats] * 6
    assert not hands.playing
    if n_seats == 1:
        assert hands.n_given == 6
        assert sum(found.values()) == pytest.approx(whole_s, rel=0.1)  # the way from one start to the next included
    else:
        assert hands.n_given > 6  # somebody played on, uncounted


def test_a_broken_episode_has_no_time(script: Any, tmp_path: Path) -> None:
    turns = [(cell, "full") for cell in PLAN.resolve().cells()]
    with journal.writing(tmp_path) as pages, pytest.raises(RuntimeError, match="an episode ended in an error"):
        script.occupied_s(Hands(breaks=True), turns, pages)


def test_the_gain_of_two_is_in_episodes_an_hour_and_lies_in_its_interval(script: Any) -> None:
    rng = np.random.default_rng(0)
    one_s = rng.uniform(4, 8, 30)
    found = script.gain(one_s, one_s, np.random.default_rng(1))
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))  # two that do not slow each other
    found = script.gain(one_s, 2 * one_s, np.random.default_rng(1))
    assert found.value == pytest.approx(1.0)  # two that share one core
    noisy = script.gain(one_s, one_s * rng.uniform(1.0, 1.3, 30), np.random.default_rng(1))
    assert noisy.low < noisy.value < noisy.high < 2.0


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(1.8, 2.0, "met"), (1.5, 1.79, "missed"), (1.7, 1.9, "undecided: measure longer")]
)
def test_a_bar_is_met_by_all_of_the_interval(script: Any, low: float, high: float, expected: str) -> None:
    assert script.verdict(Interval((low + high) / 2, low, high), script.LEAST_BY_TWO) == expected


@pytest.mark.slow
def test_all_ways_play_the_same_starts_and_one_command_says_which_bar_is_met(script: Any, capsys) -> None:
    script.print_paces(PLAN)
    shown = capsys.readouterr().out
    for way in script.ways(2):
        assert f"{way.name} " in shown
    assert shown.count("at least 1.8: ") == 2
