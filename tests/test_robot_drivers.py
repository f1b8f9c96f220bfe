"""Drivers of other makers' arms keep the promises of every driver; tested here against their interfaces, not arms."""

import socket
import sys
import threading
import time

import numpy as np
import pytest
import robot_arms
from robot_arms import UR_HOME_RAD, UR_LIMITS, Controller, LeRobotArm
from robots import HOME, LIMITS

from vla_bench.errors import MissingPackageError, OptionError
from vla_bench_envs.robot import drivers
from vla_bench_envs.robot.conformance import Bench, check_driver
from vla_bench_envs.robot.driver import Driver
from vla_bench_envs.robot.drivers import robotiq, universal
from vla_bench_envs.robot.drivers.franka_hand import FrankaHand
from vla_bench_envs.robot.drivers.lerobot import LerobotArm
from vla_bench_envs.robot.drivers.worker import Worker
from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.kinematics import UR5E
from vla_bench_envs.robot.limiter import SetPoint

LEROBOT = {"make": "robot_arms:LeRobotArm", "joints": LeRobotArm.names, "gripper": "gripper.pos"}


def patient(condition, patience_s: float = 5.0) -> bool:
    deadline = time.monotonic() + patience_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(condition())


def broken(driver: Driver, limits=LIMITS) -> list[tuple[str, str]]:
    """Return the promises that a driver breaks, in real time."""
    bench = Bench(driver, limits, time.monotonic_ns, lambda n_ticks: time.sleep(n_ticks * limits.period_s))
    results = check_driver(bench)
    assert len(results) == 11
    return [(promise, found) for promise, found in results if found]


@pytest.fixture
def controller(monkeypatch) -> Controller:
    made = Controller()
    for name, module in made.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(universal, "UNLOCK_S", 0.0)
    return made


@pytest.mark.parametrize(
    ("driver", "package", "extra", "module"),
    [("franky", "franky-control", "franky", "franky"), ("ur", "ur_rtde", "ur", "rtde_control")],
)
def test_a_driver_without_its_package_says_what_to_install(driver, package, extra, module, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingPackageError, match=rf"^'{driver}' needs '{package}'.* pip install 'vla-bench\[{extra}\]'"
    ):
        drivers.make(driver, UR_LIMITS, {"address": "127.0.0.1"})


def test_a_driver_names_the_options_that_it_takes() -> None:
    with pytest.raises(OptionError, match=r"of the driver 'lerobot': make: .*missing a required argument: 'joints'"):
        drivers.make("lerobot", LIMITS, {"make": "robot_arms:LeRobotArm"})
    with pytest.raises(OptionError, match=r"got an unexpected keyword argument 'adress'"):
        drivers.make("sim-lockstep", LIMITS, {"adress": "127.0.0.1"})
    with pytest.raises(OptionError, match=r"^joints is .*; expected 7 names, the joints of 'panda'"):
        LerobotArm(LIMITS, **(LEROBOT | {"joints": ("one",)}))
    with pytest.raises(OptionError, match=r"^make is 'robot_arms:Nobody'; expected package\.module:name of something"):
        LerobotArm(LIMITS, **(LEROBOT | {"make": "robot_arms:Nobody"}))
    with pytest.raises(OptionError, match=r"^units is 'turns'; expected one of degrees, radians"):
        LerobotArm(LIMITS, **LEROBOT, units="turns")
    with pytest.raises(OptionError, match=r"^gripper_open is 0\.0; expected another number than gripper_closed"):
        LerobotArm(LIMITS, **LEROBOT, gripper_open=0.0)


def test_a_ur_keeps_the_promises_of_a_driver(controller) -> None:
    assert broken(drivers.make("ur", UR_LIMITS, {"address": "127.0.0.1"}), UR_LIMITS) == []
    assert controller.done[-2:] == ["stopScript", "disconnect"]


