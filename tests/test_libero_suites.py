"""The LIBERO suites and protocols, without a simulator."""

import subprocess
import sys
from dataclasses import asdict

import gymnasium
import pytest

pytest.importorskip("libero.libero")

import vla_bench
from vla_bench.errors import OptionError, UnknownNameError
from vla_bench.suite import Suite
from vla_bench_envs.libero.environment import LiberoEnv
from vla_bench_envs.libero.protocols import PROTOCOLS, protocol
from vla_bench_envs.libero.suites import (
    N_INITIAL_STATES,
    SUITES,
    VARIANTS,
    find_suite,
    sentence_of_file_name,
    sentence_of_problem,
)

PARENTS = {
    f"libero-{family}-{variant}@1": f"libero-{family}@1"
    for family in ("spatial", "object", "goal", "10")
    for variant in VARIANTS
}
"""Each LIBERO-PRO suite and the one it perturbs."""


def test_there_are_five_standard_suites_and_sixteen_perturbed_ones() -> None:
    assert len(SUITES) == 21
    assert set(PARENTS) <= set(SUITES)
    assert set(SUITES) - set(PARENTS) == {
        "libero-spatial@1",
        "libero-object@1",
        "libero-goal@1",
        "libero-10@1",
        "libero-90@1",
    }


@pytest.mark.parametrize("name", SUITES)
def test_every_task_has_its_files_and_a_unique_name(name: str) -> None:
    suite = SUITES[name]
    tasks = suite.tasks()
    assert len({task.name for task in tasks}) == len(tasks) == (90 if name == "libero-90@1" else 10)
    assert [task.index for task in tasks] == list(range(len(tasks)))
    for task in tasks:
        assert suite.problem_file(task).is_file()
        assert set(task.instruction) <= LiberoEnv.CHARACTERS
        assert task.n_initial_states == N_INITIAL_STATES
        assert task.horizon == suite.horizon
    for task in (tasks[0], tasks[-1]):
        assert len(suite.initial_states(task)) == N_INITIAL_STATES


@pytest.mark.parametrize(
    ("suite", "horizon"),
    [
        ("libero-spatial@1", 220),
        ("libero-object@1", 280),
        ("libero-goal@1", 300),
        ("libero-10@1", 520),
        ("libero-90@1", 400),
    ],
)
def test_horizons_are_those_of_openvla(suite: str, horizon: int) -> None:
    assert SUITES[suite].horizon == horizon


@pytest.mark.parametrize(("name", "parent"), PARENTS.items())
def test_a_perturbed_suite_inherits_horizon_and_order(name: str, parent: str) -> None:
    assert SUITES[name].horizon == SUITES[parent].horizon
    assert [task.name for task in SUITES[name].tasks()] == [task.name for task in SUITES[parent].tasks()]


@pytest.mark.parametrize(("name", "parent"), PARENTS.items())
def test_the_sentence_changes_exactly_where_what_is_asked_changes(name: str, parent: str) -> None:
    pairs = list(zip(SUITES[name].tasks(), SUITES[parent].tasks(), strict=True))
    changed = [task.instruction != other.instruction for task, other in pairs]
    assert all(changed) if name.endswith(("-language@1", "-task@1")) else not any(changed)


def test_instructions_are_those_of_published_loops() -> None:
    assert SUITES["libero-spatial@1"].tasks()[0].instruction == (
        "pick up the black bowl between the plate and the ramekin and place it on the plate"
    )
    assert SUITES["libero-10@1"].tasks()[2].instruction == "turn on the stove and put the moka pot on it"
    assert SUITES["libero-goal-language@1"].tasks()[7].instruction == "switch on the stove"
    assert SUITES["libero-goal-task@1"].tasks()[7].instruction == "turn off the stove"


@pytest.mark.parametrize("name", sorted(set(SUITES) - set(PARENTS)))
def test_file_names_read_as_libero_reads_them(name: str) -> None:
    from libero.libero.benchmark import grab_language_from_filename

    for task in SUITES[name].tasks():
        assert sentence_of_file_name(task.name) == grab_language_from_filename(task.name + ".bddl")


