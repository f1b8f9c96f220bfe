"""A run is decided before it starts: its name, its cells and whose turn it is."""

from collections import Counter
from dataclasses import replace

import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_bench import RunPlan
from vla_bench.errors import OptionError, UnknownNameError
from vla_bench.types import Cell

settings.register_profile("patient", deadline=None)  # the machine may be shared
settings.load_profile("patient")

PLAN = RunPlan(suite="toy@1", policy="toy", methods=("full", "action-reuse:2"), episodes=7)
RESOLVED = PLAN.resolve()


def test_the_name_of_a_run_never_changes() -> None:
    assert PLAN.resolve().id == "toy-v1_toy_af5e336933"


def test_equal_plans_have_one_name_however_they_are_written() -> None:
    written_out = replace(PLAN, protocol="toy", tasks=(0, 1, 2), methods=("full", "action-reuse:repeats=2"))
    assert written_out.resolve().id == PLAN.resolve().id


@pytest.mark.parametrize(
    "change",
    [
        {"policy": "toy:3"},
        {"methods": ("full",)},
        {"methods": ("full", "action-reuse:3")},
        {"episodes": 8},
        {"tasks": (0, 1)},
        {"seed": 1},
    ],
)
def test_everything_that_decides_a_number_changes_the_name(change: dict) -> None:
    assert replace(PLAN, **change).resolve().id != PLAN.resolve().id


def test_a_changed_protocol_changes_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = PLAN.resolve().id
    monkeypatch.setattr(toy, "PROTOCOL", replace(toy.PROTOCOL, image_size=9))
    assert PLAN.resolve().id != before


def test_the_name_is_one_folder() -> None:
    resolved = replace(PLAN, policy="toy:3,name=a/b").resolve()
    assert resolved.id.startswith("toy-v1_toy-3-name-a-b_")


def test_episodes_go_through_the_initial_states_and_then_change_the_seed() -> None:
    cells = list(replace(PLAN, tasks=(1,), seed=10).resolve().cells())
    assert cells == [Cell(1, i, 10) for i in range(5)] + [Cell(1, i, 11) for i in range(2)]


def test_cells_are_unique_and_every_task_has_as_many() -> None:
    resolved = replace(PLAN, episodes=12).resolve()
    cells = list(resolved.cells())
    assert len(set(cells)) == len(cells) == 36
    assert Counter(cell.task for cell in cells) == {0: 12, 1: 12, 2: 12}
    assert resolved.n_episodes == 72


def test_a_task_is_played_to_its_end_before_the_next() -> None:
    tasks = [cell.task for cell in replace(PLAN, tasks=(2, 0)).resolve().cells()]
    assert tasks == [2] * 7 + [0] * 7


@given(st.integers(0, 2**31), st.integers(0, 2), st.integers(0, 4))
def test_every_method_has_its_turn_in_every_cell(seed: int, task: int, init_state: int) -> None:
    resolved, again = (replace(RESOLVED, seed=seed) for _ in range(2))
    cell = Cell(task, init_state, seed)
    assert sorted(resolved.turns(cell)) == sorted(resolved.methods)
    assert resolved.turns(cell) == again.turns(cell)


def test_no_method_always_goes_first() -> None:
    resolved = replace(PLAN, episodes=200).resolve()
    first = Counter(resolved.turns(cell)[0] for cell in resolved.cells())
    assert 240 < first["full"] < 360  # 300 expected of 600, standard deviation 12


def test_another_seed_deals_other_turns() -> None:
    one, other = (replace(PLAN, seed=seed, episodes=30).resolve() for seed in (0, 1))
    cells = list(one.cells())
    assert [one.turns(cell) for cell in cells] != [other.turns(cell) for cell in cells]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "toi@1"}, "no suite named 'toi@1'. Did you mean 'toy@1'?"),
        ({"policy": "toj"}, "no policy named 'toj'. Did you mean 'toy'?"),
        ({"policy": "toj:3"}, "no policy named 'toj'. Did you mean 'toy'?"),
        ({"methods": ("ful",)}, "no method named 'ful'. Did you mean 'full'?"),
        ({"protocol": "tiy"}, "no protocol of 'toy@1' named 'tiy'. Did you mean 'toy'? Known: toy"),
    ],
)
def test_unknown_names_are_refused_before_anything_runs(change: dict, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        replace(PLAN, **change).resolve()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 0}, "--episodes is 0; expected at least 1"),
        ({"methods": ()}, "--methods is (); expected at least one, for example full"),
        ({"methods": ("full", "full")}, "--methods is ('full', 'full'); expected each method once"),
        ({"seed": -1}, "--seed is -1; expected an integer of at least 0"),
        ({"tasks": (3,)}, "--tasks is 3; expected an index from 0 to 2 of 'toy@1'"),
        ({"tasks": (-1,)}, "--tasks is -1; expected an index from 0 to 2 of 'toy@1'"),
        ({"tasks": (1, 1)}, "--tasks is (1, 1); expected each index once"),
    ],
)
def test_impossible_numbers_are_refused_before_anything_runs(change: dict, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        replace(PLAN, **change).resolve()
    assert str(caught.value) == message
