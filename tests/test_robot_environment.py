"""The simulated arm behind the whole bridge is an environment like any other; the expert solves its tasks."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest

import vla_bench_envs  # noqa: F401
from vla_bench import registry, runner
from vla_bench.errors import ActionError, ActionSpecMismatchError, NotResetError, OptionError, UnknownNameError
from vla_bench.plan import RunPlan
from vla_bench.protocol import Protocol
from vla_bench.suite import Suite
from vla_bench.testing import check_environment, check_policy
from vla_bench.types import ActionSpec
from vla_bench_envs.robot.environment import RealRobotEnv
from vla_bench_envs.robot.errors import DriverError, RobotRefusedError
from vla_bench_envs.robot.session import Session
from vla_bench_envs.robot.suites import PROTOCOLS, SUITE
from vla_bench_envs.robot.tabletop.expert import TabletopExpert
from vla_bench_envs.robot.tabletop.tasks import N_INITIAL_STATES, TASKS

pytestmark = pytest.mark.sim

STILL = np.zeros(7, np.float32)
SHORT = Protocol("short", ("front", "wrist"), 64, False, 0, (), 10.0, horizons=((SUITE.name, 12),))


@pytest.fixture
def env():
    made = RealRobotEnv(protocol="tabletop-small", images="lazy")
    yield made
    made.close()


def play(env: RealRobotEnv, task: int, start: int) -> tuple[bool, int, list[str]]:
    expert = TabletopExpert()
    expert.attach(env)
    obs, _ = env.reset(seed=0, options={"task": task, "init_state": start})
    expert.reset(env.task, 0)
    verdicts: list[str] = []
    while True:
        obs, _, terminated, truncated, info = env.step(expert.act(obs).actions[0])
        verdicts.append(info["verdict"])
        if terminated or truncated:
            return terminated, len(verdicts), verdicts


def test_it_keeps_the_contract_of_an_environment() -> None:
    env = gymnasium.make("vla_bench/RealRobot-v0", protocol=SHORT, disable_env_checker=True)
    check_environment(env)
    env.close()


def test_it_is_a_suite_that_the_registry_knows() -> None:
    assert isinstance(SUITE, Suite)
    assert registry.suite("tabletop-sim@1") is SUITE
    assert [task.instruction for task in SUITE.tasks()][1] == "pick up the red cube"
    assert SUITE.task("cover").index == SUITE.task(2).index == 2
    with pytest.raises(UnknownNameError, match=r"^no task of tabletop-sim@1 named 'pik'\. Did you mean 'pick'"):
        SUITE.task("pik")
    with pytest.raises(OptionError, match=r"^task is 3; expected a name, or an index from 0 to 2 \(tabletop-sim@1\)"):
        SUITE.task(3)


def test_a_fingerprint_is_the_same_twice_and_tells_pictures_apart() -> None:
    one, other, larger = (SUITE.fingerprint(PROTOCOLS[name]) for name in ("tabletop-small",) * 2 + ("tabletop",))
    assert one == other
    assert one["pixels"] != larger["pixels"]
    assert one["physics"] == larger["physics"]


@pytest.mark.parametrize("task", range(len(TASKS)))
def test_the_expert_solves_every_task_without_a_refused_or_changed_action(env: RealRobotEnv, task: int) -> None:
    solved, n_steps, verdicts = play(env, task, 7)
    assert solved
    assert n_steps < SUITE.tasks()[task].horizon / 2
    assert set(verdicts) == {"ok"}


@pytest.mark.slow
@pytest.mark.parametrize("task", range(len(TASKS)))
def test_the_expert_solves_every_start(env: RealRobotEnv, task: int) -> None:
    assert [start for start in range(N_INITIAL_STATES) if not play(env, task, start)[0]] == []


def test_a_run_on_the_simulated_arm_lands_in_the_same_records_as_every_other(tmp_path) -> None:
    plan = RunPlan(
        suite=SUITE.name, protocol="tabletop-small", policy="tabletop-expert", methods=("full",), tasks=(0,), episodes=1
    ).resolve()
    (record,) = runner.run(plan, tmp_path / plan.id)
    assert record.outcome == "success"
    assert record.suite == "tabletop-sim@1"
    assert len(record.queries) == record.n_steps < 60
    assert len(record.init_state_sha256) == 64


def test_an_arm_that_stands_still_solves_nothing(env: RealRobotEnv) -> None:
    env.reset(seed=0, options={"task": 1, "init_state": 3})
    for _ in range(20):
        _, reward, terminated, _, info = env.step(STILL)
        assert (reward, terminated, info["success"]) == (0.0, False, False)


def test_the_expert_keeps_the_contract_of_a_policy(env: RealRobotEnv) -> None:
    env.images = "eager"
    check_policy(registry.policy("tabletop-expert"), env, SUITE.tasks()[0], n_steps=8)


def test_an_action_takes_one_control_period_and_is_applied_one_tick_after_it_was_sent(env: RealRobotEnv) -> None:
    env.reset(seed=0, options={"task": 0, "init_state": 0})
    before = env.session.link.now_ns
    _, _, _, _, info = env.step(STILL)
    assert env.session.link.now_ns - before == 100_000_000
    assert info["sensor_to_action_ms"] == 10.0
    assert info["applied"] == [0.0] * 7


def test_an_image_that_nobody_reads_is_not_drawn(env: RealRobotEnv, monkeypatch) -> None:
    drawn = []
    env.reset(seed=0)
    pictures = env.session.link.pictures
    monkeypatch.setattr(pictures, "draw", lambda scene, draw=pictures.draw: drawn.append(1) or draw(scene))
    obs = env.step(STILL)[0]
    assert drawn == []
    assert obs["front"].shape == obs["wrist"].shape == (128, 128, 3)
    assert drawn == [1]


def test_images_show_the_arm_and_the_things(env: RealRobotEnv) -> None:
    env.images = "eager"
    one = env.reset(seed=0, options={"task": 1, "init_state": 0})[0]
    other = env.reset(seed=0, options={"task": 1, "init_state": 1})[0]
    red = (one["front"][..., 0].astype(int) - one["front"][..., 2] > 90).sum()
    assert red > 10
    assert (one["front"] != other["front"]).any()
    assert one["front"].std() > 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "soon"}, "^images is 'soon'; expected 'eager'"),
        ({"render_mode": "human"}, "^render_mode is 'human'; expected 'rgb_array' or None"),
        ({"protocol": "big"}, "^protocol is 'big'; expected one of tabletop, tabletop-small, or a Protocol"),
    ],
)
def test_options_that_are_wrong_are_refused(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        RealRobotEnv(**options)


def test_actions_that_cannot_be_applied_never_leave_the_client(env: RealRobotEnv) -> None:
    with pytest.raises(NotResetError, match="has not begun"):
        env.step(STILL)
    env.reset(seed=0)
    for wrong in (STILL[:6], np.full(7, np.nan), np.array(["x"] * 7)):
        with pytest.raises(ActionError, match="7 finite numbers"):
            env.step(wrong)
    assert env.session.link.supervisor.gate.counters["rejected"] == 0


def test_a_robot_that_somebody_stopped_ends_the_episode_as_an_error_and_needs_the_operator(env: RealRobotEnv) -> None:
    env.reset(seed=0)
    env.session.link.request({"t": "estop"})
    with pytest.raises(
        RobotRefusedError, match=r"^the robot server refused 'act' in phase ESTOP: it was left for the "
    ):
        env.step(STILL)
    with pytest.raises(RobotRefusedError, match=r"'home' in phase ESTOP: only IDLE, READY and HOLD lead home"):
        env.reset(seed=0)


def test_a_robot_that_held_is_armed_again_by_the_next_reset(env: RealRobotEnv) -> None:
    env.reset(seed=0)
    env.session.link.request({"t": "cmd", "op": "hold"})
    with pytest.raises(RobotRefusedError, match="phase HOLD"):
        env.step(STILL)
    env.reset(seed=0)
    assert env.step(STILL)[4]["verdict"] == "ok"


def test_a_policy_that_thinks_for_too_long_starves_the_arm_and_goes_on(env: RealRobotEnv) -> None:
    env.reset(seed=0)
    link = env.session.link
    link.wait(35)
    assert link.supervisor.phase == "STARVED"
    assert env.step(STILL)[4]["verdict"] == "ok"
    link.wait(45)
    assert env.step(STILL)[4]["reasons"] == ["stale_obs"]  # older than 400 ms: nobody moves by it
    assert env.step(STILL)[4]["verdict"] == "ok"


def test_a_session_insists_on_what_an_action_means_and_on_the_limits(env: RealRobotEnv) -> None:
    link = env.session.link
    with pytest.raises(ActionSpecMismatchError, match=r"^'the robot server' and 'the suite' disagree"):
        Session(link, replace(env.task, action_spec=ActionSpec(translation_m=0.02)), None, None)
    with pytest.raises(RobotRefusedError, match=f"its limits are {link.welcome['limits_sha256']}, expected abc"):
        Session(link, env.task, "abc", None)
    with pytest.raises(RobotRefusedError, match=r"it serves 'tabletop-sim@1', expected 'my-lab-drawer@1'"):
        Session(link, replace(env.task, suite="my-lab-drawer@1"), None, None)


def test_where_the_robot_cannot_place_objects_a_person_must(env: RealRobotEnv) -> None:
    env.reset(seed=0)
    env.session.link.welcome["caps"]["places_objects"] = False
    with pytest.raises(RobotRefusedError, match=r"nobody places the objects: pass place=\.\.\."):
        env.reset(seed=0)
    placed = []
    env.session._place = lambda task, start: placed.append((task.name, start))
    env.reset(seed=0, options={"task": 2, "init_state": 4})
    assert placed == [("cover", 4)]


def test_the_expert_refuses_a_robot_whose_objects_it_cannot_see(env: RealRobotEnv, monkeypatch) -> None:
    expert = TabletopExpert()
    expert.attach(env)
    monkeypatch.setattr(env.session.link, "driver", None)
    with pytest.raises(
        OptionError, match=r"^the expert's environment is None; expected the simulated arm in lock-step"
    ):
        expert.reset(SUITE.tasks()[0], 0)


def test_a_policy_that_drives_the_arm_into_a_fault_has_failed_and_the_next_episode_begins_at_home(
    env: RealRobotEnv,
) -> None:
    env.reset(seed=0)
    supervisor = env.session.link.supervisor
    limits = supervisor.limits
    supervisor.limits = replace(limits, joint_torque_nm=(1e-9,) * 7)  # as if the arm pressed against something
    _, reward, terminated, truncated, info = env.step(np.array([0, 0.4, 0, 0, 0, 0, 0], np.float32))
    supervisor.limits = limits
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert (info["failed"], info["success"], supervisor.phase) == ("torque_limit", False, "FAULT")
    with pytest.raises(NotResetError, match="has ended"):
        env.step(STILL)
    env.reset(seed=0, options={"task": 1, "init_state": 2})
    _, _, _, _, info = env.step(STILL)
    assert (info["verdict"], info["failed"], supervisor.phase) == ("ok", "", "ACTIVE")


def test_a_policy_whose_actions_are_refused_into_hold_has_failed(env: RealRobotEnv, monkeypatch) -> None:
    env.reset(seed=0)
    gate = env.session.link.supervisor.gate
    monkeypatch.setattr(gate, "_collides", lambda joints: True)
    told = [env.step(STILL) for _ in range(3)]
    assert [info["reasons"] for *_, info in told] == [["collision"]] * 3
    assert [(ended, info["failed"]) for _, _, ended, _, info in told] == [(False, ""), (False, ""), (True, "rejects")]
    monkeypatch.undo()
    env.reset(seed=0)
    assert env.step(STILL)[4]["verdict"] == "ok"


def test_a_robot_that_is_faulty_for_another_reason_ends_the_episode_as_an_error(env: RealRobotEnv, monkeypatch) -> None:
    env.reset(seed=0)

    def unplugged(now_ns: int) -> None:
        raise DriverError("sim", "was unplugged")

    monkeypatch.setattr(env.session.link.driver, "read", unplugged)
    with pytest.raises(RobotRefusedError, match=r"for the cause 'driver_error' \(the driver 'sim' was unplugged"):
        env.step(STILL)
    monkeypatch.undo()
    with pytest.raises(RobotRefusedError, match="'home' in phase FAULT"):
        env.reset(seed=0)
