"""Any LeRobot policy as the benchmark's policy, known only by its methods."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vla_bench.errors import OptionError, VlaBenchError
from vla_bench.policy import ActionChunk
from vla_bench.types import ActionSpec, Observation, Task

Batch = dict[str, Any]
"""What LeRobot hands around: tensors by key, batched, and `task`, a list of sentences."""


class PreTrainedPolicy(Protocol):
    """What is used of a LeRobot policy. Source: lerobot 0.4.4, `src/lerobot/policies/pretrained.py`."""

    config: Any

    def reset(self) -> None:
        """Forget queues of observations and actions."""
        ...

    def predict_action_chunk(self, batch: Batch) -> Tensor:
        """Return normalised actions (1, n, size)."""
        ...

    def select_action(self, batch: Batch) -> Tensor:
        """Return one normalised action (1, size), from a queue of its own while that lasts."""
        ...


class UnfitFeaturesError(VlaBenchError):
    """Refuse a policy whose inputs or outputs are not what it would be given."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(
            f"the LeRobot policy {found}; expected {expected}: name its own keys with agentview=KEY, wrist=KEY and "
            f"state=KEY, none of which is guessed"
        )


@dataclass(frozen=True)
class Keys:
    """What the policy calls the entries of an observation."""

    images: tuple[tuple[str, str], ...] = (
        ("agentview", "observation.images.image"),
        ("robot0_eye_in_hand", "observation.images.image2"),
    )
    """Our camera and its key. Source: lerobot 0.4.4, `envs/configs.py`, `LiberoEnv.features_map`."""

    state: str = "observation.state"
    """Key of position, rotation vector and fingers. Source: lerobot 0.4.4, `processor/env_processor.py`."""

    def read_by(self, features: Mapping[str, Any]) -> "Keys":
        """Return those keys that a policy's `config.input_features` asks for.

        Raises:
            UnfitFeaturesError: If it asks for another one, or for no image.
        """
        images = tuple((camera, key) for camera, key in self.images if key in features)
        known = {self.state, *(key for _, key in self.images)}
        unknown = sorted(set(features) - known)
        if unknown or not images:
            raise UnfitFeaturesError(f"reads {', '.join(sorted(features)) or 'nothing'}", f"only {sorted(known)}")
        return Keys(images, self.state if self.state in features else "")


class LeRobotPolicy:
    """Asks a LeRobot policy as LeRobot's own evaluation does, once for several actions.

    In mode `chunk` one `predict_action_chunk` answers `execute` actions. A policy that looks back over several
    observations, or averages chunks of several queries, must see every step: mode `select` asks `select_action` for one
    action a step, and its cost comes and goes with the policy's own queue.

    Pictures go in as float (1, 3, height, width) in [0, 1], turned as the protocol turns them (LeRobot's LIBERO wants
    that of the protocol `lerobot`); `before` and `after` are LeRobot's processors, which hold the normalisation, so
    nothing is normalised here. Actions are clipped to the limits, as the simulator's controller does.
    """

    def __init__(
        self, inner: PreTrainedPolicy, before: Callable[[Batch], Batch], after: Callable[[Tensor], Tensor],
        keys: Keys, execute: int, fingerprint: str,
    ) -> None:  # fmt: skip
        """Wrap a policy.

        Args:
            inner: The policy, loaded, on its device.
            before: LeRobot's preprocessor: renames, tokenises, normalises, moves to the device.
            after: LeRobot's postprocessor: un-normalises one action (1, size), moves to the CPU.
            keys: Names of the observation's entries.
            execute: Actions of a chunk before the next look; 0 means the policy's own `n_action_steps`.
            fingerprint: Of weights and configuration.

        Raises:
            UnfitFeaturesError: If the policy reads or answers something else.
            OptionError: If `execute` is out of range, or given to a policy that must see every step.
        """
        config = inner.config
        self._inner, self._before, self._after = inner, before, after
        self._keys = keys.read_by(config.input_features)
        self._sees_every_step = must_see_every_step(config)
        self._execute = self._steps(config, execute)
        self.action_spec = ActionSpec()
        size = tuple(config.output_features["action"].shape)
        if size != (self.action_spec.size,):
            raise UnfitFeaturesError(f"answers actions of shape {size}", f"{(self.action_spec.size,)}")
        self.cameras: tuple[str, ...] | None = tuple(camera for camera, _ in self._keys.images)
        self.name = f"lerobot-{config.type}"
        self.fingerprint = f"lerobot-{config.type}-{fingerprint}-{self._execute}"
        self._device = torch.device(config.device or "cpu")
        self._seed, self._n_queries = 0, 0

    def reset(self, task: Task, seed: int) -> None:
        """Empty the policy's queues; the noise that it draws comes from `seed` and the number of the query."""
        self._seed, self._n_queries = seed, 0
        self._inner.reset()

    @torch.inference_mode()
    def act(self, obs: Observation) -> ActionChunk:
        """Return the next actions, in the environment's units."""
        began = self._now_ms()
        batch = self._before(self._batch(obs))
        seen = self._now_ms()
        actions = self._asked(batch)
        answered = self._now_ms()
        rows = [self._after(action) for action in actions]
        spec = self.action_spec
        finished = torch.cat(rows).float().clamp(spec.low, spec.high).cpu().numpy()
        ended = self._now_ms()
        stages_ms = {"preprocess": seen - began, "model": answered - seen, "postprocess": ended - answered}
        return ActionChunk(finished, stages_ms=stages_ms)

    def synchronize(self) -> None:
        """Wait for the GPU, if there is one."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _asked(self, batch: Batch) -> list[Tensor]:
        """Return normalised actions (1, size); noise is drawn from this query's own seed, the global one is kept."""
        seed = int(np.random.SeedSequence([self._seed, self._n_queries]).generate_state(1)[0])
        self._n_queries += 1
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            if self._sees_every_step:
                return [self._inner.select_action(batch)]
            chunk = self._inner.predict_action_chunk(batch)
        return list(chunk[:, : self._execute].unbind(1))

    def _batch(self, obs: Observation) -> Batch:
        """Return what LeRobot's evaluation makes of an observation (`envs/utils.py`, `preprocess_observation`)."""
        batch: Batch = {
            key: torch.tensor(obs[camera]).permute(2, 0, 1)[None].contiguous().float() / 255.0
            for camera, key in self._keys.images
        }
        if self._keys.state:
            batch[self._keys.state] = torch.tensor(obs["proprio"], dtype=torch.float32)[None]
        return batch | {"task": [obs["instruction"]]}

    def _now_ms(self) -> float:
        self.synchronize()
        return time.perf_counter() * 1e3

    def _steps(self, config: Any, execute: int) -> int:
        if self._sees_every_step:
            if execute:
                raise OptionError("execute", execute, f"none: {config.type!r} must see every step")
            return 1
        longest = int(getattr(config, "chunk_size", config.n_action_steps))
        if not isinstance(execute, int) or not 0 <= execute <= longest:
            raise OptionError("execute", execute, f"an integer from 1 to {longest}, or 0 for the policy's own")
        return execute or int(config.n_action_steps)


def must_see_every_step(config: Any) -> bool:
    """Tell whether a policy's answer depends on more than the last observation.

    Sources, lerobot 0.4.4: `n_obs_steps` in `configs/policies.py` (diffusion and others stack what `select_action` has
    queued) and `temporal_ensemble_coeff` in `policies/act/modeling_act.py` (averages the chunks of all steps).
    """
    return getattr(config, "n_obs_steps", 1) > 1 or getattr(config, "temporal_ensemble_coeff", None) is not None
