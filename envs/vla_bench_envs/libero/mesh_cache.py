"""Keep simplified meshes on disk: simplifying takes 1 to 2 s a model, reading takes 50 ms."""

import hashlib
import logging
import os
import tempfile
import zipfile
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from vla_bench_envs.libero.decimation import (
    MIN_FACES,
    SEAM_WEIGHT,
    Surface,
    read_surface,
    simplify,
    visual_meshes,
    write_surface,
)

log = logging.getLogger(__name__)

FORMAT = 1
"""Raised when `decimation` changes what it returns; part of every key."""


def cache_folder() -> Path:
    """Return where simplified meshes are kept: below XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vla-bench" / "meshes"


def decimate(model: Any, fraction: float) -> int:
    """Simplify every visual-only mesh of a compiled model in place; return the number of faces left in them."""
    n_faces = 0
    for mesh in visual_meshes(model):
        surface = read_surface(model, mesh)
        if len(surface.faces) > MIN_FACES:
            surface = cached_simplify(surface, fraction)
            write_surface(model, mesh, surface)
        n_faces += len(surface.faces)
    return n_faces


def cached_simplify(surface: Surface, fraction: float) -> Surface:
    """Return what `simplify` returns, from the cache if it is there; an entry that cannot be read is made anew."""
    path = cache_folder() / f"{_key(surface, fraction)}.npz"
    try:
        return _load(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as caught:
        log.warning("simplified mesh %s is damaged (%s) and is made anew", path, caught)
    simplified = simplify(surface, fraction)
    _save(path, simplified)
    return simplified


def _key(surface: Surface, fraction: float) -> str:
    parameters = (FORMAT, fraction, MIN_FACES, SEAM_WEIGHT, version("fast-simplification"))
    digest = hashlib.sha256(repr(parameters).encode())
    for name, array in asdict(surface).items():
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _load(path: Path) -> Surface:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return Surface(**{field.name: archive[field.name] for field in fields(Surface)})


def _save(path: Path, surface: Surface) -> None:
    """Write atomically: a reader sees the whole file or none. A cache that cannot be written only costs time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            np.savez(file, **asdict(surface))
        os.replace(file.name, path)
    except OSError as caught:
        log.warning("simplified mesh %s cannot be kept: %s", path, caught)
