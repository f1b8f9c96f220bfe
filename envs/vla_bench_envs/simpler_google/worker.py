"""Play SIMPLER's Google robot in an interpreter that has the official package; frames on stdin are answered on stdout.

A script for another Python (3.10) and another NumPy (1) than vla-bench's: it imports the standard library, NumPy and
simpler_env with what that brings, and nothing of vla-bench. vla-bench imports it for the frames.

A frame is eight bytes `vla-sg-1`, two lengths (unsigned, four bytes, big end first), a header in JSON, and the bytes of
the arrays that `header["arrays"]` describes by name, type and shape. Nothing is pickled.

It ends when stdin does, and an exception ends it: whoever asked finds the traceback on stderr.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import struct
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

try:
    np: Any = importlib.import_module("numpy")
except ImportError:  # `hello` says so, in a frame that needs no array
    np = None

MAGIC = b"vla-sg-1"
"""What a frame begins with: its last character is the version of this conversation."""

LENGTHS = struct.Struct(">II")

PACKAGES = ("simpler_env", "mani_skill2_real2sim")
"""Of which every source file is hashed: their versions have not changed since 2024, their sources have."""

DISTRIBUTIONS = (*PACKAGES, "sapien", "numpy", "gymnasium")


class FrameError(ValueError):
    """Bytes that are no frame."""


def encode(header: dict, arrays: dict | None = None) -> bytes:
    """Return a frame of a header (JSON values) and arrays by name."""
    blobs = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    described = [[name, blob.dtype.str, list(blob.shape)] for name, blob in blobs.items()]
    head = json.dumps({**header, "arrays": described}).encode()
    body = b"".join(blob.tobytes() for blob in blobs.values())
    return MAGIC + LENGTHS.pack(len(head), len(body)) + head + body


def decode(read: Callable[[int], bytes]) -> tuple[dict, dict]:
    """Return header and arrays of the next frame; `read(n)` returns n bytes, fewer only at the end.

    Raises:
        EOFError: If no whole frame is left.
        FrameError: If what is read does not begin like a frame.
    """
    begin = read(len(MAGIC) + LENGTHS.size)
    if begin[: len(MAGIC)] != MAGIC[: len(begin)]:
        raise FrameError(repr(begin))
    n_head, n_body = LENGTHS.unpack(whole(begin, len(MAGIC) + LENGTHS.size)[len(MAGIC) :])
    header, body = json.loads(whole(read(n_head), n_head)), whole(read(n_body), n_body)
    arrays, offset = {}, 0
    for name, kind, shape in header.pop("arrays"):
        dtype, size = np.dtype(kind), int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(body, dtype, size, offset).reshape(shape).copy()
        offset += size * dtype.itemsize
    return header, arrays


def whole(part: bytes, n_bytes: int) -> bytes:
    """Return a part that has so many bytes; with fewer it is the end."""
    if len(part) < n_bytes:
        raise EOFError
    return part


class Player:
    """One environment at a time, as the evaluation scripts have it: a new one for every episode."""

    def __init__(self) -> None:
        self.env: Any = None
        self.obs: Any = None

    def hello(self, header: dict, arrays: dict) -> tuple[dict, dict]:
        """Import the package and say what is there, or what is missing."""
        os.environ["DISPLAY"] = ""  # simpler_env/main_inference.py
        try:
            for name in ("numpy", *PACKAGES):
                importlib.import_module(name)
            self.builder = importlib.import_module("simpler_env.utils.env.env_builder")
            self.reader = importlib.import_module("simpler_env.utils.env.observation_utils")
        except ImportError as caught:
            return {"missing": caught.name or "simpler_env", "cause": f"{type(caught).__name__}: {caught}"}, {}
        versions = {name: version(name) for name in DISTRIBUTIONS}
        return {"python": platform.python_version(), "versions": versions, "sources_sha256": sources_sha256()}, {}

    def reset(self, header: dict, arrays: dict) -> tuple[dict, dict]:
        """Build an environment and reset it, both with what the header says."""
        if self.env is not None:
            self.env.close()
        assets = importlib.import_module("mani_skill2_real2sim").ASSET_DIR
        overlay = os.path.join(str(assets), "real_inpainting", header["overlay"]) if header["overlay"] else None
        self.env = self.builder.build_maniskill2_env(header["env_id"], rgb_overlay_path=overlay, **header["build"])
        objects = {"init_xy": arrays["object_xy"]} if "object_xy" in arrays else {"episode_id": header["episode_id"]}
        robot = {"init_xy": arrays["robot_xy"], "init_rot_quat": arrays["robot_quaternion"]}
        self.obs, info = self.env.reset(options={"robot_init_options": robot, "obj_init_options": objects})
        return self.moment({"facts": {key: plain(value) for key, value in info.items() if is_plain(value)}})

    def step(self, header: dict, arrays: dict) -> tuple[dict, dict]:
        """Apply one action."""
        self.obs, _, _, _, info = self.env.step(arrays["action"])
        return self.moment({"success": bool(info["success"]), "stats": plain(info.get("episode_stats", {}))})

    def picture(self, header: dict, arrays: dict) -> tuple[dict, dict]:
        """Return the picture that the last reset or step has drawn, row 0 at the top."""
        return {}, {"picture": self.reader.get_image_from_maniskill2_obs_dict(self.env, self.obs, header["camera"])}

    def moment(self, header: dict) -> tuple[dict, dict]:
        """Return an answer with the sentence, the robot's joints, and the poses of its base and of its tool."""
        inner = self.env.unwrapped
        tool, agent = inner.tcp.pose, self.obs["agent"]
        arrays = {"qpos": agent["qpos"], "base_pose": agent["base_pose"], "tool_pose": np.hstack([tool.p, tool.q])}
        header["instruction"] = str(inner.get_language_instruction())
        header["is_final_subtask"] = bool(inner.is_final_subtask())
        return header, {name: np.asarray(array, np.float64) for name, array in arrays.items()}


def version(name: str) -> str:
    """Return the version of a distribution, or `unknown`."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def sources_sha256() -> str:
    """Return the hash of names and contents of both packages' Python files."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        root = os.path.dirname(str(sys.modules[package].__file__))
        found = (os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)
        for path in sorted(path for path in found if path.endswith(".py")):
            digest.update(f"{package}/{os.path.relpath(path, root)}\0".encode())
            with open(path, "rb") as source:
                digest.update(source.read() + b"\0")
    return digest.hexdigest()


def is_plain(value: Any) -> bool:
    """Tell whether JSON can say a value: poses it cannot."""
    one = (bool, int, float, str, type(None), np.generic)
    return isinstance(value, one) or (isinstance(value, (list, tuple)) and all(isinstance(part, one) for part in value))


def plain(value: Any) -> Any:
    """Return a value with Python's own numbers, lists and dictionaries in place of NumPy's."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def main() -> None:
    """Answer until stdin ends."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != here]  # the neighbours are vla-bench's
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the simulator prints
    player = Player()
    asked = {name: getattr(player, name) for name in ("hello", "reset", "step", "picture")}
    while True:
        try:
            header, arrays = decode(sys.stdin.buffer.read)
        except EOFError:
            return
        said, shown = asked[header["ask"]](header, arrays)
        answers.write(encode(said, shown))
        answers.flush()


if __name__ == "__main__":
    main()
