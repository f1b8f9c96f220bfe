"""OpenVLA (Kim et al. 2024) as the benchmark's policy, and what its relatives share with it."""

import copy
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vla_bench.policy import ActionChunk
from vla_bench.types import ActionSpec, Observation, Task
from vla_bench_policies.learned.teacher import Teaching
from vla_bench_policies.openvla import cost
from vla_bench_policies.openvla.answers import Quantiles, for_libero, of_tokens, read_statistics, statistics_key
from vla_bench_policies.openvla.config import PublishedConfig, read_config
from vla_bench_policies.openvla.errors import StatisticsKeyError, UnfitPictureError
from vla_bench_policies.openvla.model import Trunk, load_trunk
from vla_bench_policies.openvla.pictures import Colours, libero_picture, normalised
from vla_bench_policies.openvla.placement import placed
from vla_bench_policies.openvla.prompt import Prompter
from vla_bench_policies.openvla.teaching import OpenVlaTeacher
from vla_bench_policies.openvla.tensors import Shards
from vla_bench_policies.token_cache.cache import TokenCache
from vla_bench_policies.token_cache.clock import StageClock
from vla_bench_policies.token_cache.lane import Seen
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.rule import CacheRule

AGENT, WRIST = "agentview", "robot0_eye_in_hand"


