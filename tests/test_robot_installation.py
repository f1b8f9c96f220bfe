"""An arm as its operator describes it: what a robot file must state, and how its name keeps records apart."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from robot_servers import PATIENCE, Server, limits_with

from vla_bench import cli, registry
from vla_bench.testing.promises import same
from vla_bench_envs.robot import installation
from vla_bench_envs.robot.environment import RealRobotEnv
from vla_bench_envs.robot.errors import DriverError, RobotFileError, RobotRefusedError, ServerNeededError
from vla_bench_envs.robot.evaluation.folder import Folder
from vla_bench_envs.robot.limits import SIMULATED
from vla_bench_envs.robot.photography import Photography, cut
from vla_bench_envs.robot.suites import PROTOCOLS, SUITE

SHIPPED = SIMULATED.with_name("simulated_as_libero.toml")
PHYSICAL = """
suite = "{suite}"
driver = "lerobot"
limits = "{limits}"
control_hz = 15
image_size_px = 64

[options]
make = "robot_arms:LeRobotArm"
joints = ["joint_0.pos", "joint_1.pos", "joint_2.pos", "joint_3.pos", "joint_4.pos", "joint_5.pos", "joint_6.pos"]

[cameras.side]
make = "robot_cameras:Grey"

[[tasks]]
name = "drawer"
instruction = "open the top drawer"
horizon_steps = 30
n_starts = 4
"""


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Forget the suites that a test registers."""
    monkeypatch.setattr(registry, "_registered", {})
    registry.suites.cache_clear()
    yield
    registry.suites.cache_clear()


def robot_file(folder: Path, suite: str = "my-lab-drawer@1", changes: dict[str, str] | None = None) -> Path:
    text = PHYSICAL.format(suite=suite, limits=SIMULATED)
    for found, put in (changes or {}).items():
        assert f"\n{found} = " in text
        text = "\n".join(f"{found} = {put}" if line.startswith(f"{found} = ") else line for line in text.split("\n"))
    path = folder / f"{suite.replace('@', '-')}.toml"
    path.write_text(text)
    return path


def test_a_robot_file_names_a_suite_whose_protocol_is_its_alone(tmp_path) -> None:
    one, other, later = (
        installation.load(robot_file(tmp_path, suite)).suite
        for suite in ("my-lab-drawer@1", "my-lab-cups@1", "my-lab-drawer@2")
    )
    (task,) = one.tasks()
    assert (task.suite, task.instruction, task.horizon, task.n_initial_states) == (
        "my-lab-drawer@1", "open the top drawer", 30, 4,
    )  # fmt: skip
    assert task.control_hz == 15
    protocols = [suite.protocols()[suite.default_protocol] for suite in (one, other, later)]
    assert [protocol.cameras for protocol in protocols] == [("side",)] * 3
    assert len({protocol.hash for protocol in protocols}) == 3
    unnamed = {replace(protocol, name="").hash for protocol in protocols}
    assert len(unnamed) == 1  # nothing but the name tells them apart
    with pytest.raises(ServerNeededError, match=r"^'my-lab-drawer@1' is played on a physical arm: start its server"):
        one.make(protocols[0])


def test_the_installed_tabletop_has_the_protocols_that_it_had() -> None:
    assert {name: protocol.hash for name, protocol in PROTOCOLS.items()} == HASHES
    assert SUITE.default_protocol == "tabletop"


HASHES = {"tabletop": "d0aa8a8daefb3117", "tabletop-small": "0d10009ec26e5861"}
"""Released records have them."""


@pytest.mark.parametrize(
    ("found", "put", "message"),
    [
        ("suite", '"drawer"', "suite is 'drawer', expected a name with its version, for example 'my-lab-drawer@1'"),
        ("suite", '"tabletop-sim@1"', "suite is 'tabletop-sim@1', which is another suite's name; choose your own"),
        ("suite", '"libero-object@1"', "suite is 'libero-object@1', which is another suite's name"),
        ("limits", "3", "states no limits"),
        ("control_hz", "0", "control_hz is 0, expected a number above 0, up to 100"),
        ("image_size_px", "9", "image_size_px is 9, expected 32 to 512"),
        ("horizon_steps", "-1", "a task has a number below 0, expected text and numbers above 0"),
        ("n_starts", '"4"', "a task has n_starts, expected text and numbers above 0"),
        ("instruction", '"open it!"', r"an instruction has \['!'\]; it may have small letters, digits, spaces"),
        ("make", "1", "camera 'side' needs either device"),
        ("driver", '"sim"', "camera 'side' of a simulated arm needs scene = one of front, wrist"),
    ],
)
def test_a_robot_file_that_is_wrong_is_refused(found, put, message, tmp_path) -> None:
    path = robot_file(tmp_path, changes={found: put})
    if found == "make":
        path.write_text(path.read_text().replace("[cameras.side]\nmake = 1", "[cameras.side]"))
    with pytest.raises(RobotFileError, match=message):
        installation.load(path)


def test_a_robot_file_that_states_too_little_or_too_much_is_refused(tmp_path) -> None:
    path = robot_file(tmp_path)
    text = path.read_text()
    for cut_at, message in (("[[tasks]]", "states no tasks"), ("[cameras.side]", "states no cameras")):
        path.write_text(text.split(cut_at)[0])
        with pytest.raises(RobotFileError, match=message):
            installation.load(path)
    path.write_text(f'address = "127.0.0.1"\n{text}')
    with pytest.raises(RobotFileError, match="states address; known: cameras, control_hz, driver"):
        installation.load(path)
    task = text[text.index("[[tasks]]") :]
    path.write_text(f"{text}\n{task}")
    with pytest.raises(RobotFileError, match="states two tasks of one name"):
        installation.load(path)
    with pytest.raises(RobotFileError, match="cannot be read"):
        installation.load(tmp_path / "missing.toml")