def test_a_ur_that_is_stopped_or_whose_program_ends_is_a_fault(controller) -> None:
    point = SetPoint(np.array(UR_HOME_RAD), 0.0)
    arm = drivers.make("ur", UR_LIMITS, {"address": "127.0.0.1"})
    with pytest.raises(DriverError, match="is not connected"):
        arm.read(0)
    controller.protective = True
    with pytest.raises(DriverError, match=r"finds the arm at 127\.0\.0\.1 stopped; release it at its own panel"):
        arm.connect(0)
    controller.protective = False
    arm.connect(0)
    controller.protective = True
    assert arm.read(1).collision  # not ours: the controller's own protection
    controller.protective, controller.running = False, False
    with pytest.raises(DriverError, match="the program on the controller has ended"):
        arm.command(point)
    controller.connected = False
    with pytest.raises(DriverError, match="has lost the controller"):
        arm.read(1)
    with pytest.raises(DriverError, match=r"cannot open nowhere \(Failed to start control script"):
        drivers.make("ur", UR_LIMITS, {"address": "nowhere"}).connect(0)
    with pytest.raises(OptionError, match="gripper is 'hook'; expected one of none, robotiq"):
        drivers.make("ur", UR_LIMITS, {"address": "127.0.0.1", "gripper": "hook"})


def test_a_ur_whose_clock_stands_gives_an_old_state(controller) -> None:
    arm = drivers.make("ur", UR_LIMITS, {"address": "127.0.0.1"})
    arm.connect(0)
    controller.still = True
    assert [arm.read(now_ns).t_ns for now_ns in (10, 20, 30)] == [10, 10, 10]
    controller.still = False
    assert arm.read(40).t_ns == 40


def test_a_protective_stop_is_not_released_too_early(controller, monkeypatch) -> None:
    monkeypatch.setattr(universal, "UNLOCK_S", 5.5)
    arm = drivers.make("ur", UR_LIMITS, {"address": "127.0.0.1"})
    arm.connect(0)
    arm.stop()
    assert not arm.read(1).collision  # it was asked for
    with pytest.raises(DriverError, match=r"cannot recover for another [56] s"):
        arm.recover()


def test_a_ur5e_at_zero_is_where_its_maker_says() -> None:
    flange = UR5E.pose(np.zeros(6)).position_m - UR5E.pose(np.zeros(6)).rotation[:, 2] * UR5E.flange_m
    assert np.allclose(flange, [-0.8172, -0.2329, 0.0628], atol=1e-9)


@pytest.mark.sim
def test_a_ur5e_at_home_touches_nothing_and_folded_it_does() -> None:
    from vla_bench_envs.robot.tabletop.collision import Collision

    collides = Collision(UR_LIMITS)
    assert collides.touching(np.array(UR_HOME_RAD)) == []
    assert collides(np.array([3.1416, 0.3, 0.5, -1.97, -1.5708, 0.0]))  # into the table
    assert collides(np.array([3.1416, -1.5, 3.0, -1.5, -1.5708, 0.0]))  # the forearm on the upper arm