class TrunkPolicy:
    """What the policies on one trunk have in common; each says its rows and how it answers."""

    KIND = ""
    """First word of the policy's name."""
    PROTOCOL = ""
    """Under which published results were made."""

    cameras: tuple[str, ...] | None = (AGENT,)

    def __init__(self, weights: str, trunk: Trunk, config: PublishedConfig, prompter: Prompter, stats: str) -> None:
        """Remember nothing yet."""
        self._folder, self.trunk, self.config, self.prompter = Path(weights), trunk, config, prompter
        self._wanted = stats
        self._statistics = read_statistics(self._folder)
        self._key = ""
        self._tokens: dict[str, Tensor] = {}
        self._seeing_flops = cost.of_seeing(trunk, self._n_views)
        self._cache = TokenCache(trunk.stack, [CacheRule()])
        self.name = f"{self.KIND}:{self._folder.name}"
        self.action_spec = ActionSpec()

    @property
    def fingerprint(self) -> str:
        """Return a hash of the weights, with all options that decide an answer."""
        placement = self.trunk.placement
        form = (str(placement.dtype).removeprefix("torch."), placement.quantise)
        parts = (self.KIND, self._wanted, *self._options(), *form)
        return "-".join((self.trunk.sha256[:16], *filter(None, parts), self.trunk.device.type))

    @property
    def rule(self) -> CacheRule:
        """Return the rule that decides which rows are computed."""
        return self._cache.rules[0]

    def with_rule(self, rule: CacheRule) -> "TrunkPolicy":
        """Return a policy with the same weights that follows another rule and remembers nothing yet."""
        other = copy.copy(self)
        other._cache = TokenCache(self.trunk.stack, [rule])
        return other

    def reset(self, task: Task, seed: int) -> None:
        """Forget the last episode, and look up the statistics of the task's suite.

        Raises:
            StatisticsKeyError: If the checkpoint has none.
        """
        self._cache.reset(0, seed)
        self.look_up_statistics(task.dataset)

    def look_up_statistics(self, dataset: str) -> None:
        """Turn answers into actions by a data set's statistics from now on; with no name, by the only ones.

        Raises:
            StatisticsKeyError: If the checkpoint has none.
        """
        self._key = statistics_key(self._statistics, self._wanted, dataset, self._folder)

    def teaching(self, first_layer: int) -> Teaching:
        """Return what training of networks asks of the policy.

        Raises:
            OptionError: If no gradient goes through its weights.
            StatisticsKeyError: If it has several statistics and says none.
        """
        raise NotImplementedError

    @property
    def image_px(self) -> int:
        """Return the side of what the towers see [px]."""
        return self.config.image_px

    @property
    def colours(self) -> Colours:
        """Return mean and deviation of the colours, by tower."""
        return self.config.normalisation

    @property
    def preparation(self) -> str:
        """Return a name for what `shown` does."""
        return f"{self.PROTOCOL}-{self.image_px}"

    @torch.inference_mode()
    def act(self, obs: Observation) -> ActionChunk:
        """Return the next actions.

        Raises:
            UnfitPictureError: If the observation lacks a camera, or has no picture there.
        """
        clock = StageClock(self.trunk.device)
        with clock.stage("preprocess"):
            frames = np.stack([self.shown(picture) for picture in self._pictures(obs)])
            images = normalised(frames, self.config.normalisation)[None].to(self.trunk.words)
            tokens, proprio = self._encoded(obs["instruction"]), np.array(obs["proprio"], dtype=np.float32)
        with clock.stage("vision"):
            visual = self.trunk.see(images, self.told(tokens))
        with clock.stage("prefill"):
            x, layout, n_wanted = self.rows(visual, tokens, proprio)
            tail = self._cache.step(x, layout, [Seen(frames, proprio, obs["instruction"])], n_wanted, clock)
        actions, flops = self._answer(tail, layout, clock)
        (done,) = self._cache.reports
        return ActionChunk(
            actions,
            rows_computed=done.rows_per_layer[0] + layout.n_rows - x.shape[1],  # and those decoded one by one
            rows_reused=done.rows_reused,
            flops=self._seeing_flops + done.flops + self._cache.flops_extended + flops,
            stages_ms=clock.laps_ms(),
            cache=done.to_dict(self._cache.bytes_extended),
            fates=dict(zip(self.cameras or (), layout.by_view(done.fates), strict=True)),
        )

    def synchronize(self) -> None:
        """Wait for the GPUs, if there are any."""
        self.trunk.placement.synchronize()

    @property
    def _n_views(self) -> int:
        return len(self.cameras or ())

    def _options(self) -> tuple[str, ...]:
        """Return what else decides an answer, for the fingerprint."""
        return ()

    def shown(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "px px 3"]:
        """Return a picture as the towers see it, before normalisation."""
        raise NotImplementedError

    def told(self, tokens: Tensor) -> Tensor | None:
        """Return what towers with FiLM are told."""
        return None

    def rows(self, visual: Tensor, tokens: Tensor, proprio: np.ndarray) -> tuple[Tensor, RowLayout, int]:
        """Return the embedded rows, which of them are what, and how many of the last ones are wanted."""
        raise NotImplementedError

    def _answer(self, tail: Tensor, layout: RowLayout, clock: StageClock) -> tuple[np.ndarray, int]:
        """Return actions (n, action), and the operations that this took outside of the decoder."""
        raise NotImplementedError

    def quantiles(self, part: str) -> Quantiles:
        """Return what the training data's -1 and 1 are, of `action` or `proprio`."""
        if part not in self._statistics[self._key]:
            raise StatisticsKeyError(f"{self._key}/{part}", self._statistics, self._folder)
        return Quantiles.of(self._statistics[self._key][part])

    def _pictures(self, obs: Observation) -> list[UInt8[np.ndarray, "h w 3"]]:
        for camera in self.cameras or ():
            found = np.asarray(obs[camera]) if camera in obs else None
            if found is None or found.dtype != np.uint8 or found.shape[2:] != (3,):
                what = "no camera" if found is None else f"{found.dtype} images {found.shape} of"
                expected = f"pictures (height, width, 3) of {' and '.join(self.cameras or ())} in 8 bits"
                raise UnfitPictureError(self.name, f"{what} {camera!r}", expected, self.PROTOCOL)
        return [np.asarray(obs[camera]) for camera in self.cameras or ()]

    def _encoded(self, instruction: str) -> Tensor:
        if instruction not in self._tokens:
            self._tokens[instruction] = torch.tensor([self.prompter.tokens(instruction)], device=self.trunk.device)
        return self._tokens[instruction]


