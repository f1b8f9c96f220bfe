"""Latency in the loop on real suites: LIBERO, SIMPLER's WidowX, and its Google robot on a recorded simpler_env.

What is not installed is skipped; the harness does the same for all, and knows them by tasks and protocol only.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
import pytest
from recorded_interpreters import recorded

from vla_bench import Cell, EpisodeRecord, RunPlan, journal, registry
from vla_bench.contestant import Contestant
from vla_bench.policy import ActionChunk
from vla_bench.realtime.latency import latency
from vla_bench.realtime.waiting import Realtime, Waiting
from vla_bench.rollout import run_episode
from vla_bench.types import ActionSpec, Task
from vla_bench_envs.simpler import vulkan

LIBERO, WIDOWX, GOOGLE = "libero-object@1", "simpler-widowx@1", "simpler-google-matching@1"
PROTOCOL = {LIBERO: "reference-fast", WIDOWX: "reference-fast", GOOGLE: "simpler"}
PERIOD_MS = {LIBERO: 50.0, WIDOWX: 200.0, GOOGLE: 1000 / 3}
HORIZON, N_ACTIONS, PART = 14, 4, 0.4
CELL = Cell(0, 1, 0)


@dataclass
class Reaching:
    """Answers four small movements and a gripper that closes a part; a slow computer takes longer for that."""

    action_spec: ActionSpec
    delay_s: float = 0.0
    cameras: tuple[str, ...] = ()
    name: str = "reaching"
    fingerprint: str = "reaching"

    def reset(self, task: Task, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def act(self, obs: dict[str, Any]) -> ActionChunk:
        time.sleep(self.delay_s)
        actions = np.zeros((N_ACTIONS, 7))
        actions[:, :3] = self._rng.uniform(-0.01, 0.01, (N_ACTIONS, 3)) / self.action_spec.translation_m
        actions[:, 6] = PART
        return ActionChunk(actions, flops=10**9)

    def synchronize(self) -> None: ...


@dataclass
class Stage:
    """A suite's environment with short episodes, and what was applied to it."""

    suite: str
    env: Any
    task: Task
    applied: list[np.ndarray] = field(default_factory=list)
    seen: list[np.ndarray] = field(default_factory=list)

    def play(self, realtime: Realtime | None, delay_s: float = 0.0) -> EpisodeRecord:
        self.applied, self.seen = [], []
        player = Contestant("full", Reaching(self.task.action_spec, delay_s), division="exact", n_queries=99)
        noting = Noting(self.env, self)
        record = run_episode(noting, player, self.task, CELL, self.env.unwrapped.protocol, realtime=realtime)
        assert record.error is None
        assert record.n_steps == HORIZON
        return record

    @cached_property
    def at_once(self) -> EpisodeRecord:
        """The episode without latency, on a computer that takes its time."""
        return self.play(None, delay_s=2e-3 * PERIOD_MS[self.suite])


class Noting(gymnasium.Wrapper):
    def __init__(self, env: gymnasium.Env, stage: Stage) -> None:
        super().__init__(env)
        self._stage = stage

    def step(self, action: Any) -> Any:
        found = self.env.step(action)
        self._stage.applied.append(np.array(action))
        self._stage.seen.append(np.array(found[0]["proprio"]))
        return found


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(LIBERO, marks=pytest.mark.sim),
        pytest.param(WIDOWX, marks=pytest.mark.filterwarnings("ignore")),
        GOOGLE,
    ],
)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    name = request.param
    with pytest.MonkeyPatch.context() as patch:
        {LIBERO: need_libero, WIDOWX: need_widowx, GOOGLE: need_google}[name](patch, tmp_path_factory)
        suite = registry.suite(name)
        protocol = replace(suite.protocols()[PROTOCOL[name]], name="short", horizons=((name, HORIZON),))
        env = suite.make(protocol)
        yield Stage(name, env, suite.tasks()[CELL.task])
        env.close()


