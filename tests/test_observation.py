"""Lazy observations, on pictures drawn by the test."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vla_bench.errors import StaleImageError
from vla_bench_envs.observation import LazyObservation

PICTURES = {"left": np.zeros((2, 2, 3), np.uint8), "right": np.ones((2, 2, 3), np.uint8)}


class Pencil:
    """Draws, and remembers what."""

    def __init__(self) -> None:
        self.drawn: list[str] = []

    def __call__(self, camera: str) -> np.ndarray:
        self.drawn.append(camera)
        return PICTURES[camera].copy()


@pytest.fixture
def pencil() -> Pencil:
    return Pencil()


@pytest.fixture
def obs(pencil: Pencil) -> LazyObservation:
    return LazyObservation(pencil, ("left", "right"), {"instruction": "go"})


def test_looking_at_keys_draws_nothing(obs: LazyObservation, pencil: Pencil) -> None:
    assert list(obs) == ["left", "right", "instruction"]
    assert "left" in obs
    assert len(obs) == 3
    assert obs["instruction"] == "go"
    assert "<not drawn>" in repr(obs)
    assert pencil.drawn == []


def test_an_image_is_drawn_once(obs: LazyObservation, pencil: Pencil) -> None:
    assert obs["right"] is obs["right"]
    assert pencil.drawn == ["right"]


@pytest.mark.parametrize(
    "read",
    [
        dict,
        lambda obs: {**obs},
        lambda obs: dict(obs.items()),
        lambda obs: dict(zip(obs, obs.values(), strict=True)),
        lambda obs: obs.copy(),
        copy.copy,
        copy.deepcopy,
        lambda obs: pickle.loads(pickle.dumps(obs)),
        lambda obs: obs | {},
        lambda obs: {} | obs,
        lambda obs: {key: obs.get(key) for key in obs},
        lambda obs: {key: obs.setdefault(key) for key in obs},
        lambda obs: {key: obs.pop(key) for key in list(obs)},
        lambda obs: next(plain for plain in [{}] if plain.update(obs) is None),
    ],
)
def test_every_way_to_read_draws(obs: LazyObservation, read: Callable[[Any], dict[str, Any]]) -> None:
    plain = read(obs)
    assert type(plain) is dict
    assert list(plain) == ["left", "right", "instruction"]
    np.testing.assert_equal(plain, {**PICTURES, "instruction": "go"})


def test_an_unread_image_is_gone_after_the_next_step(obs: LazyObservation) -> None:
    read = obs["left"]
    obs.expire()
    assert obs["left"] is read
    with pytest.raises(StaleImageError) as caught:
        obs["right"]
    assert str(caught.value) == (
        "the image of 'right' was not read before the next step, and the moment it shows has passed: "
        "read it earlier, or make the environment with images='eager', which renders at every step"
    )
    with pytest.raises(StaleImageError):
        dict(obs)


def test_an_image_can_be_replaced(obs: LazyObservation, pencil: Pencil) -> None:
    obs["left"] = "mine"
    assert obs.get("left") == "mine"
    assert obs.get("missing", 3) == 3
    assert pencil.drawn == []
