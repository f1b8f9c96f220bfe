"""SIMPLER's tables, assets, downloads and drivers: all that needs neither the simulator nor its assets."""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from vla_bench.errors import OptionError, UnknownNameError
from vla_bench.suite import Suite
from vla_bench.types import ActionSpec
from vla_bench_envs.simpler import assets, startup, vulkan
from vla_bench_envs.simpler.demonstrations.initial_states import NoRoomError
from vla_bench_envs.simpler.download import Source, fetch
from vla_bench_envs.simpler.environment import SimplerEnv
from vla_bench_envs.simpler.errors import (
    DownloadError,
    MissingAssetsError,
    MissingSimulatorError,
    MissingVulkanError,
    OtherAssetsError,
    SimulatorVersionError,
)
from vla_bench_envs.simpler.pictures import is_shown
from vla_bench_envs.simpler.protocols import PROTOCOLS
from vla_bench_envs.simpler.suites import NAME, SUITES, find_suite

SUITE = SUITES[NAME]


@pytest.fixture
def no_assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
    return tmp_path / "data"


def put_stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(assets.MADE_UP))
    path = folder / assets.DATASET / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a box")
    monkeypatch.setitem(assets.MADE_UP, name, hashlib.sha256(b"a box").hexdigest())


def test_a_suite_is_a_suite_of_four_tasks_with_24_starts(no_assets: Path) -> None:
    assert isinstance(SUITE, Suite)
    assert SUITE.default_protocol in SUITE.protocols()
    tasks = SUITE.tasks()
    assert [(task.name, task.horizon, task.n_initial_states) for task in tasks] == [
        ("spoon_on_towel", 60, 24),
        ("carrot_on_plate", 60, 24),
        ("stack_cube", 60, 24),
        ("put_eggplant_in_basket", 120, 24),
    ]
    assert {task.control_hz for task in tasks} == {5.0}


def test_actions_mean_what_cogact_answers_on_this_robot() -> None:
    expected = ActionSpec(translation_m=1.0, rotation_rad=1.0, gripper="open_is_positive")
    assert all(task.action_spec.differences(expected) == [] for task in SUITE.tasks())
    assert {protocol.gripper for protocol in PROTOCOLS.values()} == {"open_is_positive"}


def test_no_two_protocols_share_a_hash_and_stand_ins_are_other_protocols() -> None:
    presets = [preset.with_assets(kind) for preset in PROTOCOLS.values() for kind in ("official", "stand-in")]
    assert len({preset.hash for preset in presets}) == len(presets) == 8
    assert len({preset.name for preset in presets}) == 8
    assert PROTOCOLS["simpler-120"].horizon(NAME, 60) == 120


