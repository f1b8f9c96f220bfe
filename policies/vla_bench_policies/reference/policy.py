"""The reference VLA as the benchmark's policy."""

import copy
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from vla_bench.errors import OptionError, UnknownNameError, VlaBenchError
from vla_bench.policy import ActionChunk
from vla_bench.types import Observation, Task
from vla_bench_policies.reference import checkpoint as checkpoints
from vla_bench_policies.reference import flops
from vla_bench_policies.reference.actions import from_bins
from vla_bench_policies.reference.commanded import CommandedPose
from vla_bench_policies.reference.decoder import NORM_EPS, ROPE_THETA
from vla_bench_policies.reference.ensemble import TemporalEnsemble
from vla_bench_policies.reference.model import Head
from vla_bench_policies.reference.tokenizer import tokenizer
from vla_bench_policies.token_cache.cache import TokenCache
from vla_bench_policies.token_cache.clock import StageClock
from vla_bench_policies.token_cache.decoder import PackedLlama
from vla_bench_policies.token_cache.lane import Seen
from vla_bench_policies.token_cache.rule import CacheRule

WEIGHTS = "weights"
"""Folder of the package that holds the checkpoints that ship."""

GRIPPER = 6


class UnfitObservationError(VlaBenchError):
    """Refuse an observation that the model was not made for."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(
            f"the observation has {found}; the reference VLA was trained on {expected}: run it with "
            f"--protocol reference or --protocol reference-fast, or choose weights that were trained on this robot"
        )


class ReferencePolicy:
    """Looks through all cameras of its checkpoint and answers with a chunk of actions, in one pass."""

    head: Head = "oft"

    def __init__(
        self, weights: str = "cpu-deep", execute: int = 8, ensemble: bool = False, device: str = "cpu"
    ) -> None:
        """Load a checkpoint.

        Args:
            weights: Name of a checkpoint that ships with the package, or the path of a safetensors file.
            execute: Actions of a chunk that are applied before the next look.
            ensemble: Whether actions are averaged with what earlier answers said about the same moment.
            device: `cpu` or `cuda`.

        Raises:
            UnknownNameError: If no checkpoint of that name ships.
            CheckpointError: If the file is broken or something else.
            OptionError: If an option is out of range.
        """
        self._checkpoint = checkpoints.load(find(weights))
        self._model = self._checkpoint.model
        longest = self._model.config.chunk if self.head == "oft" else 1
        if not isinstance(execute, int) or not 1 <= execute <= longest:
            raise OptionError("execute", execute, f"an integer from 1 to {longest}, what one query answers")
        if device == "cuda" and not torch.cuda.is_available():
            raise OptionError("device", device, "'cpu': torch finds no GPU")
        if device not in ("cpu", "cuda"):
            raise OptionError("device", device, "'cpu' or 'cuda'")
        if not isinstance(ensemble, bool) or (ensemble and execute == longest):
            raise OptionError("ensemble", ensemble, f"True or False, and True only with execute below {longest}")
        self._execute = execute
        self._ensemble = self._new_ensemble(ensemble)
        self._sent = self._new_sum()
        self._device = torch.device(device)
        self._model.to(self._device)
        heads = self._model.config.heads
        self._stack = PackedLlama(self._model.decoder, heads, heads, ROPE_THETA, NORM_EPS)
        self._cache = TokenCache(self._stack, [CacheRule()])
        self._tokens: dict[str, Tensor] = {}
        self._flops: dict[int, int] = {}
        unusual = {
            Path(weights).stem: weights != "cpu-deep",
            f"execute={execute}": execute != longest,
            "ensemble": ensemble,
        }
        shown = ",".join(option for option, is_shown in unusual.items() if is_shown)
        self.name = f"reference-{self.head}{':' if shown else ''}{shown}"
        self.action_spec = self._checkpoint.action_spec
        self.cameras: tuple[str, ...] | None = self._model.config.cameras

    @property
    def fingerprint(self) -> str:
        """Return a hash of weights, shape and vocabulary, with head, actions applied of a chunk, and device."""
        where = "" if self._device.type == "cpu" else f"-{self._device.type}"
        mixed = "" if self._ensemble is None else "-ensemble"
        return f"{self._checkpoint.sha256[:16]}-{self.head}-{self._execute}{mixed}{where}"

    @property
    def rule(self) -> CacheRule:
        """Return the rule that decides which rows are computed."""
        return self._cache.rules[0]

    def with_rule(self, rule: CacheRule) -> "ReferencePolicy":
        """Return a policy with the same weights that follows another rule and remembers nothing yet."""
        other = copy.copy(self)
        other._cache = TokenCache(self._stack, [rule])
        other._ensemble, other._sent = self._new_ensemble(self._ensemble is not None), self._new_sum()
        return other

    def reset(self, task: Task, seed: int) -> None:
        """Forget the last episode; the model's own answers are not random, a rule may be."""
        self._cache.reset(0, seed)
        self._ensemble, self._sent = self._new_ensemble(self._ensemble is not None), self._new_sum()

    def act(self, obs: Observation) -> ActionChunk:
        """Return the next `execute` actions.

        Raises:
            UnfitObservationError: If the observation lacks a camera, or has images or a proprioception of another size.
        """
        return self.act_together([self], [obs])[0]

    def seat(self) -> "ReferencePolicy":
        """Return a policy with the same weights that remembers nothing yet, and remembers for itself."""
        return self.with_rule(CacheRule())

    def act_together(
        self, seats: Sequence["ReferencePolicy"], observations: Sequence[Observation]
    ) -> list[ActionChunk]:
        """Return the answers of several policies of these weights, each to its own observation; times are of all.

        Prompts of equal length are computed as one batch, in which rounding differs from one by one.

        Raises:
            UnfitObservationError: If an observation lacks a camera, or has images or a proprioception of another size.
        """
        lengths = [len(self._encoded(obs["instruction"])[0]) for obs in observations]
        answers: dict[int, ActionChunk] = {}
        for length in dict.fromkeys(lengths):
            alike = [index for index, found in enumerate(lengths) if found == length]
            batch = self._batch([seats[index] for index in alike], [observations[index] for index in alike])
            answers |= dict(zip(alike, batch, strict=True))
        return [answers[index] for index in range(len(seats))]

    @torch.inference_mode()
    def _batch(self, seats: Sequence["ReferencePolicy"], observations: Sequence[Observation]) -> list[ActionChunk]:
        """Return the answers to prompts of equal length."""
        cache = seats[0]._cache if len(seats) == 1 else TokenCache.joint([seat._cache for seat in seats])
        clock = StageClock(self._device)
        with clock.stage("preprocess"):
            frames = np.stack([self._frames(obs) for obs in observations])
            images = torch.from_numpy(frames).to(self._device).permute(0, 1, 4, 2, 3).float()
            tokens = torch.cat([self._encoded(obs["instruction"]) for obs in observations])
            proprio = np.stack([self._proprio(obs) for obs in observations])
            given = np.stack([seat._given(one) for seat, one in zip(seats, proprio, strict=True)])
            state = self._checkpoint.states.normalise(torch.from_numpy(given).to(self._device))
        with clock.stage("vision"):
            visual = self._model.see(images)
        with clock.stage("prefill"):
            x = self._model.rows(self._model.prompt(visual, tokens, state), self.head)
            layout = self._model.layout(tokens.shape[1], self.head)
            n_wanted = self._model.config.chunk if self.head == "oft" else 1
            prompts = [obs["instruction"] for obs in observations]
            seen = [Seen(*one) for one in zip(frames, proprio, prompts, strict=True)]
            tail = cache.step(x, layout, seen, n_wanted, clock)
        answered = self._answer(cache, tail, layout.proprio, clock)
        with clock.stage("postprocess"):
            chosen = torch.stack([seat._chosen(answer) for seat, answer in zip(seats, answered, strict=True)])
            actions = self._finished(chosen)
            for seat, one in zip(seats, actions, strict=True):
                if seat._sent is not None:
                    seat._sent.send(one)
        laps_ms = clock.laps_ms()
        return [
            ActionChunk(
                one,
                rows_computed=done.rows_per_layer[0] + layout.n_rows - x.shape[1],  # and those decoded one by one
                rows_reused=done.rows_reused,
                flops=self._outside_flops(tokens.shape[1]) + done.flops + cache.flops_extended,
                stages_ms=laps_ms,
                cache=done.to_dict(cache.bytes_extended),
                fates=dict(zip(self._model.config.cameras, layout.by_view(done.fates), strict=True)),
            )
            for one, done in zip(actions, cache.reports, strict=True)
        ]

    def synchronize(self) -> None:
        """Wait for the GPU, if there is one."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _answer(self, cache: TokenCache, tail: Tensor, last_row: int, clock: StageClock) -> Tensor:
        """Return normalised actions (b, n, action) from the hidden states behind the visual rows."""
        with clock.stage("postprocess"):
            return self._model.chunk_head(tail)

    def _chosen(self, answer: Float[Tensor, "chunk action"]) -> Float[Tensor, "execute action"]:
        """Return what is applied of an answer."""
        return answer[: self._execute] if self._ensemble is None else self._ensemble.mixed(answer)

    def _new_ensemble(self, wanted: bool) -> TemporalEnsemble | None:
        return TemporalEnsemble(self._model.config.chunk, self._execute) if wanted else None

    def _new_sum(self) -> CommandedPose | None:
        return CommandedPose(self._checkpoint.action_spec) if self._checkpoint.commanded else None

    def _given(self, proprio: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, " p"]:
        """Return what the model is given of what was measured."""
        return proprio if self._sent is None else self._sent.given(proprio)

    def _outside_flops(self, n_text: int) -> int:
        """Return the operations of a query outside of the decoder."""
        if n_text not in self._flops:
            whole = flops.of_query(self._model.config, n_text, self.head)
            self._flops[n_text] = whole.vision + whole.heads
        return self._flops[n_text]

    def _frames(self, obs: Observation) -> np.ndarray:
        """Return the pictures of all views, as an array of their own."""
        config = self._model.config
        size = (config.image_px, config.image_px, 3)
        for camera in config.cameras:
            found = np.shape(obs[camera]) if camera in obs else None
            if found != size:
                raise UnfitObservationError(
                    f"no camera {camera!r}" if found is None else f"images {found} of {camera!r}",
                    f"{size} of {' and '.join(config.cameras)}",
                )
        return np.stack([obs[camera] for camera in config.cameras])

    def _proprio(self, obs: Observation) -> np.ndarray:
        """Return the proprioception."""
        found, expected = np.shape(obs["proprio"]), (self._model.config.proprio_size,)
        if found != expected:
            raise UnfitObservationError(f"a proprioception {found}", f"{expected}")
        return np.asarray(obs["proprio"], dtype=np.float32)

    def _encoded(self, sentence: str) -> Tensor:
        if sentence not in self._tokens:
            self._tokens[sentence] = torch.tensor([tokenizer().encode(sentence)], device=self._device)
        return self._tokens[sentence]

    def _finished(self, actions: Tensor) -> np.ndarray:
        """Return actions in the environment's units, the gripper's command as a decision."""
        spec = self.action_spec
        restored = self._checkpoint.actions.restore(actions).clamp(spec.low, spec.high).cpu().numpy()
        restored[..., GRIPPER] = np.where(restored[..., GRIPPER] > 0, spec.high, spec.low)
        return restored


class AutoregressivePolicy(ReferencePolicy):
    """The same model, answering one action as seven tokens, one after the other."""

    head: Head = "ar"

    def __init__(self, weights: str = "cpu-deep", device: str = "cpu") -> None:
        """Load a checkpoint; see `ReferencePolicy`."""
        super().__init__(weights, execute=1, device=device)

    def _answer(self, cache: TokenCache, tail: Tensor, last_row: int, clock: StageClock) -> Tensor:
        size, hidden = self._model.config.action_size, tail[:, -1]
        with clock.stage("decode"):
            bins = [self._model.bin_of(0, hidden)]
            for entry in range(size - 1):
                hidden = cache.extend(self._model.token(entry, bins[-1]), last_row + 1 + entry)
                bins.append(self._model.bin_of(entry + 1, hidden))
        return from_bins(torch.stack(bins, dim=1))[:, None]


def find(weights: str) -> Path:
    """Return the file of a checkpoint that ships, or the path itself.

    Raises:
        UnknownNameError: If it is neither.
    """
    if weights.endswith(".safetensors") or "/" in weights:
        return Path(weights)
    folder = Path(str(files("vla_bench_policies.reference").joinpath(WEIGHTS)))
    known = {path.stem: path for path in folder.glob("*.safetensors")}
    if weights not in known:
        raise UnknownNameError("checkpoint of the reference VLA", weights, known)
    return known[weights]
