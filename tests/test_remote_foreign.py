"""Servers of other projects are asked in their own words: openpi's, and the model servers of vla-evaluation-harness."""

import asyncio
import importlib.util
import threading
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from link_peers import OpenpiServer, RawServer, VlaEvalServer, free_port, openpi_bytes
from PIL import Image

from vla_bench import registry
from vla_bench.contestant import Contestant
from vla_bench.errors import OptionError
from vla_bench.link.dialects import PI0_LIBERO, fitted
from vla_bench.link.errors import AnswerTimeoutError, FarEndError, SpeechError, UnreachableError
from vla_bench.protocol import Protocol
from vla_bench.rollout import run_episode
from vla_bench.testing import check_policy
from vla_bench.testing.promises import same
from vla_bench.types import Cell, Outcome, Task
from vla_bench_policies.remote.policy import RemotePolicy

CAMERAS = ("agentview", "robot0_eye_in_hand")
TASK = Task("libero-object@1", 3, "soup", "pick up the soup", horizon=6, n_initial_states=5)
PROTOCOL = Protocol("small", CAMERAS, 256, rotate_180=True, settle_steps=0, settle_action=(), control_hz=20)
N_CHUNK = 10


class SoupEnv:
    """Two noisy pictures of LIBERO's size; nothing can be achieved."""

    observation_space = spaces.Dict(
        dict.fromkeys(CAMERAS, spaces.Box(0, 255, (256, 256, 3), np.uint8))
        | {"proprio": spaces.Box(-9, 9, (8,), np.float32), "instruction": spaces.Text(40)}
    )

    def reset(self, seed: int = 0, options: dict[str, Any] | None = None):
        self._n = 0
        return self._observe(), {"init_state_sha256": 64 * "0", "success": False}

    def step(self, action):
        self._n += 1
        return self._observe(), 0.0, False, self._n >= TASK.horizon, {"success": False}

    def _observe(self):
        rng = np.random.default_rng(self._n)
        pictures = {camera: rng.integers(0, 256, (256, 256, 3), dtype=np.uint8) for camera in CAMERAS}
        return pictures | {"proprio": rng.normal(size=8).astype(np.float32), "instruction": TASK.instruction}


def pi0(message: dict) -> dict:
    """A chunk that depends on all that is seen, and leaves the limits, as a model's may."""
    seen = sum(int(message[key].sum()) for key in ("observation/image", "observation/wrist_image"))
    assert message["prompt"] == TASK.instruction
    chunk = np.random.default_rng([seen % 2**31, len(message)]).normal(0, 1, (N_CHUNK, 7))
    return {"actions": chunk + message["observation/state"][0], "policy_timing": {"infer_ms": 1.0}}


def test_an_openpi_server_keeps_the_contract_of_a_policy_by_its_libero_preset() -> None:
    with OpenpiServer(pi0) as server:
        check_policy(registry.policy(f"remote:{server.address},dialect=pi0-libero"), SoupEnv(), TASK)  # type: ignore[arg-type]


def test_an_openpi_server_of_libero_sees_what_its_published_loop_would_send() -> None:
    obs, _ = SoupEnv().reset()
    with OpenpiServer(pi0, {"model": "pi0"}) as server:
        policy = RemotePolicy(server.address, dialect="pi0-libero")
        policy.reset(TASK, 0)
        chunk = policy.act(obs)
    (message,) = server.seen
    assert set(message) == {"observation/image", "observation/wrist_image", "observation/state", "prompt"}
    assert message["observation/image"].shape == (224, 224, 3)
    expected = np.asarray(Image.fromarray(obs[CAMERAS[0]]).resize((224, 224), Image.Resampling.BILINEAR))
    assert same(np.array(message["observation/image"]), expected)
    assert same(np.array(message["observation/state"]), obs["proprio"].astype(np.float64))
    assert same(chunk.actions, np.clip(pi0(message)["actions"][:5], -1, 1))
    assert set(chunk.stages_ms) == {"policy", "link"}
    assert policy.cameras == CAMERAS
    assert policy.name == "remote-pi0-libero"