def test_stand_ins_show_in_the_name_that_every_record_has(no_assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(SUITE.protocols()["simpler"]).startswith("simpler-")
    assert "stand-in" not in str(SUITE.protocols()["simpler"])
    put_stand_in(no_assets, monkeypatch)
    assert str(SUITE.protocols()["simpler"]).startswith("simpler-stand-in-")
    assert SimplerEnv(protocol="simpler").protocol.assets == "stand-in"


def test_a_protocol_for_other_assets_is_refused(no_assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_stand_in(no_assets, monkeypatch)
    with pytest.raises(OtherAssetsError) as caught:
        SimplerEnv(protocol=PROTOCOLS["simpler"]).reset()
    assert str(caught.value) == (
        "the protocol 'simpler' is for official assets and MS_ASSET_DIR holds stand-in ones: take the protocol from "
        "the suite ('vla-bench list'), or set MS_ASSET_DIR"
    )


def test_missing_assets_are_named_with_what_to_do(no_assets: Path) -> None:
    with pytest.raises(MissingAssetsError) as caught:
        assets.check()
    assert str(caught.value) == (
        f"{no_assets} lacks {', '.join(assets.NEEDED)}: run 'vla-bench simpler-fetch', or set MS_ASSET_DIR to the "
        f"folder above a 'data' folder that has them"
    )


def test_a_missing_or_other_simulator_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.0")
    with pytest.raises(SimulatorVersionError, match=r"mani_skill 2\.0 is installed, the suite is defined on 3\.0\.1 "):
        startup.check_versions()

    def absent(_: str) -> str:
        raise startup.importlib.metadata.PackageNotFoundError("mani_skill")

    monkeypatch.setattr("importlib.metadata.version", absent)
    with pytest.raises(MissingSimulatorError, match=r"pip install 'vla-bench\[simpler\]'$"):
        startup.check_versions()


def test_unknown_names_are_refused(no_assets: Path) -> None:
    with pytest.raises(UnknownNameError, match="no SIMPLER suite named 'simpler'"):
        find_suite("simpler")
    with pytest.raises(UnknownNameError, match="Did you mean 'reference'"):
        SimplerEnv(protocol="referense")
    with pytest.raises(UnknownNameError, match="no task of simpler-widowx@1 named 'fly'"):
        SUITE.task("fly")
    with pytest.raises(OptionError, match="task is 4; expected a name, or an index from 0 to 3"):
        SUITE.task(4)
    with pytest.raises(OptionError, match="images is 'never'"):
        SimplerEnv(images="never")  # type: ignore[arg-type]


def test_making_an_environment_imports_no_simulator() -> None:
    code = (
        "import sys, vla_bench\n"
        "from vla_bench_envs.simpler.suites import SUITES\n"
        "from vla_bench_envs.simpler import registration\n"
        "import gymnasium\n"
        "registration.register_environments()\n"
        "registration.register_environments()\n"
        "gymnasium.make('vla_bench/SimplerWidowX-v0').unwrapped\n"
        "suite = SUITES['simpler-widowx@1']\n"
        "suite.make(suite.protocols()['simpler'])\n"
        "assert not {'mani_skill', 'sapien', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_user_names_stays_and_a_gpu_needs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vulkan.sys, "platform", "linux")
    monkeypatch.setattr(vulkan, "PLACES", (f"{tmp_path}/chromium*/{vulkan.ICD}",))
    icd = tmp_path / "chromium-9" / vulkan.ICD
    icd.parent.mkdir()
    icd.write_text("{}")
    for gpu, named, expected in ((False, "mine", "mine"), (True, "", ""), (False, "", str(icd))):
        monkeypatch.setattr(vulkan, "has_gpu", lambda gpu=gpu: gpu)
        monkeypatch.setenv("VK_ICD_FILENAMES", named)
        monkeypatch.delenv("VK_DRIVER_FILES", raising=False)
        vulkan.prepare_driver()
        assert vulkan.os.environ["VK_ICD_FILENAMES"] == expected


def test_without_a_driver_the_message_says_what_to_install() -> None:
    assert str(MissingVulkanError("failed to find a rendering device", "")) == (
        "SAPIEN cannot draw (failed to find a rendering device; no driver named, and no SwiftShader found): install a "
        "GPU's Vulkan driver, or for drawing without a GPU SwiftShader ('apt-get install chromium' on Debian brings "
        "it), or name a driver's JSON file in VK_ICD_FILENAMES; Mesa's lavapipe is refused by SAPIEN"
    )


def test_kept_segments_are_those_in_the_list() -> None:
    rng = np.random.default_rng(0)
    segments = rng.integers(0, 20, (6, 7)).astype(np.int16)
    kept = np.array([1, 4, 19], dtype=np.int32)
    np.testing.assert_array_equal(is_shown(segments, kept), np.isin(segments, kept))
    np.testing.assert_array_equal(is_shown(segments, np.array([40])), np.zeros((6, 7), bool))


def test_pictures_have_the_size_that_the_protocol_says() -> None:
    assert PROTOCOLS["simpler"].picture_px == (480, 640)
    assert PROTOCOLS["reference"].picture_px == (128, 128)


def test_a_task_without_room_for_demonstrations_is_named() -> None:
    assert str(NoRoomError("stack_cube", 200)) == (
        "'stack_cube': none of 200 draws is 2 mm away from every official initial state with its objects apart: "
        "demonstrations of it would start where policies are evaluated; leave the task out"
    )


class Archive(BaseHTTPRequestHandler):
    """Serves `content`, the first time no more than `first` bytes of it."""

    content = b""
    first = 0
    asked: list[str | None] = []

    def do_GET(self) -> None:
        ranged = self.headers.get("Range")
        begin = int(ranged.removeprefix("bytes=").removesuffix("-")) if ranged else 0
        self.asked.append(ranged)
        rest = self.content[begin:]
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.first] if len(self.asked) == 1 and self.first else rest)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the standard library
        """Say nothing."""


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[str, type[Archive]]]:
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("thing-1.0/mesh.obj", "v 0 0 0\n" * 500)
    handler = type("Served", (Archive,), {"content": path.read_bytes(), "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/thing.zip", handler
    server.shutdown()
    server.server_close()


def test_a_download_goes_on_where_it_stopped(archive: tuple[str, type[Archive]], tmp_path: Path) -> None:
    url, served = archive
    served.first = 40
    source = Source(url, tmp_path / "data" / "thing", hashlib.sha256(served.content).hexdigest())
    with pytest.raises(DownloadError, match=r"run 'vla-bench simpler-fetch' again, which goes on where it stopped$"):
        fetch(source, show_progress=False)
    assert not source.target.exists()
    assert fetch(source, show_progress=False)
    assert served.asked == [None, "bytes=40-"]
    assert (source.target / "mesh.obj").read_text().startswith("v 0 0 0\n")
    assert [path.name for path in source.target.parent.iterdir()] == ["thing"], "nothing else is left"
    assert not fetch(source), "what is there is not fetched again"


def test_a_download_that_is_something_else_is_refused_and_removed(
    archive: tuple[str, type[Archive]], tmp_path: Path
) -> None:
    url, served = archive
    with pytest.raises(
        DownloadError, match=f"its SHA-256 is [0-9a-f]{{64}}, expected {'0' * 64}; what came is removed"
    ):
        fetch(Source(url, tmp_path / "data" / "thing", "0" * 64), show_progress=False)
    served.content = b"no archive"
    with pytest.raises(DownloadError, match="is no sound archive"):
        fetch(Source(url, tmp_path / "data" / "thing", None), show_progress=False)
    assert list((tmp_path / "data").iterdir()) == []
