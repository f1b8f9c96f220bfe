"""The far end that speaks as the model servers of allenai/vla-evaluation-harness.

Source: the harness at e1ee9ad (vla-eval 0.8), `docs/rfcs/0002-communication-protocol.md`, `src/vla_eval/connection.py`
and `src/vla_eval/model_servers/serve.py`: one msgpack map a frame with `type`, `payload`, `seq` and `timestamp`; the
client says `hello`, then `episode_start` (unanswered), then `observation` for one `action` with the same number each.
"""

import time
from typing import Any

import numpy as np

from vla_bench.link.dialects import Dialect
from vla_bench.link.errors import FarEndError, SpeechError
from vla_bench.link.messages import Offer
from vla_bench.link.wire import TEXT, packed
from vla_bench.policy import ActionChunk
from vla_bench.types import Observation, Task
from vla_bench_policies.remote.connection import Connection
from vla_bench_policies.remote.ends import answer, digest, unpacked_reply

PROTOCOL = 1
"""`PROTOCOL_VERSION` in `src/vla_eval/protocol/messages.py`."""


class VlaEvalEnd:
    """A model server of vla-eval: is told when episodes begin and end, cannot be seeded, tells no times."""

    def __init__(self, connection: Connection, dialect: Dialect, turned: bool) -> None:
        """Say hello.

        Raises:
            SpeechError: If the server speaks otherwise.
        """
        self.connection, self._dialect, self._turned = connection, dialect, turned
        self._number, self._in_episode = 0, False
        number = self._say("hello", {"harness_version": "vla-bench", "protocol_version": PROTOCOL})
        told = self._hear("hello", number)
        if told.get("protocol_version") != PROTOCOL:
            found = f"speaks version {told.get('protocol_version')!r:.40} of vla-eval's protocol"
            raise SpeechError(connection.address, found, str(PROTOCOL))
        wanted = told.get("observation_params") or {}
        self._state = bool(wanted.get("send_state"))
        cameras = dialect.cameras if wanted.get("send_wrist_image") else dialect.cameras[:1]
        proof = f"vla-eval-{digest(told)}{'-turned' if turned else ''}"
        name = f"vla-eval-{told.get('model_server', 'server')}"
        self.offer = Offer(name, "full", proof, dialect.action_spec, cameras)

    def reset(self, task: Task, seed: int) -> None:
        """End the last episode, if any, and begin one; the server answers neither."""
        if self._in_episode:
            self._say("episode_end", {})
        suite = task.suite.partition("@")[0].replace("-", "_")
        self._say("episode_start", {"task": {"name": task.instruction, "suite": suite, "task_id": task.index}})
        self._in_episode = True

    def ask(self, obs: Observation) -> tuple[ActionChunk, float | None]:
        """Return the one action of this step, the gripper decided as the harness does."""
        spec, cameras = self.offer.action_spec, self.offer.cameras or ()
        payload = self._dialect.spoken({key: obs[key] for key in (*cameras, "proprio", "instruction")}, self._turned)
        names = dict(self._dialect.images)
        payload["images"] = {names[camera]: payload.pop(names[camera]) for camera in cameras}
        if not self._state:
            del payload[self._dialect.state]
        heard = self._hear("action", self._say("observation", payload))
        action = heard.get("actions", heard.get("action"))
        if not isinstance(action, np.ndarray) or action.shape != (spec.size,):
            found = f"answers with an action of shape {np.asarray(action).shape}"
            raise SpeechError(self.connection.address, found, f"({spec.size},), one action a step")
        chunk, _ = answer(self.connection.address, {"actions": action[None]}, spec)
        actions = np.clip(chunk.actions, spec.low, spec.high)
        actions[:, -1] = np.where(actions[:, -1] < 0, spec.low, spec.high)
        return ActionChunk(actions), None

    def _say(self, kind: str, payload: dict[str, Any]) -> int:
        self._number += 1
        message = {"type": kind, "payload": payload, "seq": self._number, "timestamp": time.time()}
        self.connection.send(packed(message, TEXT))
        return self._number

    def _hear(self, kind: str, number: int) -> dict[str, Any]:
        message = unpacked_reply(self.connection)
        payload = message.get("payload")
        if message.get("type") == "error":
            raise FarEndError(self.connection.address, str(payload))
        if message.get("type") != kind or message.get("seq") != number or not isinstance(payload, dict):
            found = f"answers with {message.get('type')!r:.40}, number {message.get('seq')!r:.40}"
            raise SpeechError(self.connection.address, found, f"{kind!r}, number {number}, of vla-eval's protocol")
        return payload