class OpenVlaPolicy(TrunkPolicy):
    """One picture and an instruction; seven tokens, one after the other, are the seven entries of one action."""

    KIND, PROTOCOL = "openvla", "openvla"

    def __init__(
        self,
        weights: str,
        stats: str = "",
        crop: bool = True,
        device: str = "cpu",
        dtype: str = "bfloat16",
        quantise: str = "",
        gpus: int = 1,
        packed: bool = True,
    ) -> None:
        """Load a checkpoint in the layout of `openvla/openvla-7b`.

        Args:
            weights: Folder with `config.json`, `preprocessor_config.json`, `tokenizer.json` and the shards.
            stats: Data set by whose statistics answers become actions; by default the suite's own.
            crop: Whether the middle of the picture is cut out, as for all checkpoints that were trained with image
                augmentation; the four LIBERO ones were.
            device: `cpu` or `cuda`.
            dtype: `bfloat16` as published, or `float32`.
            quantise: `int8` or `int4` for the decoder's matrices.
            gpus: Among which the decoder's layers are divided, in order.
            packed: Whether a CPU gets weights in the layout of its kernels, through which no gradient goes.

        Raises:
            PublishedCheckpointError: If a file is missing, broken or something else.
            OptionError: If an option is out of range.
            MissingPackageError: If an option needs a package that is not installed.
        """
        placement = placed(device, dtype, packed, quantise, gpus)
        folder = Path(weights)
        source, config, prompter = Shards(folder), read_config(folder), Prompter(folder)
        self._crop = crop
        trunk = load_trunk(source, config.decoder, placement)
        super().__init__(weights, trunk, config, prompter, stats)

    def teaching(self, first_layer: int) -> Teaching:
        """Return what training of networks asks of the policy."""
        return OpenVlaTeacher(self, first_layer).teaching()

    @property
    def preparation(self) -> str:
        """Return a name for what `shown` does."""
        return super().preparation + ("" if self._crop else "-uncropped")

    def _options(self) -> tuple[str, ...]:
        return () if self._crop else ("uncropped",)

    def shown(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "px px 3"]:
        """Return a picture as the towers see it, before normalisation."""
        return libero_picture(picture, self.config.image_px, self._crop)

    def rows(self, visual: Tensor, tokens: Tensor, proprio: np.ndarray) -> tuple[Tensor, RowLayout, int]:
        """Return the embedded rows, which of them are what, and how many of the last ones are wanted."""
        size = len(self.quantiles("action").low)
        layout = RowLayout(1, self.trunk.rows_per_view, tokens.shape[1] - 2, n_action=size - 1)
        return self.trunk.prompt(visual, tokens), layout, 1

    def _answer(self, tail: Tensor, layout: RowLayout, clock: StageClock) -> tuple[np.ndarray, int]:
        with clock.stage("decode"):
            tokens = self._decoded(tail[:, -1], layout)
        with clock.stage("postprocess"):
            values = of_tokens(tokens.cpu().numpy(), self.config.n_tokens, self.config.n_bins)
            actions = for_libero(self.quantiles("action").restore(values)[None])
        vocabulary, width = self.trunk.words.shape
        return actions, len(values) * cost.linear(1, width, vocabulary)

    def _decoded(self, hidden: Float[Tensor, "1 d"], layout: RowLayout) -> Tensor:
        """Return the likeliest tokens (action,), each given those before it."""
        tokens = [self.trunk.scores(hidden).argmax(dim=-1)]
        for row in range(layout.action.start, layout.action.stop):
            hidden = self._cache.extend(self.trunk.embed(tokens[-1]), row)
            tokens.append(self.trunk.scores(hidden).argmax(dim=-1))
        return torch.cat(tokens)
