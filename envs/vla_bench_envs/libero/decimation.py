"""Simplify the meshes that are only looked at, in a compiled MuJoCo model, so that software rendering is affordable.

Faces, vertices, normals and texture coordinates are rewritten inside the model's own buffers, before a render context
uploads them. Meshes that collide are left alone, and inertias, bounding boxes and hulls were computed when the model
was compiled: physics does not change by a bit, which a test asserts.
"""
# MuJoCo's compiled module has no stubs.
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass
from typing import Any

import numpy as np

MIN_FACES = 400
"""No mesh is simplified below this: small objects lose their shape, and save nothing."""

SEAM_WEIGHT = 0.05
"""Weight of a face normal against a position, as a share of the mesh's diagonal, when the nearest original face is
looked up: two sides of a thin wall lie closer together than this."""


@dataclass(frozen=True)
class Surface:
    """The triangles of one mesh; indices count from the mesh's own first entry."""

    vertices: np.ndarray
    """Positions [m], (n, 3)."""

    faces: np.ndarray
    """Vertex indices, (m, 3)."""

    normals: np.ndarray
    """Unit normals, (k, 3)."""

    face_normals: np.ndarray
    """Normal index of every corner, (m, 3)."""

    texcoords: np.ndarray
    """Texture coordinates, (t, 2); empty if there is no texture."""

    face_texcoords: np.ndarray
    """Texture coordinate index of every corner, (m, 3); empty if there is no texture."""


def visual_meshes(model: Any) -> list[int]:
    """Return the meshes that some geom shows and no colliding geom uses."""
    import mujoco

    colliding = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    meshes = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    return sorted(set(model.geom_dataid[meshes]) - set(model.geom_dataid[meshes & colliding]))


def read_surface(model: Any, mesh: int) -> Surface:
    """Return a copy of a mesh's triangles."""
    faces = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
    vertices = slice(model.mesh_vertadr[mesh], model.mesh_vertadr[mesh] + model.mesh_vertnum[mesh])
    normals = slice(model.mesh_normaladr[mesh], model.mesh_normaladr[mesh] + model.mesh_normalnum[mesh])
    start = model.mesh_texcoordadr[mesh]
    textured = start >= 0
    texcoords = slice(start, start + model.mesh_texcoordnum[mesh]) if textured else slice(0, 0)
    return Surface(
        vertices=model.mesh_vert[vertices].copy(),
        faces=model.mesh_face[faces].copy(),
        normals=model.mesh_normal[normals].copy(),
        face_normals=model.mesh_facenormal[faces].copy(),
        texcoords=model.mesh_texcoord[texcoords].copy(),
        face_texcoords=model.mesh_facetexcoord[faces if textured else slice(0, 0)].copy(),
    )


def write_surface(model: Any, mesh: int, surface: Surface) -> None:
    """Overwrite a mesh with one that needs no more room."""
    face, vertex = model.mesh_faceadr[mesh], model.mesh_vertadr[mesh]
    n_faces = len(surface.faces)
    model.mesh_facenum[mesh] = n_faces
    model.mesh_face[face : face + n_faces] = surface.faces
    model.mesh_facenormal[face : face + n_faces] = surface.face_normals
    model.mesh_vert[vertex : vertex + len(surface.vertices)] = surface.vertices
    if len(surface.texcoords):
        texcoord = model.mesh_texcoordadr[mesh]
        model.mesh_facetexcoord[face : face + n_faces] = surface.face_texcoords
        model.mesh_texcoord[texcoord : texcoord + len(surface.texcoords)] = surface.texcoords


