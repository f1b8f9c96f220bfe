"""The one loop: what it asks for, what it counts, and what its clock means."""

import time
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from toy import HORIZON, PROTOCOL, SPEC, TOY, ToyEnv, ToyPolicy, ToySuite

from vla_bench import Cell, EpisodeRecord, Outcome
from vla_bench.contestant import WARMUP_QUERIES, Contestant
from vla_bench.errors import ActionSpecMismatchError
from vla_bench.policy import ActionChunk
from vla_bench.rollout import run_episode
from vla_bench.types import ActionSpec
from vla_bench_policies.methods.action_reuse import ActionReuse

TASK = TOY.tasks()[0]
NEAR, FAR = Cell(0, 1, 0), Cell(2, 1, 0)


def play(policy, cell: Cell = NEAR, env: ToyEnv | None = None, protocol=PROTOCOL) -> EpisodeRecord:
    env = env or ToyEnv(images="lazy")
    return run_episode(env, Contestant("full", policy), TOY.tasks()[cell.task], cell, protocol)


@dataclass
class Still(ToyPolicy):
    """Never arrives; sleeps where a test wants time to pass."""

    synchronize_s: float = 0.0

    def act(self, obs):
        time.sleep(self.delay_s)
        return ActionChunk(np.zeros((self.n_actions, SPEC.size)))

    def synchronize(self):
        time.sleep(self.synchronize_s)


@pytest.mark.parametrize("cameras", [(), ("front",), ("wrist",), ("front", "wrist"), None])
def test_images_that_no_policy_reads_are_never_asked_for(cameras) -> None:
    env = ToyEnv(images="lazy")
    record = play(ToyPolicy(3, cameras=cameras), env=env)
    read = ("front", "wrist") if cameras is None else cameras
    assert len(record.queries) > 1
    assert env.drawn == [*read] * len(record.queries)


def test_a_policy_is_shown_its_cameras_and_nothing_else() -> None:
    seen: list[set[str]] = []

    class Watching(ToyPolicy):
        def act(self, obs):
            seen.append(set(obs))
            return super().act(obs)

    play(Watching(cameras=("wrist",)))
    assert seen
    assert all(keys == {"wrist", "proprio", "instruction"} for keys in seen)


@pytest.mark.parametrize("n_actions", [1, 5, 12, 100])
def test_the_horizon_cuts_a_chunk(n_actions: int) -> None:
    record = play(Still(n_actions))
    assert record.outcome is Outcome.TIMEOUT
    assert record.n_steps == HORIZON == sum(query.n_executed for query in record.queries)
    assert [query.step for query in record.queries] == list(range(0, HORIZON, n_actions))
    assert record.queries[-1].n_executed == HORIZON - record.queries[-1].step
    assert {query.n_actions for query in record.queries} == {n_actions}


def test_the_protocol_may_shorten_an_episode() -> None:
    record = play(Still(), protocol=replace(PROTOCOL, horizons=(("toy@1", 5),)))
    assert (record.outcome, record.n_steps) == (Outcome.TIMEOUT, 5)


def test_success_cuts_a_chunk() -> None:
    chunked = play(ToyPolicy(100))
    assert chunked.outcome is Outcome.SUCCESS
    assert len(chunked.queries) == 1
    assert chunked.queries[0].n_executed == chunked.n_steps < HORIZON


def test_timers_nest() -> None:
    record = play(ToyPolicy(1), FAR)
    assert len(record.queries) > 3
    for query in record.queries:
        assert min(query.observe_ms, query.policy_ms, query.apply_ms) > 0
        assert query.step_ms >= query.observe_ms + query.policy_ms
    assert sum(query.step_ms + query.apply_ms for query in record.queries) <= 1e3 * record.wall_s


def test_rendering_is_charged_to_observing_thinking_to_the_policy_and_physics_to_neither() -> None:
    class Slow(ToyEnv):
        def _draw(self, camera):
            time.sleep(0.005)
            return super()._draw(camera)

        def step(self, action):
            time.sleep(0.003)
            return super().step(action)

    for query in play(Still(2, delay_s=0.010), env=Slow(images="lazy")).queries:
        assert query.observe_ms >= 5
        assert query.policy_ms >= 10
        assert query.step_ms >= 15
        assert query.apply_ms >= 2 * 3