def test_pictures_are_turned_only_where_asked() -> None:
    obs, _ = SoupEnv().reset()
    with OpenpiServer(pi0) as server:
        policies = [RemotePolicy(server.address, dialect="pi0-libero", turned=turned) for turned in (False, True)]
        for policy in policies:
            policy.reset(TASK, 0)
            policy.act(obs)
    as_is, turned = (message["observation/wrist_image"] for message in server.seen)
    turned_before = fitted(np.ascontiguousarray(obs[CAMERAS[1]][::-1, ::-1]), 224)
    assert same(np.array(turned), turned_before)
    assert not same(np.array(as_is), turned_before)
    assert policies[0].fingerprint != policies[1].fingerprint


def test_as_many_actions_of_a_chunk_are_applied_as_asked_and_no_more_than_there_are() -> None:
    obs, _ = SoupEnv().reset()
    with OpenpiServer(pi0) as server:
        for execute in (1, N_CHUNK):
            policy = registry.policy(f"remote:{server.address},dialect=pi0-libero,execute={execute}")
            policy.reset(TASK, 0)
            assert policy.act(obs).actions.shape == (execute, 7)
        policy = RemotePolicy(server.address, dialect="pi0-libero", execute=N_CHUNK + 1)
        policy.reset(TASK, 0)
        with pytest.raises(SpeechError, match="answers with 10 actions; expected at least 11"):
            policy.act(obs)


def test_what_an_openpi_server_says_about_itself_is_part_of_the_fingerprint() -> None:
    prints = set()
    for metadata in ({}, {"model": "pi0"}, {"model": "pi05"}):
        with OpenpiServer(pi0, metadata) as server:
            prints.add(RemotePolicy(server.address, dialect="pi0-libero").fingerprint)
    assert len(prints) == 3


def test_a_server_of_openpis_first_version_tells_no_time() -> None:
    with OpenpiServer(pi0, timed=False) as server:
        policy = RemotePolicy(server.address, dialect="pi0-libero")
        policy.reset(TASK, 0)
        assert policy.act(SoupEnv().reset()[0]).stages_ms == {}


def test_an_openpi_server_that_raises_ends_the_episode_in_its_words() -> None:
    def broken(message):
        raise ValueError("no checkpoint")

    with OpenpiServer(broken) as server:
        policy = RemotePolicy(server.address, dialect="pi0-libero")
        record = run_episode(SoupEnv(), Contestant("full", policy), TASK, Cell(0, 0, 0), PROTOCOL)  # type: ignore[arg-type]
    assert record.outcome is Outcome.ERROR
    assert "reports an error: Traceback: ValueError('no checkpoint')" in (record.error or "")


def test_a_picture_that_is_no_square_is_centred_on_black() -> None:
    wide = np.full((100, 200, 3), 255, np.uint8)
    square = fitted(wide, 50)
    assert square.shape == (50, 50, 3)
    assert (square[12:37] == 255).all()
    assert not square[:12].any()
    assert not square[37:].any()
    assert same(fitted(wide.transpose(1, 0, 2), 50), np.ascontiguousarray(square.transpose(1, 0, 2)))
    assert fitted(square, 50) is square


@pytest.mark.skipif(importlib.util.find_spec("openpi_client") is None, reason="pip install --no-deps openpi-client")
@pytest.mark.parametrize("shape", [(256, 256), (128, 128), (480, 640), (640, 480), (225, 223)])
def test_pictures_are_resized_as_openpis_own_client_does(shape: tuple[int, int]) -> None:
    from openpi_client import image_tools  # type: ignore[import-not-found]

    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert same(fitted(image, 224), np.ascontiguousarray(image_tools.resize_with_pad(image, 224, 224)))


def constant(payload: dict) -> np.ndarray:
    return np.array([0.1, -2.0, 0.3, 0.4, 0.5, 0.6, payload.get("states", np.zeros(8))[0]], np.float32)


def test_a_vla_eval_server_keeps_the_contract_of_a_policy() -> None:
    with VlaEvalServer(constant, send_wrist_image=True, send_state=True) as server:
        check_policy(RemotePolicy(server.address, dialect="vla-eval-libero"), SoupEnv(), TASK)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrist", [False, True])
