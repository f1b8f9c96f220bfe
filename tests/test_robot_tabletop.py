"""The simulated arm: the same arm as the gate's, tasks that can be done, drivers that keep their promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from robots import HOME, LIMITS, Desk, FakeDriver, away
from test_robot_limits import POSTURE

from vla_bench.errors import UnknownNameError
from vla_bench_envs.robot import drivers
from vla_bench_envs.robot.conformance import Bench, check_driver
from vla_bench_envs.robot.drivers.simulated import SimulatedArm
from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.limiter import SetPoint
from vla_bench_envs.robot.tabletop.collision import Collision
from vla_bench_envs.robot.tabletop.plant import Plant
from vla_bench_envs.robot.tabletop.tasks import N_INITIAL_STATES, TASKS, thing

COLLISION, PLANT = Collision(LIMITS), Plant(LIMITS)


@settings(max_examples=30, deadline=None)
@given(POSTURE)
def test_the_simulators_arm_is_the_arm_of_the_gate(joints) -> None:
    PLANT.data.qpos[:7] = joints
    PLANT._forward(PLANT.model, PLANT.data)
    pose = LIMITS.chain.pose(joints)
    assert np.allclose(PLANT.data.site("tool").xpos, pose.position_m, atol=1e-9)
    assert np.allclose(PLANT.data.site("tool").xmat.reshape(3, 3), pose.rotation, atol=1e-9)


def test_at_home_the_arm_touches_nothing_and_folded_or_low_it_does() -> None:
    assert not COLLISION(HOME)
    assert COLLISION.touching(HOME) == []
    low = away(0, 1.2, 0, -0.2, 0, 0, 0)
    assert COLLISION(low)
    assert any("link0" not in pair for pair in COLLISION.touching(low))


@pytest.mark.parametrize("task", range(len(TASKS)))
def test_starts_are_official_and_no_two_are_alike(task: int) -> None:
    hashes = {PLANT.begin(task, start) for start in range(N_INITIAL_STATES)}
    assert len(hashes) == N_INITIAL_STATES
    assert PLANT.begin(task, 0) == PLANT.begin(task, 0)
    assert not PLANT.state().success
    PLANT.advance(PLANT.t_ns + 2 * 10**9)
    assert not PLANT.state().success
    assert PLANT.state().gripper_m == pytest.approx(LIMITS.gripper_open_m, abs=1e-3)


def test_a_task_or_a_start_that_is_not_there_is_refused() -> None:
    message = r"^the driver 'sim' was asked for task 3, start 0, and has 3 tasks and 25 starts: look at the arm "
    with pytest.raises(DriverError, match=message):
        PLANT.begin(3, 0)
    with pytest.raises(DriverError, match="task 0, start 25"):
        PLANT.begin(0, 25)


def lying(name: str, **where: float) -> dict:
    """Return where things are after a task's start, one of them moved."""
    things = {thing_name: thing(pose) for thing_name, pose in TASKS[2].placements(2, 0).items()}
    pose = np.array([where.get("x", 0.5), where.get("y", 0.0), where.get("z", 0.0), 1.0, 0, 0, 0])
    lean = where.get("lean", 0.0)
    pose[3:5] = np.cos(lean / 2), np.sin(lean / 2)
    return things | {name: thing(pose)}


@pytest.mark.parametrize(
    ("task", "things", "gripper_m", "done"),
    [
        (0, lying("bottle", lean=1.5, z=0.02), 0.0, True),
        (0, lying("bottle", lean=1.0, z=0.08), 0.0, False),
        (1, lying("cube", z=0.11), 0.04, True),
        (1, lying("cube", z=0.09), 0.04, False),
    ],
)
def test_success_is_what_the_sentence_says(task: int, things: dict, gripper_m: float, done: bool) -> None:
    assert TASKS[task].done(things, gripper_m) is done


@pytest.mark.parametrize(
    ("dx", "dz", "lean", "gripper_m", "done"),
    [
        (0.0, 0.0, 0.0, 0.08, True),
        (0.015, 0.005, 0.1, 0.05, True),
        (0.025, 0.0, 0.0, 0.08, False),
        (0.0, 0.02, 0.0, 0.08, False),
        (0.0, 0.0, 0.4, 0.08, False),
        (0.0, 0.0, 0.0, 0.03, False),
    ],
)
def test_a_block_is_covered_by_a_cup_that_stands_over_it_and_was_let_go(dx, dz, lean, gripper_m, done) -> None:
    block = TASKS[2].placements(2, 0)["block"]
    things = lying("cup", x=block[0] + dx, y=block[1], z=dz, lean=lean)
    assert TASKS[2].done(things, gripper_m) is done