class Gripper(threading.Thread):
    """Robotiq's URCap: registers that are set and read, one line each."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.registers = {"POS": 0}
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]

    def run(self) -> None:
        end, _ = self._listening.accept()
        with end, self._listening:
            while line := end.recv(64).decode():
                kind, name, *value = line.split()
                if kind == "SET":
                    self.registers[name] = int(value[0])
                end.sendall(b"ack\n" if kind == "SET" else f"{name} {self.registers[name]}\n".encode())


def test_a_robotiq_gripper_follows_set_points() -> None:
    served = Gripper()
    served.start()
    gripper = robotiq.Robotiq("127.0.0.1", UR_LIMITS, served.port)
    try:
        assert gripper.width_m == UR_LIMITS.gripper_open_m
        assert served.registers == {"POS": 0, "ACT": 1, "GTO": 1, "SPE": 255, "FOR": 100}
        for wished_m, position in ((0.0, 255), (0.085 / 2, 128), (1.0, 0)):
            gripper.aim(wished_m)
            assert patient(lambda position=position: served.registers["POS"] == position)
            assert patient(lambda position=position: gripper.width_m == pytest.approx(0.085 * (1 - position / 255)))
    finally:
        gripper.close()
    served.join(5)
    with pytest.raises(DriverError, match=r"cannot open the gripper at 127\.0\.0\.1:"):
        robotiq.Robotiq("127.0.0.1", UR_LIMITS, served.port)


def test_a_robot_of_lerobot_keeps_the_promises_of_a_driver() -> None:
    assert broken(drivers.make("lerobot", LIMITS, LEROBOT)) == []


def test_a_robot_of_lerobot_is_told_its_own_units(monkeypatch) -> None:
    made = []
    monkeypatch.setattr(robot_arms, "made", lambda: made.append(LeRobotArm()) or made[0], raising=False)
    arm = drivers.make("lerobot", LIMITS, LEROBOT | {"make": "robot_arms:made"})
    arm.connect(0)
    try:
        assert np.allclose(arm.read(0).joints_rad, HOME)
        assert arm.read(0).gripper_m == LIMITS.gripper_open_m
        arm.command(SetPoint(HOME + 0.01, LIMITS.gripper_open_m / 4))
        assert patient(lambda: made[0].sent)
        assert np.allclose([made[0].sent[0][name] for name in LeRobotArm.names], np.degrees(HOME + 0.01))
        assert made[0].sent[0]["gripper.pos"] == pytest.approx(25.0)
        assert patient(lambda: arm.read(0).gripper_m == pytest.approx(LIMITS.gripper_open_m / 4))
    finally:
        arm.close()
    assert not made[0].is_connected


def test_a_robot_of_lerobot_that_loses_a_motor_is_a_fault() -> None:
    arm = drivers.make("lerobot", LIMITS, LEROBOT | {"robot": {"fails_after": 3}})
    arm.connect(0)

    def lost() -> bool:
        try:
            arm.read(0)
        except DriverError as caught:
            return "has lost its device (ConnectionError: motor 3 does not answer)" in str(caught)
        return False

    assert patient(lost)
    arm.close()
    with pytest.raises(DriverError, match=r"observes no joint_2\.pos; it has joint_0\.pos, joint_1\.pos"):
        drivers.make("lerobot", LIMITS, LEROBOT | {"robot": {"lacks": "joint_2.pos"}}).connect(0)


class Hand:
    """What `franky.Gripper` shows, with motions that never end by themselves."""

    def __init__(self) -> None:
        self.width, self.done = 0.08, []
        self.state = self

    def grasp_async(self, width, speed, force, inner, outer):
        self.done.append("grasp")
        return self

    def move_async(self, width, speed):
        self.done.append("move")
        return self

    def stop(self):
        self.done.append("stop")

    def wait(self, seconds):
        return False


def test_a_franka_hand_turns_around_once_for_each_change_of_mind() -> None:
    gripper = Hand()
    hand = FrankaHand(gripper, LIMITS)
    try:
        for wished_m in (0.08, 0.078, 0.06, 0.03, 0.0):  # a limiter's way down
            hand.aim(wished_m)
            time.sleep(0.06)
        assert patient(lambda: gripper.done == ["grasp"])
        for wished_m in (0.002, 0.02, 0.08):
            hand.aim(wished_m)
            time.sleep(0.06)
        assert patient(lambda: gripper.done[1:] == ["stop", "move"])
    finally:
        hand.close()


def test_a_worker_that_ends_says_why() -> None:
    worker = Worker("franky", lambda: 1 // 0, 0.0)
    with pytest.raises(DriverError, match=r"has lost its device \(ZeroDivisionError: "):
        patient(worker.check)
    worker.close()
    worker.close()