def test_a_plan_keeps_what_its_robot_file_said(tmp_path) -> None:
    path, out = robot_file(tmp_path), tmp_path / "pilot"
    words = ["robot", "plan", "--out", str(out), "--policy", "toy", "--methods", "full", "action-reuse:2"]
    registry.register("policy", "toy", object)
    assert cli.main([*words, "--robot", str(path), "--starts", "2"]) == 0
    path.unlink()
    plan = Folder(out).plan()
    assert plan.suite == plan.protocol == "my-lab-drawer@1"
    resolved = plan.resolve()
    assert resolved.tasks[0].instruction == "open the top drawer"
    found = json.loads((out / "plan.json").read_text())
    found["plan"]["robot"]["tasks"][0]["instruction"] = "close it"
    (out / "plan.json").write_text(json.dumps(found))
    assert cli.main(["robot", "run", str(out)]) == 2  # the plan was changed


@pytest.mark.sim
def test_the_shipped_file_shows_the_simulated_arm_under_liberos_names() -> None:
    suite = installation.load(SHIPPED).suite
    protocol = suite.protocols()[suite.default_protocol]
    env, plain = suite.make(protocol, "eager"), SUITE.make(PROTOCOLS["tabletop-small"], "eager")
    try:
        shown, own = (one.reset(seed=0, options={"task": 1, "init_state": 3})[0] for one in (env, plain))
    finally:
        env.close()
        plain.close()
    assert protocol.hash != PROTOCOLS["tabletop-small"].hash
    assert set(shown) == {"agentview", "robot0_eye_in_hand", "proprio", "instruction"}
    assert same(shown["agentview"], own["front"])
    assert same(shown["robot0_eye_in_hand"], own["wrist"])


@pytest.mark.sim
def test_a_physical_arm_is_played_under_its_own_name_alone(tmp_path) -> None:
    patient = tmp_path / "patient.toml"
    patient.write_text(limits_with(**PATIENCE))
    robot = robot_file(tmp_path, changes={"limits": f'"{patient}"'})
    found = installation.load(robot)
    server = Server(tmp_path, "--robot", str(robot), "--live", limits=False)
    try:
        assert "(driver lerobot, live, limits " in server.announced
        assert "suite my-lab-drawer@1)" in server.announced
        with pytest.raises(RobotRefusedError, match=r"it serves 'my-lab-drawer@1', expected 'tabletop-sim@1'"):
            RealRobotEnv(server.url, "tabletop").reset(seed=0)
        placed = []
        env = RealRobotEnv(
            server.url,
            "my-lab-drawer@1",
            suite=found.suite,
            place=lambda task, start: placed.append((task.name, start)),
        )
        obs, info = env.reset(seed=0, options={"task": 0, "init_state": 3})
        assert info["suite"] == "my-lab-drawer@1"
        assert placed == [("drawer", 3)]
        assert obs["side"].shape == (64, 64, 3)
        before = obs["proprio"][1]
        for _ in range(5):
            obs, _, terminated, _, _ = env.step(np.array([0, 0.4, 0, 0, 0, 0, -1], np.float32))
        assert obs["proprio"][1] - before > 0.02
        assert not terminated
        env.close()
    finally:
        assert "Traceback" not in server.close()


def test_cameras_show_their_newest_frame_and_none_that_is_old(monkeypatch) -> None:
    source = {"make": "robot_cameras:Grey"}
    cameras = Photography({"left": source, "right": source | {"hangs_after": 2}}, 32)
    try:
        assert cameras.names == ("left", "right")
        first = cameras.draw(None)["left"][0, 0, 0]
        time.sleep(0.8)
        drawn = cameras.draw(None)
        assert list(drawn) == ["left"]  # the right one hangs, and its last frame is older than half a second
        assert drawn["left"].shape == (32, 32, 3)
        assert drawn["left"][0, 0, 0] > first
        assert 0 <= time.monotonic_ns() - cameras.captured_ns["left"] < 500_000_000
    finally:
        cameras.close()
    monkeypatch.setattr("vla_bench_envs.robot.photography.FIRST_S", 0.2)
    for broken, message in (
        ({"hangs_after": 0}, r"'camera left' gave no picture within 0 s"),
        ({"fails_after": 0}, r"'camera left' has lost its device \(TimeoutError: no frame within 1 s\)"),
        ({"shape": (4, 4)}, r"gives uint8 \(4, 4\), not uint8 \(h, w, 3\)"),
    ):
        with pytest.raises(DriverError, match=message):
            Photography({"left": source | broken}, 32)


def test_the_middle_square_of_a_picture_is_kept() -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 8:56] = 200
    assert (cut(picture, 24) == 200).all()
    assert cut(picture, 24).shape == (24, 24, 3)


def test_a_camera_that_opencv_cannot_open_is_refused(tmp_path) -> None:
    pytest.importorskip("cv2")
    with pytest.raises(DriverError, match="cannot be opened by OpenCV"):
        Photography({"front": {"device": str(tmp_path / "no.avi")}}, 32)


def test_opencv_plays_a_film_as_a_camera(tmp_path) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48))
    for _ in range(90):
        writer.write(np.full((48, 64, 3), (250, 5, 5), np.uint8))  # OpenCV writes blue first
    writer.release()
    cameras = Photography({"front": {"device": str(tmp_path / "film.avi")}}, 32)
    try:
        red, _, blue = cameras.draw(None)["front"][16, 16]
    finally:
        cameras.close()
    assert (int(red) < 40, int(blue) > 200) == (True, True)
