"""A policy behind a link is the same policy; whatever happens to the link, an episode ends and says why."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from link_peers import RawServer, free_port, openpi_bytes, serving
from pictures import TASK as PICTURES
from pictures import PictureEnv, save_checkpoint
from recordings import write_dataset
from toy import PROTOCOL, TOY, ToyEnv, ToyPolicy

from vla_bench import cli, registry
from vla_bench.contestant import Contestant
from vla_bench.demonstrations.dataset import Dataset
from vla_bench.errors import OptionError, VlaBenchError
from vla_bench.link import messages
from vla_bench.link import server as servers
from vla_bench.link.errors import (
    AnswerTimeoutError,
    ChangedServerError,
    FarEndError,
    LinkLostError,
    RefusedError,
    SpeechError,
    UnreachableError,
)
from vla_bench.link.messages import Offer
from vla_bench.link.wire import packed, unpacked
from vla_bench.policy import ActionChunk, Policy
from vla_bench.replay import recording
from vla_bench.rollout import run_episode
from vla_bench.testing import check_method, check_policy
from vla_bench.testing.promises import same
from vla_bench.types import Cell, EpisodeRecord, Outcome, Task
from vla_bench_policies.remote.policy import RemotePolicy

TASK = TOY.tasks()[0]
OFFER = Offer("toy", "full", "toy-1", ToyPolicy.action_spec, ("front",))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_checkpoint(tmp_path_factory.mktemp("weights") / "small.safetensors"))


def play(policy: Policy) -> EpisodeRecord:
    return run_episode(ToyEnv(), Contestant("full", policy), TASK, Cell(0, 1, 0), PROTOCOL)


def first_observation() -> dict:
    return ToyEnv().reset(options={"task": 0, "init_state": 1})[0]


def test_a_served_policy_keeps_the_contract_of_a_policy() -> None:
    with serving(ToyPolicy()) as server:
        check_policy(registry.policy(f"remote:{server.address}"), ToyEnv(), TASK)


def test_methods_keep_theirs_around_a_served_policy() -> None:
    exact = registry.method("action-reuse:1")
    with serving(ToyPolicy(), ToyPolicy(), ToyPolicy()) as server:
        for spec in ("action-reuse:1", "action-reuse:2"):
            check_method(registry.method(spec), lambda: RemotePolicy(server.address), ToyEnv(), TASK, exact)


@pytest.mark.parametrize("method", ["full", "random:0.6", "vla-adp:0.75"])
def test_the_reference_behind_a_link_keeps_its_contract_accelerated_or_not(weights: str, method: str) -> None:
    with serving(served(weights, method), method=method) as server:
        check_policy(RemotePolicy(server.address), PictureEnv(), PICTURES)


@pytest.mark.parametrize("method", ["full", "random:0.6", "pixel-difference:0.6"])
def test_the_link_changes_no_bit_of_an_answer_on_recorded_observations(
    weights: str, method: str, tmp_path: Path
) -> None:
    dataset = Dataset(write_dataset(tmp_path / "squares"))
    here = served(weights, method)
    with serving(served(weights, method), method=method) as server:
        there = RemotePolicy(server.address)
        assert there.cameras == here.cameras
        for index in range(3):
            shown = recording.read(dataset, index, here.cameras or ())
            for policy in (here, there):
                policy.reset(shown.task("squares", here.action_spec), seed=index)
            for step in range(len(shown)):
                one, other = (policy.act(shown.observation(step)) for policy in (here, there))
                assert same(one.actions, other.actions)
                assert one.cache == other.cache
                assert (one.rows_computed, one.rows_reused, one.flops) == (
                    other.rows_computed,
                    other.rows_reused,
                    other.flops,
                )
                assert one.fates.keys() == other.fates.keys()
                assert all(same(one.fates[camera], other.fates[camera]) for camera in one.fates)


def served(weights: str, method: str) -> Policy:
    return registry.method(method).apply(registry.policy(f"reference:{weights}"))


def test_what_the_server_measured_and_what_the_link_took_are_recorded_apart(weights: str) -> None:
    with serving(served(weights, "random:0.6"), method="random:0.6") as server:
        policy = RemotePolicy(server.address)
        protocol = replace(PROTOCOL, cameras=policy.cameras or ())
        record = run_episode(PictureEnv(), Contestant("full", policy), PICTURES, Cell(0, 0, 0), protocol)
    assert record.error is None
    assert record.policy == "remote-reference-oft:small+random:0.6"
    for query in record.queries:
        assert {"preprocess", "vision", "prefill", "postprocess", "link"} <= set(query.stages_ms)
        assert query.stages_ms["link"] > 0
        assert sum(query.stages_ms.values()) <= query.policy_ms
        assert query.cache["rule"]
        assert query.rows_computed
        assert query.flops
    assert max(sum(query.stages_ms.values()) / query.policy_ms for query in record.queries) > 0.9  # the rest is noise
    assert sum(query.rows_reused or 0 for query in record.queries) > 0


def test_nothing_that_a_policy_answers_is_left_behind() -> None:
    fates = {"front": np.array([[0, 3]], np.uint8)}
    told = ActionChunk(
        np.ones((1, 2), np.float32), 1, 2, 2**60, {"vision": 0.5}, {"ratio": 0.5, "ages": [1, None]}, fates
    )
    assert {own.name for own in fields(ActionChunk)} == {"actions", *messages.costs(told)[messages.OWN]}
    again = messages.answered(unpacked(packed({"actions": told.actions, **messages.costs(told)})))
    for own in fields(ActionChunk):
        one, other = getattr(told, own.name), getattr(again, own.name)
        assert same(one["front"], other["front"]) if own.name == "fates" else np.array_equal(one, other)


def test_the_time_on_the_link_is_not_the_policys() -> None:
    with serving(ToyPolicy(delay_s=0.3)) as server:
        policy = RemotePolicy(server.address)
        policy.reset(TASK, 0)
        assert policy.act(first_observation()).stages_ms["link"] < 250


def test_task_and_seed_of_an_episode_reach_the_server() -> None:
    class Listening(ToyPolicy):
        heard: list[tuple[Task, int]] = []

        def reset(self, task, seed):
            self.heard.append((task, seed))
            super().reset(task, seed)

    with serving(Listening()) as server:
        policy = RemotePolicy(server.address)
        for seed in (5, 2**32 - 1):
            policy.reset(TOY.tasks()[1], seed)
    assert Listening.heard == [(TOY.tasks()[1], 5), (TOY.tasks()[1], 2**32 - 1)]


def test_an_episode_is_the_same_with_the_link_and_without() -> None:
    alone = play(ToyPolicy())
    with serving(ToyPolicy()) as server:
        linked = play(RemotePolicy(server.address))
    assert linked.error is None
    assert (linked.outcome, linked.n_steps, linked.path_m, linked.jerk) == (
        alone.outcome,
        alone.n_steps,
        alone.path_m,
        alone.jerk,
    )


def test_a_run_over_a_link_goes_through_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with serving(ToyPolicy(), ToyPolicy()) as server:
        words = ["--suite", "toy@1", "--policy", f"remote:{server.address}", "--method", "full"]
        run = ["run", *words, "--method", "action-reuse:2", "--episodes", "1", "--results", str(tmp_path)]
        assert cli.main(run) == 0
        assert cli.main(["check", *words]) == 0
    said = capsys.readouterr().out
    assert "remote-toy" in said
    assert said.count("keeps the contract") == 3


def test_a_forgotten_policy_keeps_no_seat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "SEAT_WAIT_S", 5)
    with serving(ToyPolicy()) as server:
        for _ in range(5):
            assert RemotePolicy(server.address).action_spec.size == 2


def test_a_second_client_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "SEAT_WAIT_S", 0.1)
    with serving(ToyPolicy()) as server:
        first = RemotePolicy(server.address)
        with pytest.raises(RefusedError) as caught:
            RemotePolicy(server.address)
        first.reset(TASK, 0)
        first.act(first_observation())
    assert str(caught.value) == (
        f"{server.address} refuses the connection with HTTP 503 (all 1 seats are taken by other clients): "
        f"wait for the other client, or start the server with more --clients"
    )


def test_a_token_opens_the_door(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t" * 32)
    with serving(ToyPolicy(), token="t" * 32) as server:
        with pytest.raises(RefusedError, match=r"HTTP 401 .*: give the server's token with token_file=PATH$"):
            RemotePolicy(server.address)
        policy = registry.policy(f"remote:{server.address},token_file={tmp_path / 'token'}")
        assert policy.name == "remote-toy"


def test_a_dead_server_is_named_at_once() -> None:
    address = f"ws://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        RemotePolicy(address)
    assert time.monotonic() - began < HANG_S
    assert str(caught.value).startswith(f"no policy server answers at {address} (ConnectionRefusedError: ")
    assert str(caught.value).endswith("start one with 'vla-bench serve', or mend the address")


def test_a_door_behind_which_nobody_speaks_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla_bench_policies.remote.policy.OPEN_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as door, pytest.raises(UnreachableError, match="TimeoutError"):
        RemotePolicy(f"ws://127.0.0.1:{door.getsockname()[1]}")


def test_a_server_of_something_else_is_no_policy_server() -> None:
    door = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        other, _ = door.accept()
        with other:
            other.recv(4096)
            other.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    with door:
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RefusedError, match=r"HTTP 200 .*: is this the address of a policy server\?"):
            RemotePolicy(f"ws://127.0.0.1:{door.getsockname()[1]}")
        thread.join(5)


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "http://127.0.0.1", "ws://", "ws://host:99999", 8000])
def test_an_address_that_is_none_is_refused(address) -> None:
    with pytest.raises(OptionError, match=r"expected something like ws://127\.0\.0\.1:8000"):
        RemotePolicy(address)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout_s": 0}, "timeout_s is 0; expected a positive number"),
        ({"timeout_s": float("inf")}, "timeout_s is inf"),
        ({"execute": -1}, "execute is -1"),
        ({"turned": "no"}, "turned is 'no'; expected True or False"),
        ({"dialect": "pi9"}, "no dialect named 'pi9'"),
        ({"token_file": "nowhere"}, "the token file is 'nowhere'"),
    ],
)
def test_a_wrong_option_is_refused_before_anybody_is_called(options: dict, message: str) -> None:
    with pytest.raises(VlaBenchError, match=message):
        RemotePolicy("ws://127.0.0.1:1", **options)


def test_options_for_foreign_servers_are_refused_by_our_own() -> None:
    with serving(ToyPolicy()) as server:
        for options in ({"dialect": "pi0-libero"}, {"execute": 3}, {"turned": True}):
            with pytest.raises(OptionError, match="a 'vla-bench serve' reads our observations"):
                RemotePolicy(server.address, **options)


HANG_S = 20.0
"""No fault may take longer to be noticed than this, on a machine that does much else, with a timeout of 0.5 s."""


def greeting(**changes) -> bytes:
    return openpi_bytes({"vla_bench": {**OFFER.to_message()["vla_bench"], **changes}})


READY = openpi_bytes(messages.ready())


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        ((b"garbage",), SpeechError, "is no peer of this link: the message of 7 bytes is no msgpack"),
        (("Traceback: no weights",), FarEndError, "reports an error: Traceback: no weights"),
        ((openpi_bytes([1]),), SpeechError, "is a list"),
        ((greeting(link=2),), SpeechError, "offers version 2 of the policy link; expected version 1"),
        ((greeting(action_spec={"size": 2, "colour": 3}),), SpeechError, "colour"),
        ((greeting(cameras=7),), SpeechError, "expected policy, method, fingerprint, action_spec and cameras"),
        ((openpi_bytes({}),), OptionError, "dialect is ''; expected one of pi0-libero, vla-eval-libero"),
    ],
)
def test_a_wrong_greeting_is_refused(said, kind: type[Exception], text: str) -> None:
    began = time.monotonic()
    with RawServer(*said) as server, pytest.raises(kind, match=text):
        RemotePolicy(server.address, timeout_s=0.5)
    assert time.monotonic() - began < HANG_S


def reply(**entries) -> bytes:
    return openpi_bytes({"actions": np.zeros((2, 2)), "server_timing": {"infer_ms": 0.0}} | entries)


@pytest.mark.parametrize(
    ("answer", "then", "error"),
    [
        (None, "wait", "AnswerTimeoutError: ws://.* has not answered within 0.5 s"),
        (None, "die", "LinkLostError: the link to ws://.* is lost"),
        ("RuntimeError: the weights are soup", "wait", "FarEndError: ws://.* reports an error: Runtime"),
        (b"\xc1", "wait", "SpeechError: ws://.* is no msgpack"),
        (bytes(33 * 2**20), "wait", "LinkLostError: .*1009"),
        (openpi_bytes({}), "wait", "SpeechError: ws://.* has NoneType for 'actions'"),
        (reply(actions=np.zeros(2)), "wait", r"has float64 \(2,\) for 'actions'; expected an array of floats"),
        (reply(actions=np.zeros((0, 2))), "wait", r"has float64 \(0, 2\)"),
        (reply(actions=np.zeros((1, 2), int)), "wait", r"has int64 \(1, 2\)"),
        (reply(actions=np.zeros((1, 3))), "wait", "answers with actions of 3 entries; expected 2"),
        (reply(actions=np.full((1, 2), np.nan)), "wait", "an action that is not finite"),
        (reply(server_timing={"infer_ms": "soon"}), "wait", "has 'soon' ms for infer_ms"),
        (reply(server_timing={"infer_ms": -1.0}), "wait", "has -1.0 ms for infer_ms"),
        (reply(server_timing={"infer_ms": 1e9}), "wait", "says that a query took 1000000000.000 ms"),
        (reply(vla_bench={"stages_ms": {"vision": float("nan")}}), "wait", "has nan ms for stage 'vision'"),
        (reply(vla_bench={"stages_ms": [1]}), "wait", "has costs that are no maps"),
        (reply(vla_bench={"flops": 0.5}), "wait", "has 0.5 for flops"),
    ],
)
def test_a_fault_in_an_episode_ends_it_in_an_error_that_names_it(answer, then: str, error: str) -> None:
    said = [greeting(), READY, *([] if answer is None else [answer])]
    with RawServer(*said, then=then) as server:
        policy = RemotePolicy(server.address, timeout_s=0.5 if answer is None else 15)
        began = time.monotonic()
        record = play(policy)
        assert time.monotonic() - began < HANG_S
    assert record.outcome is Outcome.ERROR
    assert record.error is not None
    assert re.search(error, record.error), record.error
    assert not record.queries


def test_a_server_that_confirms_no_episode_is_not_believed() -> None:
    with RawServer(greeting(), reply()) as server:
        policy = RemotePolicy(server.address, timeout_s=0.5)
        with pytest.raises(SpeechError, match="does not confirm the start of an episode"):
            policy.reset(TASK, 0)


def test_a_server_that_takes_nothing_in_is_given_up() -> None:
    door = socket.create_server(("127.0.0.1", 0))
    with serving(ToyPolicy()) as real, door:
        port = int(real.address.rpartition(":")[2])
        over = threading.Event()

        def relay() -> None:  # greets and confirms, then reads no more: the buffers fill up
            near, _ = door.accept()
            far = socket.create_connection(("127.0.0.1", port))
            with near, far:
                for way in ((near, far), (far, near), (far, near), (near, far), (far, near)):
                    way[1].sendall(way[0].recv(65536))
                over.wait(20)

        thread = threading.Thread(target=relay)
        thread.start()
        policy = RemotePolicy(f"ws://127.0.0.1:{door.getsockname()[1]}", timeout_s=0.5)
        policy.reset(TASK, 0)
        huge = first_observation() | {"front": np.zeros((3000, 3000, 3), np.uint8)}
        began = time.monotonic()
        with pytest.raises((LinkLostError, AnswerTimeoutError)):
            policy.act(huge)
        assert time.monotonic() - began < HANG_S
        over.set()
        thread.join(5)


def test_an_observation_too_large_for_the_link_is_an_error_that_says_so() -> None:
    with serving(ToyPolicy()) as server:
        policy = RemotePolicy(server.address)
        policy.reset(TASK, 0)
        with pytest.raises(LinkLostError, match="message too big"):
            policy.act(first_observation() | {"front": np.zeros((4000, 4000, 3), np.uint8)})
        assert play(policy).error is None


@pytest.mark.slow
def test_two_images_cost_at_most_three_and_a_half_milliseconds_of_processor_time_a_step() -> None:
    program = Path(__file__).parent.parent / "benchmarks" / "remote_link.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_after_a_fault_the_next_episode_connects_again() -> None:
    class Moody(ToyPolicy):
        broken = True

        def act(self, obs):
            if Moody.broken:
                raise RuntimeError("not now")
            return super().act(obs)

    expected = play(ToyPolicy())
    with serving(Moody()) as server:
        policy = RemotePolicy(server.address)
        assert play(policy).error == f"FarEndError: {server.address} reports an error: RuntimeError: not now"
        with pytest.raises(LinkLostError, match="no episode is running on it"):
            policy.act(first_observation())
        Moody.broken = False
        again = play(policy)
    assert (again.outcome, again.n_steps, again.path_m) == (expected.outcome, expected.n_steps, expected.path_m)


def test_a_server_killed_and_started_again_between_episodes_costs_none() -> None:
    port = free_port()
    with serving(ToyPolicy(), port=port) as server:
        policy = RemotePolicy(server.address)
        assert play(policy).error is None
    dead = play(policy)
    assert dead.outcome is Outcome.ERROR
    assert "UnreachableError" in (dead.error or "")
    with serving(ToyPolicy(), port=port):
        assert play(policy).error is None


def test_a_server_that_serves_something_else_meanwhile_is_refused() -> None:
    port = free_port()
    with serving(ToyPolicy(), port=port) as server:
        policy = RemotePolicy(server.address)
    other = ToyPolicy(n_actions=3)
    with serving(other, method="action-reuse:2", port=port), pytest.raises(ChangedServerError) as caught:
        policy.reset(TASK, 0)
    assert str(caught.value) == (
        f"{server.address} serves something else than when this run began: method: 'full' became 'action-reuse:2'; "
        f"fingerprint: 'toy-2' became 'toy-3': serve the same again, or begin another run"
    )


def test_answers_without_stages_or_times_are_recorded_as_far_as_they_say() -> None:
    told = reply(actions=np.ones((1, 2), np.float32))
    silent = openpi_bytes({"actions": np.ones((1, 2), np.float32)})
    with RawServer(greeting(), READY, told, silent) as server:
        policy = RemotePolicy(server.address, timeout_s=2)
        policy.reset(TASK, 0)
        one, other = policy.act(first_observation()), policy.act(first_observation())
    assert set(one.stages_ms) == {"policy", "link"}
    assert other.stages_ms == {}


def test_costs_that_are_no_json_are_the_servers_error() -> None:
    class Vague(ToyPolicy):
        def act(self, obs):
            return ActionChunk(np.zeros((1, 2)), cache={"ratio": float("nan")})

    with serving(Vague()) as server:
        policy = RemotePolicy(server.address)
        policy.reset(TASK, 0)
        with pytest.raises(FarEndError, match="ValueError"):
            policy.act(first_observation())