@pytest.mark.parametrize("state", [False, True])
def test_a_vla_eval_server_is_told_episodes_and_sees_what_it_asks_for(wrist: bool, state: bool) -> None:
    env = SoupEnv()
    with VlaEvalServer(constant, send_wrist_image=wrist, send_state=state) as server:
        policy = registry.policy(f"remote:{server.address},dialect=vla-eval-libero")
        assert policy.cameras == (CAMERAS if wrist else CAMERAS[:1])
        assert policy.name == "remote-vla-eval-Fake"
        for init_state in range(2):
            record = run_episode(env, Contestant("full", policy), TASK, Cell(3, init_state, 0), PROTOCOL)  # type: ignore[arg-type]
            assert record.error is None
            assert [query.n_actions for query in record.queries] == [1] * TASK.horizon
    kinds = [kind for kind, _ in server.heard]
    start = ["episode_start", *["observation"] * TASK.horizon]
    assert kinds == ["hello", *start, "episode_end", *start]
    assert server.heard[1][1] == {"task": {"name": "pick up the soup", "suite": "libero_object", "task_id": 3}}
    obs, _ = env.reset()
    seen = server.heard[2][1]
    assert set(seen) == {"images", "task_description"} | ({"states"} if state else set())
    assert list(seen["images"]) == (["agentview", "wrist"] if wrist else ["agentview"])
    assert same(np.array(seen["images"]["agentview"]), obs["agentview"])
    assert seen["task_description"] == "pick up the soup"


def test_the_gripper_of_a_vla_eval_server_is_decided_as_its_harness_does() -> None:
    def closing(payload):
        return np.array([0, 0, 0, 0, 0, 0, closing.to], np.float32)

    obs, _ = SoupEnv().reset()
    with VlaEvalServer(closing) as server:
        policy = RemotePolicy(server.address, dialect="vla-eval-libero")
        policy.reset(TASK, 0)
        for closing.to, decided in ((-0.1, -1), (0.0, 1), (0.2, 1)):
            assert policy.act(obs).actions[0, 6] == decided


def test_a_vla_eval_server_that_fails_is_reported_and_the_next_episode_connects_again() -> None:
    def moody(payload):
        if moody.broken:
            raise ValueError("no GPU")
        return constant(payload)

    moody.broken = True
    obs, _ = SoupEnv().reset()
    with VlaEvalServer(moody) as server:
        policy = RemotePolicy(server.address, dialect="vla-eval-libero")
        policy.reset(TASK, 0)
        with pytest.raises(FarEndError, match="observation_failed: no GPU"):
            policy.act(obs)
        moody.broken = False
        policy.reset(TASK, 0)
        assert policy.act(obs).actions.shape == (1, 7)
    assert [kind for kind, _ in server.heard].count("hello") == 2


def test_a_server_of_the_other_protocol_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla_bench_policies.remote.policy.OPEN_S", 0.5)
    with VlaEvalServer(constant) as server, pytest.raises(AnswerTimeoutError):
        RemotePolicy(server.address, dialect="pi0-libero")
    with OpenpiServer(pi0) as server, pytest.raises(SpeechError, match="answers with None, number None"):
        RemotePolicy(server.address, dialect="vla-eval-libero")


def test_a_vla_eval_server_that_answers_chunks_or_another_version_is_refused() -> None:
    obs, _ = SoupEnv().reset()
    with VlaEvalServer(lambda payload: np.zeros((4, 7), np.float32)) as server:
        policy = RemotePolicy(server.address, dialect="vla-eval-libero")
        policy.reset(TASK, 0)
        with pytest.raises(SpeechError, match=r"an action of shape \(4, 7\); expected \(7,\), one action a step"):
            policy.act(obs)
    later = openpi_bytes({"type": "hello", "payload": {"protocol_version": 2}, "seq": 1, "timestamp": 0.0})
    with RawServer(later) as server, pytest.raises(SpeechError, match="speaks version 2 of vla-eval's protocol"):
        RemotePolicy(server.address, dialect="vla-eval-libero")
    with VlaEvalServer(constant) as server, pytest.raises(OptionError, match="answers one action a step"):
        RemotePolicy(server.address, dialect="vla-eval-libero", execute=2)