def test_set_points_move_the_arm_without_overshoot_and_when_they_end_it_stands() -> None:
    plant = Plant(LIMITS)
    goal = away(0.1, 0, 0, 0, 0, 0, 0)
    for step in np.linspace(0, 1, 40):
        plant.aim(SetPoint(HOME + step * (goal - HOME), 0.08))
        plant.advance(plant.t_ns + LIMITS.period_ns)
    reached = []
    for _ in range(100):
        plant.advance(plant.t_ns + LIMITS.period_ns)
        reached.append(plant.state().joints_rad[0])
    assert max(reached) < 0.105
    assert reached[-1] == pytest.approx(0.1, abs=2e-3)


class Clock:
    def __init__(self) -> None:
        self.now_ns = 10**9

    def wait(self, n_ticks: int) -> None:
        self.now_ns += n_ticks * LIMITS.period_ns


def bench(driver) -> Bench:
    clock = Clock()
    return Bench(driver, LIMITS, lambda: clock.now_ns, clock.wait)


def test_the_simulated_arm_keeps_every_promise_of_a_driver() -> None:
    results = check_driver(bench(SimulatedArm(LIMITS)))
    assert [(promise, found) for promise, found in results if found] == []
    assert len(results) == 11


def test_a_driver_that_follows_at_once_keeps_every_promise_but_stopping() -> None:
    broken = [promise for promise, found in check_driver(bench(FakeDriver())) if found]
    assert broken == ["stop ignores set points until recover"]


class Drifting(FakeDriver):
    def read(self, now_ns):
        self.joints_rad = HOME + 1e-10 * (now_ns - 10**9)
        return super().read(now_ns)


class Sharing(FakeDriver):
    def read(self, now_ns):
        state = super().read(now_ns)
        object.__setattr__(state, "joints_rad", self.joints_rad)
        return state


class Lazy(FakeDriver):
    def command(self, set_point):
        self.sent.append(set_point)


class Jumpy(SimulatedArm):
    def hold(self):
        self.plant._rest(self.plant.data.qpos[:7] + 0.1, 0.08)


class Forgetful(SimulatedArm):
    n_begun = 0

    def begin(self, task, init_state):
        self.n_begun += 1
        return f"{self.n_begun:064d}"


@pytest.mark.parametrize(
    ("driver", "promise"),
    [
        (FakeDriver(raises_in={"connect"}), "it connects and names the arm of its limits"),
        (FakeDriver(overrides={"joints_rad": HOME * np.nan}), "a state is complete finite and fresh"),
        (FakeDriver(overrides={"gripper_m": 0.2}), "a state is complete finite and fresh"),
        (FakeDriver(age_ns=10**9), "a state is complete finite and fresh"),
        (FakeDriver(overrides={"t_ns": 10**9 + 5 * LIMITS.period_ns}), "time goes forward"),
        (Sharing(), "a state is the readers own"),
        (Drifting(), "without commands it stands"),
        (Lazy(), "it goes where it is told"),
        (Jumpy(LIMITS), "hold stands"),
        (Forgetful(LIMITS), "a trial begins the same way twice"),
        (FakeDriver(raises_in={"close"}), "it can be closed twice"),
    ],
)
def test_a_driver_that_breaks_a_promise_is_told_which(driver, promise: str) -> None:
    with np.errstate(invalid="ignore"):
        assert promise in [name for name, found in check_driver(bench(driver)) if found]


@pytest.mark.slow
def test_the_arm_in_its_own_process_keeps_every_promise_of_a_driver() -> None:
    import time

    driver = drivers.make("sim", LIMITS)
    results = check_driver(Bench(driver, LIMITS, time.monotonic_ns, lambda n: time.sleep(n * LIMITS.period_s)))
    assert [(promise, found) for promise, found in results if found] == []


def test_an_unknown_driver_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"^no robot driver named 'simm'\. Did you mean 'sim'"):
        drivers.make("simm", LIMITS)


def test_a_hundred_and_twenty_commands_out_of_range_leave_the_box_by_nothing() -> None:
    desk = Desk(SimulatedArm(LIMITS), collides=COLLISION)
    desk.supervisor.connect(desk.now_ns)
    desk.command("a", "acquire")
    desk.beating.add("a")
    desk.command("a", "home")
    desk.wait(0.1)
    assert desk.command("a", "arm", period_ms=100)["ok"]
    rng, beyond_m, verdicts = np.random.default_rng(0), 0.0, []
    for step in range(120):
        if step % 12 == 0:
            push = np.where(rng.uniform(size=3) < 0.5, -5.0, 5.0)
        verdicts.append(desk.act("a", [*push, 0, 0, 0, 1])["verdict"])
        for _ in range(9):
            desk.wait(0.01)
            position = LIMITS.chain.pose(desk.supervisor.state.joints_rad).position_m
            beyond = np.maximum(position - LIMITS.box_high_m, LIMITS.box_low_m - position)
            beyond_m = max(beyond_m, float(beyond.max()))
        if desk.phase == "HOLD":  # three refusals (a posture that cannot be reached) in a second
            desk.command("a", "arm", period_ms=100)
    assert beyond_m == 0.0
    assert verdicts.count("clamped") > 60
    assert verdicts.count("ok") == 0
    assert desk.phase in ("ACTIVE", "HOLD")