def need_libero(*_: Any) -> None:
    pytest.importorskip("libero.libero", reason="needs pip install 'vla-bench[libero]'")


def need_widowx(patch: pytest.MonkeyPatch, _: Any) -> None:
    stand_ins = os.environ.get("VLA_BENCH_SIMPLER_ASSETS")
    if stand_ins is None:
        pytest.skip("VLA_BENCH_SIMPLER_ASSETS names no stand-ins")
    patch.setenv("MS_ASSET_DIR", stand_ins)
    pytest.importorskip("mani_skill", reason="needs pip install 'vla-bench[simpler]'", exc_type=ImportError)
    if not vulkan.has_gpu() and vulkan.swiftshader() is None and not os.environ.get("VK_ICD_FILENAMES"):
        pytest.skip("found neither a GPU nor SwiftShader")


def need_google(patch: pytest.MonkeyPatch, folders: pytest.TempPathFactory) -> None:
    patch.setenv("VLA_BENCH_SIMPLER_PYTHON", recorded(folders.mktemp("interpreter")))


@pytest.fixture(scope="module")
def source(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """What `--realtime` takes, so that an answer lasts one and a half control steps, and a recorded run's own times."""
    folder = tmp_path_factory.mktemp("sources")

    def named(kind: str) -> str:
        half_more_ms = 1.5 * PERIOD_MS[stage.suite]
        if kind == "constant":
            return f"{half_more_ms}"
        if kind == "device":
            path = folder / "device.toml"
            path.write_text(f'device = "x"\nfixed_ms = {half_more_ms - 10}\ngflop_per_s = 100\nsource = "made up"\n')
            return str(path)
        with journal.writing(folder / "trace") as pages:
            pages.append(stage.at_once)
        return str(folder / "trace")

    return named


@pytest.mark.parametrize(("kind", "waiting"), [("device", "hold"), ("device", "overlap"), ("trace", "continue")])
def test_a_slow_and_a_fast_computer_find_the_same_trajectory(
    stage: Stage, source: Callable[[str], str], kind: str, waiting: Waiting
) -> None:
    realtime = Realtime(latency(source(kind)), waiting)
    fast, slow = stage.play(realtime), stage.play(realtime, delay_s=0.02)
    assert min(query.policy_ms for query in slow.queries) >= 20
    assert fast.actions_sha256 == slow.actions_sha256
    assert fast.actions_sha256 != stage.at_once.actions_sha256
    assert fast.division == ("async" if waiting in ("continue", "overlap") else "exact")


def test_an_answer_of_one_and_a_half_steps_costs_one_and_two_in_turn(
    stage: Stage, source: Callable[[str], str]
) -> None:
    plan = RunPlan(suite=stage.suite, realtime=source("constant")).resolve()
    assert plan.realtime is not None
    record = stage.play(plan.realtime)
    assert [query.n_waited for query in record.queries] == [1, 2, 1]
    assert [query.n_executed for query in record.queries] == [4, 4, 2]
    waited = [0, 5, 6, 11]
    assert [step for step, action in enumerate(stage.applied) if not action[:6].any()] == waited


def test_a_held_arm_and_its_gripper_stay_where_they_are(stage: Stage, source: Callable[[str], str]) -> None:
    """The gripper's entry may be a place to go, or a change: where it is one, it is not asked for again."""
    record = stage.play(Realtime(latency(f"{4 * PERIOD_MS[stage.suite]}"), "hold"))
    assert [query.n_waited for query in record.queries] == [4, 4]
    at_once, steps = stage.applied[4][6], [action[6] for action in stage.applied[8:12]]
    assert at_once == PART
    assert steps == [0.0 if stage.suite == GOOGLE else PART] * 4
    if stage.suite == GOOGLE:  # its recorded fingers follow the original's rules at 1/3 rad a step
        fingers = [float(seen[-1]) for seen in stage.seen]
        assert fingers[11] == pytest.approx(fingers[9]), "they have arrived where the last answer wanted them"
