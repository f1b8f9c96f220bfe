"""Anybody who speaks openpi's protocol is answered as the policy itself would; nobody can bring the server down."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import websockets
from link_peers import OpenpiClient, dial, openpi_bytes, openpi_message, serving
from toy import TOY, ToyEnv, ToyPolicy

from vla_bench import cli
from vla_bench.errors import OptionError
from vla_bench.link import server as servers
from vla_bench.link.command import Serve, offered, served
from vla_bench.link.dialects import PI0_LIBERO
from vla_bench.link.errors import OpenDoorError
from vla_bench.link.secret import read_token
from vla_bench.link.server import PolicyServer
from vla_bench.link.wire import MOST_BYTES
from vla_bench.policy import ActionChunk, Policy
from vla_bench.testing.promises import same

TASK = TOY.tasks()[0]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "SEAT_WAIT_S", 10)


def observations(n: int = 3) -> list[dict]:
    env = ToyEnv()
    obs, _ = env.reset(options={"task": 0, "init_state": 1})
    seen = [obs]
    for _ in range(n - 1):
        seen.append(env.step(np.array([0.3, -0.2]))[0])
    return seen


def locally(policy: Policy, seed: int = 0) -> list[np.ndarray]:
    policy.reset(TASK, seed)
    return [policy.act(obs).actions for obs in observations()]


class Failing(ToyPolicy):
    def act(self, obs):
        raise RuntimeError("the weights are soup")


class Slow(ToyPolicy):
    """Counts how many are in `act` at once, over all that exist."""

    inside, most = 0, 0

    def act(self, obs):
        Slow.inside += 1
        Slow.most = max(Slow.most, Slow.inside)
        time.sleep(0.02)
        Slow.inside -= 1
        return super().act(obs)


def test_an_openpi_client_gets_the_policys_own_actions_to_the_last_bit() -> None:
    with serving(ToyPolicy()) as server:
        client = OpenpiClient(server.address)
        replies = [client.infer(obs) for obs in observations()]
        client.close()
    for reply, expected in zip(replies, locally(ToyPolicy()), strict=True):
        assert same(np.array(reply["actions"]), expected)
    assert set(replies[0]) == {"actions", "server_timing"}
    assert set(replies[0]["server_timing"]) == {"infer_ms"}
    assert set(replies[1]["server_timing"]) == {"infer_ms", "prev_total_ms"}
    assert 0 < replies[1]["server_timing"]["infer_ms"] < replies[2]["server_timing"]["prev_total_ms"] + 50


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
@pytest.mark.skipif(
    importlib.util.find_spec("openpi_client") is None,
    reason="openpi-client asks for numpy<2, so it cannot be a dependency: pip install --no-deps openpi-client",
)
def test_openpis_own_client_package_gets_them_too(tmp_path: Path) -> None:
    from openpi_client.websocket_client_policy import WebsocketClientPolicy  # type: ignore[import-not-found]

    with serving(ToyPolicy(), token="a" * 20) as server:
        host, port = server.address.rpartition(":")[::2]
        client = WebsocketClientPolicy(host, int(port), api_key="a" * 20)
        assert client.get_server_metadata()["vla_bench"]["policy"] == "toy"
        for obs, expected in zip(observations(), locally(ToyPolicy()), strict=True):
            assert same(np.array(client.infer(obs)["actions"]), expected)
        with pytest.raises(RuntimeError, match="has no 'front'"):
            client.infer({"prompt": "go"})


def test_the_metadata_say_what_is_served() -> None:
    with serving(ToyPolicy(), method="action-reuse:2") as server:
        told = OpenpiClient(server.address).metadata["vla_bench"]
    assert told["policy"] == "toy"
    assert told["method"] == "action-reuse:2"
    assert told["cameras"] == ["front"]
    assert told["action_spec"]["size"] == 2


def test_an_episode_of_an_openpi_client_begins_with_its_connection_and_with_another_prompt() -> None:
    asked = observations(1)[0]
    first = locally(ToyPolicy())[0]
    with serving(ToyPolicy()) as server:
        for _ in range(2):
            client = OpenpiClient(server.address)
            assert same(np.array(client.infer(asked)["actions"]), first)
            assert not same(np.array(client.infer(asked)["actions"]), first)  # the same episode: its noise goes on
            client.infer(asked | {"instruction": "something else"})
            assert same(np.array(client.infer(asked)["actions"]), first)
            client.close()


def test_an_openpi_client_of_libero_is_understood_in_its_own_words() -> None:
    class Seeing(ToyPolicy):
        cameras = ("agentview", "robot0_eye_in_hand")

        def act(self, obs):
            self.seen = obs
            return ActionChunk(np.full((5, 7), obs["proprio"][0]))

    policy = Seeing()
    rng = np.random.default_rng(0)
    spoken = {
        "observation/image": rng.integers(0, 256, (224, 224, 3), dtype=np.uint8),
        "observation/wrist_image": rng.integers(0, 256, (224, 224, 3), dtype=np.uint8),
        "observation/state": rng.random(8),
        "prompt": "do something",
    }
    with serving(policy, dialect=PI0_LIBERO) as server:
        client = OpenpiClient(server.address)
        reply = client.infer(spoken)
        with pytest.raises(RuntimeError, match="has no 'observation/image'"):
            client.infer({"prompt": "do something"})
    assert reply["actions"].shape == (5, 7)
    assert same(policy.seen["agentview"], spoken["observation/image"])
    assert same(policy.seen["robot0_eye_in_hand"], spoken["observation/wrist_image"])
    assert same(policy.seen["proprio"], spoken["observation/state"].astype(np.float32))
    assert policy.seen["instruction"] == "do something"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"\xc1garbage", "is no msgpack"),
        ("reset", "is text"),
        (openpi_bytes({"proprio": np.zeros(4, np.float32)}), "has no 'front'"),
        (openpi_bytes({"vla_bench": {"reset": {"task": {"suite": 3}}}}), "starts no episode"),
        (openpi_bytes({"vla_bench": 7}), "starts no episode"),
        (openpi_bytes({"front": "no image", "proprio": 3, "instruction": "go"}), "TypeError"),
    ],
)
def test_garbage_is_answered_in_words_and_the_server_goes_on(said, text: str) -> None:
    with serving(ToyPolicy()) as server:
        websocket = dial(server.address)
        websocket.recv(timeout=5)
        websocket.send(said)
        assert text in websocket.recv(timeout=5)
        with pytest.raises(websockets.ConnectionClosedError):
            websocket.recv(timeout=5)
        client = OpenpiClient(server.address)
        assert "actions" in client.infer(observations(1)[0])


def test_a_policy_that_raises_is_reported_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Failing()) as server:
        for _ in range(2):
            client = OpenpiClient(server.address)
            with pytest.raises(RuntimeError, match=r"^RuntimeError: the weights are soup$"):
                client.infer(observations(1)[0])
    assert "connection handler failed" in caplog.text  # with its traceback, on the server's side only


def test_an_oversized_message_ends_its_link_only() -> None:
    with serving(ToyPolicy()) as server:
        websocket = dial(server.address)
        websocket.recv(timeout=5)
        with suppress(websockets.ConnectionClosedError):
            websocket.send(bytes(MOST_BYTES + 1))
        with pytest.raises(websockets.ConnectionClosedError):
            websocket.recv(timeout=5)
        assert websocket.close_code in (1006, 1009)  # the first if the server closed before all was sent
        assert "actions" in OpenpiClient(server.address).infer(observations(1)[0])


def test_a_client_that_vanishes_in_a_query_frees_its_seat(patient: None) -> None:
    with serving(ToyPolicy(delay_s=0.3)) as server:
        client = OpenpiClient(server.address)
        client.websocket.send(openpi_bytes(observations(1)[0]))
        client.websocket.socket.close()
        assert "actions" in OpenpiClient(server.address).infer(observations(1)[0])


def test_a_half_open_link_does_not_keep_its_seat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "PING_S", 0.1)
    monkeypatch.setattr(servers, "PONG_S", 0.2)
    monkeypatch.setattr(servers, "CLOSE_S", 0.2)
    monkeypatch.setattr(servers, "SEAT_WAIT_S", 10)
    key = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    with serving(ToyPolicy()) as server:
        host, port = server.address.removeprefix("ws://").split(":")
        with socket.create_connection((host, int(port))) as gone:  # opens the link, then answers no ping
            gone.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n{key}{'A' * 22}==\r\n\r\n".encode())
            assert gone.recv(12) == b"HTTP/1.1 101"
            assert "actions" in OpenpiClient(server.address).infer(observations(1)[0])


def test_connections_that_never_speak_take_no_seat() -> None:
    with serving(ToyPolicy()) as server:
        host, port = server.address.removeprefix("ws://").split(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(5)]
        for noisy in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"):
            with socket.create_connection((host, int(port))) as other:
                other.sendall(noisy)
        assert "actions" in OpenpiClient(server.address).infer(observations(1)[0])
        for one in silent:
            one.close()


def test_a_client_too_many_is_refused_before_the_websocket_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "SEAT_WAIT_S", 0.2)
    with serving(ToyPolicy()) as server:
        first = OpenpiClient(server.address)
        with pytest.raises(websockets.InvalidStatus) as caught:
            OpenpiClient(server.address)
        assert caught.value.response.status_code == 503
        assert b"all 1 seats are taken" in caught.value.response.body
        assert "actions" in first.infer(observations(1)[0])  # undisturbed
        first.close()
        assert "actions" in OpenpiClient(server.address).infer(observations(1)[0])


def test_a_client_waits_a_moment_for_a_seat_that_is_given_back(patient: None) -> None:
    with serving(ToyPolicy()) as server:
        first = OpenpiClient(server.address)
        threading.Timer(0.3, first.close).start()
        assert "actions" in OpenpiClient(server.address).infer(observations(1)[0])


def test_clients_at_once_have_each_a_memory_of_their_own() -> None:
    expected = locally(ToyPolicy())
    with serving(ToyPolicy(), ToyPolicy()) as server:
        clients = [OpenpiClient(server.address) for _ in range(2)]
        for obs, actions in zip(observations(), expected, strict=True):
            for client in clients:
                assert same(np.array(client.infer(obs)["actions"]), actions)


def test_queries_of_several_clients_take_turns_so_that_none_is_measured_slower() -> None:
    with serving(Slow(), Slow()) as server:
        clients = [OpenpiClient(server.address) for _ in range(2)]
        asking = [threading.Thread(target=lambda c=c: [c.infer(obs) for obs in observations(5)]) for c in clients]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(10)
    assert Slow.most == 1


def test_health_is_told_to_anybody_even_while_a_query_runs() -> None:
    with serving(ToyPolicy(delay_s=3), token="t" * 16) as server:
        client = OpenpiClient(server.address, api_key="t" * 16)
        asking = threading.Thread(target=lambda: client.infer(observations(1)[0]))
        asking.start()
        url = server.address.replace("ws://", "http://")
        with urllib.request.urlopen(f"{url}/healthz", timeout=2.5) as answer:
            assert (answer.status, answer.read()) == (200, b"OK\n")
        asking.join(10)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url, timeout=5)
        caught.value.close()
        assert caught.value.code in (401, 426)


@pytest.mark.parametrize("key", [None, "wrong", "t" * 15, "é" * 16])
def test_a_wrong_token_is_refused(key: str | None) -> None:
    with serving(ToyPolicy(), token="t" * 16) as server:
        if key is not None and not key.isascii():
            key = None  # a header cannot hold it
        with pytest.raises(websockets.InvalidStatus) as caught:
            OpenpiClient(server.address, api_key=key)
        assert caught.value.response.status_code == 401
        assert "actions" in OpenpiClient(server.address, api_key="t" * 16).infer(observations(1)[0])


def test_a_token_is_one_long_word_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    assert read_token(path) == "0123456789abcdef"
    assert read_token(None) is None
    for wrong in ("", "short", "two words of a token", "ümläutümläutümläut"):
        path.write_text(wrong)
        with pytest.raises(OptionError, match="one word of at least 16 ASCII characters"):
            read_token(path)
    with pytest.raises(OptionError, match="a file of text"):
        read_token(tmp_path / "nowhere")


def test_loopback_has_three_names() -> None:
    for host in ("localhost", "127.0.0.1", "::1"):
        with serving(ToyPolicy(), host=host) as server:
            assert "actions" in OpenpiClient(server.address).infer(observations(1)[0])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "robot.local"])
def test_no_door_stands_open_to_other_machines(host: str) -> None:
    with pytest.raises(OpenDoorError, match="--token-file PATH"), serving(ToyPolicy(), host=host):
        pass


def test_a_port_that_is_taken_is_said() -> None:
    with serving(ToyPolicy()) as server:
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(OptionError, match=f"127.0.0.1:{port}'; expected an address to listen at"):
            Serve("toy", port=port).run()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Serve("toy", clients=0), "--clients is 0"),
        (Serve("toy", port=70_000), "--port is 70000"),
        (Serve("toy", dialect="vla-eval-libero"), "--dialect is 'vla-eval-libero'; expected one of openpi's clients"),
        (Serve("toy", dialect="pi0"), "no dialect named 'pi0'. Known: pi0-libero, vla-eval-libero"),
        (Serve("toi"), "no policy named 'toi'"),
    ],
)
def test_a_mistake_in_the_command_is_said_before_anything_is_served(command: Serve, message: str) -> None:
    with pytest.raises(Exception) as caught:
        command.run()
    assert message in str(caught.value)


def test_a_policy_that_reads_the_simulators_state_is_not_served() -> None:
    with pytest.raises(OptionError, match="one that sees only observations"):
        served("expert", "full")


def test_serve_is_a_command_of_vla_bench(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    said = capsys.readouterr().out
    assert all(option in said for option in ("--policy", "--method", "--port", "--token-file", "--dialect"))


def test_served_from_the_command_line_it_answers_and_stops_at_ctrl_c() -> None:
    code = "import sys; sys.path.insert(0, 'tests'); import toy; from vla_bench import cli; sys.exit(cli.main())"
    words = ["serve", "--policy", "toy:3", "--method", "action-reuse:2", "--port", "0"]
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving toy under action-reuse:2 at ws://127.0.0.1:")
        reply = OpenpiClient(line.split()[-1]).infer(observations(1)[0])
        assert reply["actions"].shape == (6, 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == "stopped\n"
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_server_that_never_served_can_be_stopped() -> None:
    with PolicyServer([ToyPolicy()], offered(ToyPolicy(), "full")):
        pass


def test_stopping_closes_links_that_are_open() -> None:
    with serving(ToyPolicy()) as server:
        client = OpenpiClient(server.address)
    with pytest.raises(websockets.ConnectionClosed):
        client.websocket.recv(timeout=5)


def test_an_answer_holds_what_the_independent_reader_reads() -> None:
    assert openpi_message(openpi_bytes({"a": [np.float32(1)]}))["a"][0] == 1  # the peers of these tests agree too