def has_openpi() -> bool:
    return all(importlib.util.find_spec(name) for name in ("openpi", "openpi_client"))


@pytest.mark.skipif(not has_openpi(), reason="openpi's serving module is in no package: put its repository on the path")
def test_openpis_own_server_answers_us() -> None:
    from openpi.serving.websocket_policy_server import WebsocketPolicyServer  # type: ignore[import-not-found]

    class Model:
        """What openpi serves; it answers as `pi0` does."""

        def infer(self, message: dict) -> dict:
            return pi0(message)

    port = free_port()
    server = WebsocketPolicyServer(Model(), host="127.0.0.1", port=port, metadata={"model": "pi0"})
    loop = asyncio.new_event_loop()
    running = loop.create_task(server.run())

    def serve() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(running)
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        while True:
            try:
                policy = RemotePolicy(f"ws://127.0.0.1:{port}", dialect="pi0-libero")
                break
            except UnreachableError:  # it has not begun to listen
                time.sleep(0.1)
        obs, _ = SoupEnv().reset()
        for _ in range(2):
            policy.reset(TASK, 0)
            chunk = policy.act(obs)
        state = obs["proprio"].astype(np.float64)
        images = [fitted(np.ascontiguousarray(obs[camera]), 224) for camera in CAMERAS]
        message = {"observation/image": images[0], "observation/wrist_image": images[1]}
        expected = pi0(message | {"observation/state": state, "prompt": TASK.instruction})["actions"][:5]
        assert same(chunk.actions, np.clip(expected, -1, 1))
        assert set(chunk.stages_ms) == {"policy", "link"}
    finally:
        loop.call_soon_threadsafe(running.cancel)
        thread.join(20)


@pytest.mark.skipif(
    importlib.util.find_spec("vla_eval") is None, reason="pip install --no-deps vla-eval anyio lazyregistry"
)
def test_vla_evals_own_server_package_answers_us() -> None:
    import anyio
    from vla_eval.model_servers.predict import PredictModelServer  # type: ignore[import-not-found]
    from vla_eval.model_servers.serve import serve_async  # type: ignore[import-not-found]

    class Chunks(PredictModelServer):
        """Answers chunks of three, which the package cuts into steps."""

        n_asked = 0

        def __init__(self):
            super().__init__(chunk_size=3, action_ensemble="newest")

        def get_observation_params(self):
            return {"send_wrist_image": True, "send_state": True}

        def predict(self, obs, ctx):
            assert obs["images"]["agentview"].shape == (256, 256, 3)
            assert obs["images"]["wrist"].dtype == np.uint8
            self.n_asked += 1
            first = self.n_asked * 0.1 + np.arange(3) * 0.01
            return {"actions": np.repeat(first[:, None], 7, axis=1)}

    model, port, over = Chunks(), free_port(), threading.Event()

    async def serving() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(serve_async, model, "127.0.0.1", port)
            while not over.is_set():
                await anyio.sleep(0.05)
            group.cancel_scope.cancel()

    thread = threading.Thread(target=lambda: anyio.run(serving))
    thread.start()
    try:
        while True:
            try:
                policy = RemotePolicy(f"ws://127.0.0.1:{port}", dialect="vla-eval-libero")
                break
            except UnreachableError:  # it has not begun to listen
                time.sleep(0.1)
        env = SoupEnv()
        policy.reset(TASK, 0)
        answers = [policy.act(env.reset()[0]).actions[0, 0] for _ in range(5)]
        policy.reset(TASK, 0)  # the package forgets its chunk
        answers.append(policy.act(env.reset()[0]).actions[0, 0])
    finally:
        over.set()
        thread.join(20)
    assert np.allclose(answers, [0.1, 0.11, 0.12, 0.2, 0.21, 0.3])


def test_the_preset_names_what_openpi_names() -> None:
    assert [key for _, key in PI0_LIBERO.images] == ["observation/image", "observation/wrist_image"]
    assert (PI0_LIBERO.state, PI0_LIBERO.prompt) == ("observation/state", "prompt")
    assert (PI0_LIBERO.image_px, PI0_LIBERO.execute) == (224, 5)
