"""Simplified meshes and their cache; cameras of one compiled task under every profile."""

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("fast_simplification")

from vla_bench.protocol import RenderProfile
from vla_bench_envs.libero import mesh_cache
from vla_bench_envs.libero.decimation import (
    MIN_FACES,
    Surface,
    _barycentric,
    read_surface,
    simplify,
    visual_meshes,
    write_surface,
)

N_RINGS = 40


def sphere(textured: bool = True) -> Surface:
    """Return a unit sphere of 3200 triangles with exact normals and longitude-latitude texture coordinates."""
    u, v = np.meshgrid(np.linspace(0, 1, N_RINGS + 1), np.linspace(0, 1, N_RINGS + 1), indexing="ij")
    longitude, latitude = 2 * np.pi * u.ravel(), np.pi * v.ravel()
    points = np.stack(
        [np.sin(latitude) * np.cos(longitude), np.sin(latitude) * np.sin(longitude), np.cos(latitude)], axis=1
    ).astype(np.float32)
    corner = np.arange((N_RINGS + 1) ** 2).reshape(N_RINGS + 1, N_RINGS + 1)
    a, b, c, d = corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]
    faces = np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))]).astype(np.int32)
    texcoords = np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float32)
    empty = np.zeros((0, 3), np.int32)
    return Surface(
        vertices=points,
        faces=faces,
        normals=points,
        face_normals=faces,
        texcoords=texcoords if textured else texcoords[:0],
        face_texcoords=faces if textured else empty,
    )


@pytest.mark.parametrize("textured", [True, False])
@pytest.mark.parametrize("fraction", [0.5, 0.2])
def test_simplified_sphere_is_smaller_and_still_a_sphere(fraction: float, textured: bool) -> None:
    original = sphere(textured)
    simple = simplify(original, fraction)
    assert MIN_FACES < len(simple.faces) <= 1.1 * fraction * len(original.faces)
    assert len(simple.vertices) <= len(original.vertices)
    np.testing.assert_allclose(np.linalg.norm(simple.vertices, axis=1), 1, atol=0.03)
    corners = simple.vertices[simple.faces]
    np.testing.assert_allclose(simple.normals[simple.face_normals], corners, atol=0.35)


def test_simplified_sphere_keeps_its_texture_in_place() -> None:
    original = sphere()
    simple = simplify(original, 0.2)
    latitude = np.arccos(np.clip(simple.vertices[simple.faces][..., 2], -1, 1)) / np.pi
    np.testing.assert_allclose(simple.texcoords[simple.face_texcoords][..., 1], latitude, atol=0.05)
    assert len(simple.texcoords) <= len(original.texcoords)


def test_small_mesh_is_left_alone() -> None:
    small = replace(sphere(), faces=sphere().faces[:MIN_FACES], face_normals=sphere().face_normals[:MIN_FACES])
    assert simplify(small, 0.1) is small


def test_simplifying_is_reproducible() -> None:
    np.testing.assert_equal(vars(simplify(sphere(), 0.2)), vars(simplify(sphere(), 0.2)))


