"""A policy moves the arm first, then the expert is recorded: what to do where a policy's mistakes have led."""

from pathlib import Path

import numpy as np
import pytest
from test_visits import TASK, Line, Walker

from vla_bench import registry
from vla_bench.errors import OptionError
from vla_bench.policy import ActionChunk
from vla_bench_envs.demonstrations.collect import Collect
from vla_bench_envs.demonstrations.driver import Driver
from vla_bench_envs.demonstrations.leads import STEPS, Lead
from vla_bench_envs.demonstrations.recording import Recording, record
from vla_bench_envs.demonstrations.source import Stand


class Finisher:
    """Walks until it is solved."""

    def __init__(self) -> None:
        self.finished, self.failure = False, None

    def reset(self, task, seed) -> None:
        self.finished = False

    def act(self, obs) -> ActionChunk:
        self.finished = bool(obs["proprio"][0] >= 0.5)
        return ActionChunk(np.full((1, 7), 0.1))


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    registry.register("policy", "walker", Walker)


def led(pace: float, begins_at: float = 0.0) -> tuple[Recording, Line]:
    env = Line(horizon=200)
    stand = Stand(env, Finisher(), states=None, may_begin=lambda: env.place >= begins_at)  # type: ignore[arg-type]
    lead = (Lead(Driver(f"walker:pace={pace}")), np.random.default_rng(0))
    return record(stand, TASK, np.zeros(1), 0, lead=lead), env


def test_only_the_expert_is_recorded_and_it_begins_where_the_policy_has_led() -> None:
    recording, env = led(0.01)
    assert recording.problem is None
    begun = recording.states[0, 0]
    assert 0.01 * STEPS[0] - 1e-6 <= begun < 0.01 * STEPS[1]
    assert recording.success_step == len(recording.actions) == np.ceil((0.5 - begun) / 0.1 - 1e-6)
    np.testing.assert_allclose(recording.actions, 0.1)
    np.testing.assert_array_equal(recording.images["front"][0], round(100 * float(begun)))
    assert env.n_steps == len(recording.actions) + round(float(begun) / 0.01)


def test_the_expert_waits_until_its_plan_may_begin() -> None:
    recording, _ = led(0.01, begins_at=0.45)
    assert recording.problem is None
    assert recording.states[0, 0] == pytest.approx(0.45, abs=0.011)


@pytest.mark.parametrize(
    ("pace", "begins_at", "problem"),
    [
        (0.1, 0.0, "the policy solved it before the expert took over"),
        (0.001, 0.3, "the expert found no place to begin in 60 steps of the policy"),
    ],
)
def test_an_attempt_in_which_the_expert_does_not_begin_is_no_demonstration(pace, begins_at, problem) -> None:
    recording, _ = led(pace, begins_at)
    assert recording.problem == problem
    assert len(recording.actions) == 0


def test_who_has_led_is_part_of_the_dataset_and_of_the_command_that_makes_it_again(tmp_path: Path) -> None:
    assert Driver("walker:pace=0.01").conditions("lead") == {"lead": "walker walker-0.01", "lead_method": "full"}
    with pytest.raises(OptionError, match="'full' without --driver and --lead"):
        Collect(out=tmp_path, method="random:0.4").collect()
    with pytest.raises(OptionError, match="there no expert takes over"):
        Collect(out=tmp_path, driver="walker", lead="walker").collect()
