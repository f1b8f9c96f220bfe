"""Pictures pass from process to process through shared memory, whatever their shape, and come out as they were."""

import pickle
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

from vla_bench import registry
from vla_bench.parallel.exchange import Exchange
from vla_bench.protocol import Protocol

SPAWN = get_context("spawn")
SUITES = registry.suites()
FAST = SUITES["libero-object@1"].protocols()["reference-fast"]


def shown(protocol: Protocol, seed: int = 0) -> dict[str, Any]:
    """An observation with pictures as the protocol draws them."""
    rng = np.random.default_rng(seed)
    pictures = {name: rng.integers(0, 256, (*protocol.picture_px, 3), np.uint8) for name in protocol.cameras}
    return pictures | {"proprio": rng.normal(size=9).astype(np.float32), "instruction": "put the spoon on the towel"}


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_no_picture_of_any_suite_is_pickled(suite: str) -> None:
    for protocol in SUITES[suite].protocols().values():
        obs, exchange = shown(protocol), Exchange(SPAWN, protocol)
        label = exchange.write(obs, obs)
        assert not any(isinstance(value, np.ndarray) for value in label.values()), protocol.name
        assert len(pickle.dumps(label)) < 1000
        read = exchange.read(label)
        assert set(read) == set(obs)
        for key, value in obs.items():
            np.testing.assert_array_equal(read[key], value)
            assert getattr(read[key], "dtype", None) == getattr(value, "dtype", None)


def test_what_was_read_stays_when_the_next_observation_is_written() -> None:
    exchange, (one, two) = Exchange(SPAWN, FAST), (shown(FAST, seed) for seed in (1, 2))
    first = exchange.read(exchange.write(one, one))
    second = exchange.read(exchange.write(two, two))
    for camera in FAST.cameras:
        np.testing.assert_array_equal(first[camera], one[camera])
        np.testing.assert_array_equal(second[camera], two[camera])


def test_entries_that_are_asked_for_are_sent_and_no_others() -> None:
    exchange, obs, keys = Exchange(SPAWN, FAST), shown(FAST), ["proprio", FAST.cameras[1]]
    assert set(exchange.read(exchange.write(obs, keys))) == set(keys)


def test_what_nobody_expected_goes_through_the_pipe_and_arrives() -> None:
    exchange, depth_m = Exchange(SPAWN, FAST), np.random.default_rng(0).normal(size=(480, 640))
    obs = shown(FAST) | {"depth": depth_m}
    label = exchange.write(obs, obs)
    assert label["depth"] is depth_m
    np.testing.assert_array_equal(exchange.read(label)["depth"], depth_m)


def test_another_process_sees_what_was_written() -> None:
    protocol = SUITES["simpler-widowx@1"].protocols()["simpler"]
    exchange, obs = Exchange(SPAWN, protocol), shown(protocol)
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=answer_sums, args=(there, exchange))
    process.start()
    there.close()
    here.send(exchange.write(obs, obs))
    assert here.poll(60)
    assert here.recv() == {key: float(np.sum(obs[key], dtype=float)) for key in (*protocol.cameras, "proprio")}
    process.join()
    assert process.exitcode == 0


def answer_sums(link: Any, exchange: Exchange) -> None:
    """Send the sum of every array that a label stands for."""
    obs = exchange.read(link.recv())
    link.send({key: float(np.sum(value, dtype=float)) for key, value in obs.items() if isinstance(value, np.ndarray)})