def test_a_problem_without_a_sentence_is_refused() -> None:
    with pytest.raises(OptionError, match=r"expected a BDDL text with a \(:language \.\.\.\) entry"):
        sentence_of_problem("(define (problem p))")


def test_an_unknown_suite_task_or_protocol_is_named_with_what_is_known() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no LIBERO suite named 'libero_spatial'\. Did you mean 'libero-spatial"
    ):
        find_suite("libero_spatial")
    with pytest.raises(UnknownNameError, match="Did you mean 'openvla-oft'"):
        protocol("openvla_oft")
    goal = SUITES["libero-goal@1"]
    with pytest.raises(
        UnknownNameError, match=r"no task of libero-goal@1 named 'turn_on_stove'\. Did you mean 'turn_on_t"
    ):
        goal.task("turn_on_stove")
    assert goal.task("turn_on_the_stove") == goal.task(7)


@pytest.mark.parametrize("index", [-1, 10, 1.0, True, None])
def test_a_task_out_of_range_is_refused(index: object) -> None:
    with pytest.raises(OptionError, match=r"task is .*; expected a name, or an index from 0 to 9 \(libero-goal@1\)"):
        SUITES["libero-goal@1"].task(index)  # type: ignore[arg-type]


def test_no_two_protocols_share_a_hash() -> None:
    assert len({preset.hash for preset in PROTOCOLS.values()}) == len(PROTOCOLS) == 8


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if not name.endswith("-fast")])
def test_a_fast_protocol_differs_in_rendering_only(name: str) -> None:
    standard, fast = asdict(PROTOCOLS[name]), asdict(PROTOCOLS[f"{name}-fast"])
    assert {key for key in standard if standard[key] != fast[key]} == {"name", "render"}


def test_protocols_are_those_of_their_sources() -> None:
    assert PROTOCOLS["openvla"].cameras == ("agentview",)
    assert PROTOCOLS["openvla-oft"].cameras == ("agentview", "robot0_eye_in_hand")
    assert all(preset.settle_steps == 10 for preset in PROTOCOLS.values())
    assert all(preset.settle_action == (0, 0, 0, 0, 0, 0, -1) for preset in PROTOCOLS.values())
    assert PROTOCOLS["lerobot"].horizon("libero-spatial@1", 220) == 280
    assert PROTOCOLS["openvla"].horizon("libero-spatial@1", 220) == 220
    assert PROTOCOLS["reference"].image_size == 128


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_a_suite_and_known_to_gymnasium(name: str) -> None:
    suite = SUITES[name]
    assert isinstance(suite, Suite)
    assert suite.default_protocol in suite.protocols()
    spec = gymnasium.spec(suite.gym_id)
    assert spec.kwargs == {"suite": name}
    assert spec.vector_entry_point == "vla_bench_envs.libero.vector:LiberoVectorEnv"


def test_registering_twice_is_harmless() -> None:
    vla_bench.register_environments()


def test_making_an_environment_starts_no_simulator() -> None:
    code = (
        "import sys, gymnasium, vla_bench_envs\n"
        "from vla_bench_envs.libero.suites import SUITES\n"
        "gymnasium.make('vla_bench/Libero10-v0').unwrapped\n"
        "SUITES['libero-goal@1'].make(SUITES['libero-goal@1'].protocols()['openvla'])\n"
        "assert not {'mujoco', 'robosuite', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": "never"}, "images is 'never'; expected 'eager' (draw every image) or 'lazy' (draw what is read)"),
        ({"render_mode": "human"}, "render_mode is 'human'; expected 'rgb_array' or None"),
    ],
)
def test_a_constructor_argument_that_means_nothing_is_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        LiberoEnv(**arguments)  # type: ignore[arg-type]
    assert str(caught.value) == message
