"""Meshes and photographs: where they lie, whether all are there, and whether they are the published ones."""

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Literal

from vla_bench_envs.simpler.errors import MissingAssetsError

ROBOT = "robots/widowx"
DATASET = "tasks/bridge_v2_real2sim_dataset"

NEEDED = (
    f"{ROBOT}/wx250s.urdf",
    *(
        f"{DATASET}/{name}"
        for name in (
            "custom/info_bridge_custom_v0.json",
            "custom/info_bridge_custom_baked_tex_v0.json",
            "custom/models",
            "real_inpainting/bridge_real_eval_1.png",
            "real_inpainting/bridge_sink.png",
            "stages/bridge_table_1_v1.glb",
            "stages/bridge_table_1_v2.glb",
        )
    ),
)
"""What the four tasks read, below ManiSkill's asset folder."""

MADE_UP = {
    "stages/bridge_table_1_v1.glb": "b01d559db197a28f73dc59673cfcfddc2c8bce51fbd946cfd2201acffe962fae",
    "stages/bridge_table_1_v2.glb": "b01d559db197a28f73dc59673cfcfddc2c8bce51fbd946cfd2201acffe962fae",
    "custom/models/eggplant/textured.glb": "76f455d1afbda7a180d5401381476025c5dfa232bf7dabdf5e76a4cccb988f25",
}
"""SHA-256 of this project's stand-ins for what it may not pass on: two plain tables and an untextured eggplant."""


def folder() -> Path:
    """Return where ManiSkill looks for assets: `data` below MS_ASSET_DIR, or below `.maniskill` in the home folder."""
    return Path(os.environ.get("MS_ASSET_DIR", Path.home() / ".maniskill")) / "data"


def check() -> None:
    """Refuse an asset folder in which something is missing.

    Raises:
        MissingAssetsError: Naming what.
    """
    missing = [name for name in NEEDED if not (folder() / name).exists()]
    if missing:
        raise MissingAssetsError(folder(), missing)


def kind() -> Literal["official", "stand-in"]:
    """Return `stand-in` if any of this project's stand-ins lies there, else `official`, also where nothing lies."""
    root = folder() / DATASET
    found = (root / name for name in MADE_UP)
    return "stand-in" if any(path.exists() and _sha256(path) in MADE_UP.values() for path in found) else "official"


def sha256() -> str:
    """Return a hash of names and contents of all files that the tasks may read."""
    return _tree_sha256(folder())


@cache
def _tree_sha256(root: Path) -> str:
    digest = hashlib.sha256()
    files = (path for part in (ROBOT, DATASET) for path in (root / part).rglob("*") if path.is_file())
    for path in sorted(files):
        digest.update(f"{path.relative_to(root)}\0{_sha256(path)}\n".encode())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