def simplify(surface: Surface, fraction: float) -> Surface:
    """Return the mesh with about `fraction` of its faces, by quadric edge collapse (Garland and Heckbert 1997).

    A mesh at or below `MIN_FACES` is returned as it is, as is one that would not fit into its own buffers.
    """
    n_faces = max(int(len(surface.faces) * fraction), MIN_FACES)
    if len(surface.faces) <= n_faces:
        return surface
    vertices, faces = _collapse(surface, n_faces)
    if not 0 < len(faces) < len(surface.faces) or len(vertices) > len(surface.vertices):
        return surface
    old, new = _Triangles.of(surface.vertices, surface.faces), _Triangles.of(vertices, faces)
    scale = SEAM_WEIGHT * float(np.linalg.norm(np.ptp(surface.vertices, axis=0)))
    corner = _nearest(old.corners(scale), new.corners(scale))
    texcoords, face_texcoords = surface.texcoords, surface.face_texcoords
    if len(texcoords):
        nearest = _nearest(old.centres(scale), new.centres(scale))
        texcoords, face_texcoords = _texture(surface, old, new, nearest, corner)
    return Surface(
        vertices=vertices.astype(np.float32),
        faces=faces.astype(np.int32),
        normals=surface.normals,
        face_normals=surface.face_normals.reshape(-1)[corner].reshape(-1, 3),
        texcoords=texcoords,
        face_texcoords=face_texcoords,
    )


def _collapse(surface: Surface, n_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Return fewer vertices and faces; equal positions are welded first, or the mesh tears along its seams."""
    import fast_simplification

    _, first, inverse = np.unique(np.round(surface.vertices, 7), axis=0, return_index=True, return_inverse=True)
    faces = inverse.reshape(-1)[surface.faces].astype(np.int32)
    proper = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    points: Any = np.ascontiguousarray(surface.vertices[first], dtype=np.float32)
    simplified: Any = fast_simplification.simplify(
        points, np.ascontiguousarray(faces[proper]), target_count=n_faces, agg=3
    )
    return np.asarray(simplified[0], dtype=np.float64), np.asarray(simplified[1])


@dataclass(frozen=True)
class _Triangles:
    points: np.ndarray
    """Corners, (m, 3, 3)."""

    normals: np.ndarray
    """Unit normals, (m, 3); zero for a degenerate triangle."""

    @classmethod
    def of(cls, vertices: np.ndarray, faces: np.ndarray) -> "_Triangles":
        points = vertices.astype(np.float64)[faces]
        normals = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        return cls(points, normals / np.maximum(lengths, 1e-12))

    def centres(self, scale: float) -> np.ndarray:
        """Return centre and scaled normal of every triangle, (m, 6)."""
        return np.hstack([self.points.mean(axis=1), self.normals * scale])

    def corners(self, scale: float) -> np.ndarray:
        """Return position and scaled face normal of every corner, (3 m, 6)."""
        return np.hstack([self.points.reshape(-1, 3), np.repeat(self.normals, 3, axis=0) * scale])


def _nearest(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    from scipy.spatial import cKDTree

    return cKDTree(known).query(asked)[1]


def _texture(
    surface: Surface, old: _Triangles, new: _Triangles, nearest: np.ndarray, corner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return texture coordinates of the new corners, read in the plane of the nearest original triangle."""
    texcoords = surface.texcoords[surface.face_texcoords[nearest]]
    weights = _barycentric(old.points[nearest], new.points)
    wanted = np.einsum("mck,mkd->mcd", weights, texcoords)
    wanted = np.clip(
        wanted,
        texcoords.min(axis=1, keepdims=True) - SEAM_WEIGHT,
        texcoords.max(axis=1, keepdims=True) + SEAM_WEIGHT,
    )
    unique, index = np.unique(np.round(wanted.reshape(-1, 2), 4), axis=0, return_inverse=True)
    if len(unique) <= len(surface.texcoords):
        return unique.astype(np.float32), index.reshape(-1, 3).astype(np.int32)
    return surface.texcoords, surface.face_texcoords.reshape(-1)[corner].reshape(-1, 3)


def _barycentric(triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the weights (m, c, 3) of triangle corners (m, 3, 3) that give points (m, c, 3), projected to the plane."""
    edges = triangles[:, 1:] - triangles[:, :1]
    gram = np.einsum("mik,mjk->mij", edges, edges)
    determinant = np.maximum(gram[:, 0, 0] * gram[:, 1, 1] - gram[:, 0, 1] ** 2, 1e-20)
    projected = np.einsum("mck,mik->mci", points - triangles[:, :1], edges)
    second = (gram[:, 1, 1, None] * projected[..., 0] - gram[:, 0, 1, None] * projected[..., 1]) / determinant[:, None]
    third = (gram[:, 0, 0, None] * projected[..., 1] - gram[:, 0, 1, None] * projected[..., 0]) / determinant[:, None]
    return np.stack([1 - second - third, second, third], axis=-1)
