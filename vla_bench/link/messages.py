"""What messages say: an offer from the server, the start of an episode, an answer with what it cost.

Times, and what each contains:

* `policy_ms`, measured by the server (openpi's `server_timing.infer_ms`): from the observation as arrays in the
  server's memory to the actions there, device work included: the boundary `policy_ms` of an ordinary, local policy.
* `link_ms`, measured by the client: all else between `act` being called and it returning. Packing and unpacking at both
  ends, copies, the network both ways, the queue behind other clients of the same server. The client reports it as the
  stage `link`, beside the server's stages; what the harness records as `policy_ms` is the sum of both.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vla_bench.link.errors import WireError
from vla_bench.policy import ActionChunk
from vla_bench.types import ActionSpec, Task

VERSION = 1
"""Of what stands under `OWN`; a peer of another version is refused."""

OWN = "vla_bench"
"""Key of everything that openpi's protocol has no word for."""


@dataclass(frozen=True)
class Offer:
    """What a server serves: the first message on a link."""

    policy: str
    """Name of the policy, as tables call it."""

    method: str
    """Specification of the method around it, on the server; `full` for none."""

    fingerprint: str
    """Of the policy, as `Policy.fingerprint`."""

    action_spec: ActionSpec
    cameras: tuple[str, ...] | None
    """Cameras that it reads, None for all."""

    def to_message(self) -> dict[str, Any]:
        """Return the metadata that a client gets on connect."""
        return {OWN: {"link": VERSION, **asdict(self)}}

    @classmethod
    def of_message(cls, message: Mapping[str, Any]) -> "Offer | None":
        """Return what a server offers; None if it is none of ours.

        Raises:
            WireError: If it is one of ours of another version.
        """
        own = message.get(OWN)
        if own is None:
            return None
        if not isinstance(own, dict) or own.get("link") != VERSION:
            version = own.get("link") if isinstance(own, dict) else own
            raise WireError(f"offers version {version!r:.40} of the policy link", f"version {VERSION} at both ends")
        try:
            spec, cameras = ActionSpec(**own["action_spec"]), own["cameras"]
            words = (str(own["policy"]), str(own["method"]), str(own["fingerprint"]))
            return cls(*words, spec, None if cameras is None else tuple(cameras))
        except (KeyError, TypeError) as caught:
            expected = "policy, method, fingerprint, action_spec and cameras"
            raise WireError(f"offers {sorted(map(str, own))} ({caught})", expected) from caught


def beginning(task: Task, seed: int) -> dict[str, Any]:
    """Return the message that starts an episode."""
    return {OWN: {"reset": {"task": asdict(task), "seed": seed}}}


def begun(message: Mapping[str, Any]) -> tuple[Task, int] | None:
    """Return task and seed of the episode that a message starts; None if it is an observation.

    Raises:
        WireError: If it starts one without saying which.
    """
    if OWN not in message:
        return None
    try:
        reset = message[OWN]["reset"]
        task = reset["task"]
        return Task(**{**task, "action_spec": ActionSpec(**task["action_spec"])}), int(reset["seed"])
    except (KeyError, TypeError, ValueError) as caught:
        raise WireError(f"starts no episode ({type(caught).__name__}: {caught})", "a task and a seed") from caught


def ready() -> dict[str, Any]:
    """Return the answer to the start of an episode."""
    return {OWN: {"ready": True}}


def is_ready(message: Mapping[str, Any]) -> bool:
    """Tell whether a message is that answer."""
    own = message.get(OWN)
    return isinstance(own, dict) and own.get("ready") is True


def costs(chunk: ActionChunk) -> dict[str, Any]:
    """Return what a query cost, for a client of ours; what is no JSON is an error here rather than there."""
    return {
        OWN: {
            "rows_computed": chunk.rows_computed,
            "rows_reused": chunk.rows_reused,
            "flops": chunk.flops,
            "stages_ms": {str(name): float(ms) for name, ms in chunk.stages_ms.items()},
            "cache": json.loads(json.dumps(chunk.cache, allow_nan=False)) if chunk.cache else {},
            "fates": chunk.fates,
        }
    }


def answered(message: Mapping[str, Any]) -> ActionChunk:
    """Return the answer in a message, without the link's own time.

    Raises:
        WireError: If it holds no actions, or costs that are no numbers.
    """
    actions = message.get("actions")
    if not isinstance(actions, np.ndarray) or actions.ndim != 2 or not len(actions) or actions.dtype.kind != "f":
        shown = f"{actions.dtype} {actions.shape}" if isinstance(actions, np.ndarray) else type(actions).__name__
        raise WireError(f"has {shown} for 'actions'", "an array of floats (n >= 1, size)")
    if not np.isfinite(actions).all():
        raise WireError("has an action that is not finite", "finite numbers")
    own = message.get(OWN)
    own = own if isinstance(own, dict) else {}
    stages, cache, fates = (own.get(key) or {} for key in ("stages_ms", "cache", "fates"))
    if not all(isinstance(part, dict) for part in (stages, cache, fates)):
        raise WireError("has costs that are no maps", "stages_ms, cache and fates as maps")
    stages_ms = {name: _span(ms, f"stage {name!r:.40}") for name, ms in stages.items()}
    counts = [_count(own.get(name), name) for name in ("rows_computed", "rows_reused", "flops")]
    return ActionChunk(actions, *counts, stages_ms=stages_ms, cache=cache, fates=fates)


def policy_ms(message: Mapping[str, Any]) -> float | None:
    """Return the time that the server measured [ms]; None if it has not said, as openpi's first servers.

    Raises:
        WireError: If it is no time.
    """
    timing = message.get("server_timing")
    told = timing.get("infer_ms") if isinstance(timing, dict) else None
    return None if told is None else _span(told, "infer_ms")


def _span(ms: Any, name: str) -> float:
    if not isinstance(ms, int | float) or not math.isfinite(ms) or ms < 0:
        raise WireError(f"has {ms!r:.40} ms for {name}", "a finite time of at least 0")
    return float(ms)


def _count(found: Any, name: str) -> int | None:
    if found is not None and type(found) is not int:
        raise WireError(f"has {found!r:.40} for {name}", "an integer, or nothing")
    return found