def test_an_episode_that_the_environment_calls_failed_is_over_and_no_error() -> None:
    class Faulty(ToyEnv):
        def step(self, action):
            *rest, info = super().step(action)
            return *rest, info | {"failed": "torque_limit" if self._n_steps == 3 else ""}

    record = play(Still(2), env=Faulty())
    assert (record.outcome, record.n_steps, record.error) == (Outcome.TIMEOUT, 3, None)
    assert len(record.queries) == 2


def test_the_clock_waits_for_the_device() -> None:
    for query in play(Still(synchronize_s=0.004)).queries:
        assert query.policy_ms >= 4
        assert query.step_ms >= 8  # what the device still had to do before is the harness's, not the policy's


def test_the_first_query_of_an_episode_and_the_first_ones_of_a_process_are_marked() -> None:
    contestant, queries = Contestant("full", Still(1)), []
    for _ in range(3):
        queries += run_episode(ToyEnv(), contestant, TASK, FAR, PROTOCOL).queries
    assert [query.is_first_step for query in queries] == ([True] + [False] * (HORIZON - 1)) * 3
    assert [query.is_warmup for query in queries] == [index < WARMUP_QUERIES for index in range(3 * HORIZON)]


def test_what_is_raised_is_an_outcome_of_its_own() -> None:
    record = play(ToyPolicy(1), env=ToyEnv(ToySuite(raises_at={(0, 1)})))
    assert record.outcome is Outcome.ERROR
    assert record.error == "RuntimeError: the toy was told to break at (0, 1)"
    assert (record.n_steps, len(record.queries)) == (2, 2)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_a_wish_to_stop_is_no_outcome(raised: type[BaseException]) -> None:
    class Stopping(ToyPolicy):
        def act(self, obs):
            raise raised

    with pytest.raises(raised):
        play(Stopping())


@pytest.mark.parametrize("actions", [np.zeros(2), np.zeros((0, 2)), np.zeros((1, 3)), np.full((1, 2), np.nan)])
def test_an_unusable_answer_is_an_error_and_never_a_timeout(actions: np.ndarray) -> None:
    class Wrong(ToyPolicy):
        def act(self, obs):
            return ActionChunk(actions)

    assert play(Wrong()).outcome is Outcome.ERROR


def test_a_camera_that_does_not_exist_is_an_error() -> None:
    record = play(ToyPolicy(cameras=("ceiling",)))
    assert record.outcome is Outcome.ERROR
    assert "reads is ['ceiling']; expected cameras of the protocol 'toy': front, wrist" in record.error


def test_the_record_holds_what_happened() -> None:
    record = play(ToyPolicy(1), NEAR)
    assert (record.suite, record.method, record.policy, record.cell) == ("toy@1", "full", "toy", NEAR)
    assert record.protocol == str(PROTOCOL)
    assert record.init_state_sha256 == ToyEnv().reset(options={"task": 0, "init_state": 1})[1]["init_state_sha256"]
    assert {query.rows_computed for query in record.queries} == {10}
    assert 0 < record.path_m <= record.n_steps * np.sqrt(2) * SPEC.translation_m


def test_a_straight_path_has_its_length_and_no_jerk() -> None:
    class Straight(ToyPolicy):
        def act(self, obs):
            return ActionChunk(np.array([[-1.0, 0.0]]))

    record = play(Straight(), FAR)
    assert record.path_m == pytest.approx(HORIZON * SPEC.translation_m)
    assert record.jerk == 0


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_action_reuse_asks_as_often_as_it_says(repeats: int) -> None:
    record = play(ActionReuse(repeats).apply(Still(1)), FAR)
    assert len(record.queries) == HORIZON / repeats
    assert all(later.step - query.step == repeats for query, later in pairwise(record.queries))


def test_actions_of_another_meaning_are_refused() -> None:
    contestant = Contestant("full", ToyPolicy(action_spec=ActionSpec(size=2, translation_m=0.1)))
    with pytest.raises(ActionSpecMismatchError, match=r"translation_m=0.1 against 0.05: convert"):
        contestant.check(TASK)