def test_barycentric_weights_give_the_point_back() -> None:
    rng = np.random.default_rng(0)
    triangles = rng.normal(size=(20, 3, 3))
    weights = rng.dirichlet(np.ones(3), size=(20, 3))
    points = np.einsum("mck,mkd->mcd", weights, triangles)
    np.testing.assert_allclose(_barycentric(triangles, points), weights, atol=1e-9)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "vla-bench" / "meshes"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Fractions that were really simplified."""
    made: list[float] = []

    def counted(surface: Surface, fraction: float) -> Surface:
        made.append(fraction)
        return simplify(surface, fraction)

    monkeypatch.setattr(mesh_cache, "simplify", counted)
    return made


def test_cache_simplifies_once_for_each_mesh_and_fraction(folder: Path, calls: list[float]) -> None:
    first = mesh_cache.cached_simplify(sphere(), 0.2)
    again = mesh_cache.cached_simplify(sphere(), 0.2)
    np.testing.assert_equal(vars(again), vars(first))
    mesh_cache.cached_simplify(sphere(), 0.5)
    mesh_cache.cached_simplify(sphere(textured=False), 0.5)
    assert calls == [0.2, 0.5, 0.5]
    assert [path.suffix for path in folder.iterdir()] == [".npz"] * 3


@pytest.mark.parametrize("damage", [b"", b"not a zip file", b"PK\x03\x04 cut"])
def test_damaged_entry_is_made_anew(
    folder: Path, calls: list[float], caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    first = mesh_cache.cached_simplify(sphere(), 0.2)
    (entry,) = folder.iterdir()
    entry.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        again = mesh_cache.cached_simplify(sphere(), 0.2)
    np.testing.assert_equal(vars(again), vars(first))
    assert "is damaged" in caplog.text
    assert calls == [0.2, 0.2]
    mesh_cache.cached_simplify(sphere(), 0.2)
    assert len(calls) == 2


def test_cache_that_cannot_be_written_only_costs_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with caplog.at_level(logging.WARNING):
        assert len(mesh_cache.cached_simplify(sphere(), 0.2).faces) < 1000
    assert "cannot be kept" in caplog.text


def test_cache_is_below_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert mesh_cache.cache_folder() == tmp_path / ".cache" / "vla-bench" / "meshes"


MODEL = """
<mujoco>
  <asset>
    <mesh name="seen" vertex="{vertices}" face="{faces}"/>
    <mesh name="touched" vertex="{vertices}" face="{faces}"/>
  </asset>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="eye" pos="0 -3 0" xyaxes="1 0 0 0 0 1"/>
    <geom type="mesh" mesh="seen" group="1" contype="0" conaffinity="0"/>
    <body pos="3 0 0"><freejoint/><geom type="mesh" mesh="touched" group="1"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def compiled() -> SimpleNamespace:
    """A model with one mesh to look at and one to bump into."""
    from vla_bench_envs.libero.startup import prepare_process

    prepare_process()
    mujoco = pytest.importorskip("mujoco")
    ball = sphere()
    welded, inverse = np.unique(np.round(ball.vertices, 6), axis=0, return_inverse=True)
    faces = inverse.reshape(-1)[ball.faces]
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    text = MODEL.format(vertices=" ".join(map(str, welded.ravel())), faces=" ".join(map(str, faces.ravel())))
    model = mujoco.MjModel.from_xml_string(text)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return SimpleNamespace(model=model, data=data)


def test_only_meshes_that_nothing_touches_are_simplified(compiled: SimpleNamespace) -> None:
    assert visual_meshes(compiled.model) == [compiled.model.mesh("seen").id]


def test_writing_a_surface_back_changes_nothing(compiled: SimpleNamespace) -> None:
    before = compiled.model.mesh_face.copy()
    write_surface(compiled.model, 0, read_surface(compiled.model, 0))
    np.testing.assert_array_equal(compiled.model.mesh_face, before)


@pytest.mark.sim
@pytest.mark.usefixtures("folder")
def test_each_option_changes_the_picture_a_little(compiled: SimpleNamespace) -> None:
    from vla_bench_envs.libero.rendering import Cameras

    def picture(profile: RenderProfile) -> np.ndarray:
        cameras = Cameras(compiled.model, compiled.data, ("eye",), 64, profile)
        cameras.capture()
        drawn = cameras.draw("eye")
        cameras.close()
        return drawn.astype(int)

    standard = picture(RenderProfile())
    assert standard.std() > 10
    np.testing.assert_array_equal(picture(RenderProfile()), standard)
    faces = compiled.model.mesh_facenum.copy()
    simplified = picture(RenderProfile(name="simple", mesh_fraction=0.2))
    assert compiled.model.mesh_facenum[0] < faces[0]
    assert compiled.model.mesh_facenum[1] == faces[1]
    assert 0 < np.abs(simplified - standard).mean() < 10
    assert 0 < np.abs(picture(RenderProfile(name="jagged", multisampling=False)) - simplified).mean() < 10


@pytest.mark.sim
def test_a_captured_moment_is_drawn_after_the_simulator_moved_on(compiled: SimpleNamespace) -> None:
    import mujoco

    from vla_bench_envs.libero.rendering import Cameras

    cameras = Cameras(compiled.model, compiled.data, ("eye",), 64, RenderProfile())
    cameras.capture()
    expected = cameras.draw("eye")
    compiled.data.qpos[:3] = 0, -1, 0.5
    mujoco.mj_forward(compiled.model, compiled.data)
    np.testing.assert_array_equal(cameras.draw("eye"), expected)
    cameras.capture()
    assert not np.array_equal(cameras.draw("eye"), expected)
    cameras.close()
