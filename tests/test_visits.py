"""Episodes of a policy under a method, with the answers of its full computation: where demonstrations do not lead."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vla_bench import registry
from vla_bench.demonstrations.dataset import Dataset
from vla_bench.errors import OptionError
from vla_bench.policy import ActionChunk
from vla_bench_envs.demonstrations.collect import Collect
from vla_bench_envs.demonstrations.driver import Driver
from vla_bench_envs.demonstrations.source import Stand, source_of
from vla_bench_envs.demonstrations.visits import Visitor
from vla_bench_policies.reference.training.frames import _source

SUITE = "libero-object@1"
TASK = registry.suite(SUITE).tasks()[0]
BUTTER = 6
POLICY = "reference:execute=2,ensemble=True"


class Line:
    """A hand on a line; solved at 0.5 and beyond. Pictures show where it is, and count how often they are drawn."""

    ends_at_success = False

    def __init__(self, horizon: int) -> None:
        self.protocol = SimpleNamespace(name="line", cameras=("front",))
        self.horizon, self.place, self.n_steps = horizon, 0.0, 0

    def _observation(self) -> dict[str, object]:
        picture = np.full((2, 2, 3), round(100 * self.place), np.uint8)
        return {"front": picture, "proprio": np.full(8, self.place, np.float32), "instruction": "go"}

    def reset(self, options):
        self.place, self.n_steps = float(options["init_state"][0]), 0
        return self._observation(), {"init_state_sha256": "a" * 64}

    def step(self, action):
        self.place += action[0]
        self.n_steps += 1
        return self._observation(), 0.0, False, self.n_steps >= self.horizon, {"success": self.place >= 0.5}


@dataclass
class Walker:
    """Answers with two actions, which tell where it believes to be; `slowed` makes it walk a tenth as far."""

    pace: float = 0.1
    name: str = "walker"
    cameras: tuple[str, ...] | None = None
    action_spec = TASK.action_spec

    @property
    def fingerprint(self) -> str:
        return f"walker-{self.pace}"

    def reset(self, task, seed) -> None: ...

    def synchronize(self) -> None: ...

    def act(self, obs) -> ActionChunk:
        return ActionChunk(np.array([[self.pace, obs["front"][0, 0, 0] / 100, 0, 0, 0, 0, part] for part in (0, 1)]))


class Slowed:
    name = "slowed"

    def apply(self, policy: Walker) -> Walker:
        return replace(policy, pace=policy.pace / 10)


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    registry.register("policy", "walker", Walker)
    registry.register("method", "slowed", Slowed)


def visited(method: str, horizon: int, start: float = 0.0):
    stand = Stand(Line(horizon), expert=None, states=None)  # type: ignore[arg-type]
    return Visitor(Driver("walker", method)).visit(stand, TASK, np.array([start]), seed=0)


def test_the_driver_moves_the_arm_and_the_teacher_answers_to_what_it_sees() -> None:
    slow, fast = visited("slowed", horizon=7), visited("full", horizon=7)
    np.testing.assert_allclose(slow.states[:, 0], 0.01 * np.arange(7), atol=1e-6)  # moved by the method
    np.testing.assert_allclose(slow.actions[:, 0], 0.1)  # answered by the full computation
    np.testing.assert_allclose(slow.actions[:, 1], [0, 0, 0.02, 0.02, 0.04, 0.04, 0.06], atol=1e-6)  # to what was seen
    assert slow.images["front"][:, 0, 0, 0].tolist() == list(range(7))
    assert (slow.problem, slow.success_step) == (None, None)  # not solved, and kept: that is what it is for
    assert fast.success_step == len(fast.actions) == 5
    assert len(visited("full", horizon=7, start=0.2).actions) == 3  # solved within a chunk


def test_options_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="0 with --driver"):
        Collect(out=tmp_path, driver="walker", pushes_hz=0.5).collect()
    with pytest.raises(OptionError, match="'full' without --driver"):
        Collect(out=tmp_path, method="slowed").collect()


@pytest.mark.sim
@pytest.mark.filterwarnings("default")  # a process is spawned, which some Python versions warn about under threads
def test_what_the_full_computation_answered_leads_to_the_goal_again(tmp_path: Path) -> None:
    plan = {"out": tmp_path, "suite": SUITE, "protocol": "reference-fast", "tasks": (BUTTER,), "episodes": 1}
    (row,) = Collect(**plan, driver=POLICY, method="full").collect(show_progress=False)
    data = Dataset(tmp_path)
    assert (row.kept, row.tried, len(data)) == (1, 1, 1)
    episode, notes = data.load(0), data.episodes[0]
    assert notes["vla_bench/success_step"] == len(episode.actions)
    command = _source(data)["command"]
    assert f"--driver {POLICY} --method full" in command
    suite = registry.suite(SUITE)
    source = source_of(suite)
    with source.stand(suite.tasks()[BUTTER], suite.protocols()["reference-fast"], 0) as stand:
        obs, info = stand.env.reset(options={"task": BUTTER, "init_state": stand.states.draw(0)})
        for state, action in zip(episode.states, episode.actions, strict=True):
            np.testing.assert_array_equal(obs["proprio"], state)
            obs, _, _, _, info = stand.env.step(action)
        assert info["success"]
    with pytest.raises(Exception, match=r"driver_method: 'full' against 'random:0.6'"):
        Collect(**plan, driver=POLICY, method="random:0.6").collect(show_progress=False)
