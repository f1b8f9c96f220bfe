"""OpenVLA-OFT (Kim, Finn & Liang 2025) as the benchmark's policy: eight actions in one pass in which all rows see all.

    row      0    1 ... 512       513             then       last - 56 ...       last
    holds    BOS  visual, 2 views proprioception  sentence   56 rows of zeros    EOS

The answer is read one row early, at the sentence's last row and the first 55 rows of zeros, as it was trained. Source:
moojink/openvla-oft, `prismatic/extern/hf/modeling_prismatic.py`, `predict_action`.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vla_bench.errors import OptionError
from vla_bench_policies.learned.teacher import Teaching
from vla_bench_policies.openvla import cost
from vla_bench_policies.openvla.answers import for_libero
from vla_bench_policies.openvla.config import read_config
from vla_bench_policies.openvla.film import FilmTowers
from vla_bench_policies.openvla.heads import RESIDUAL_BLOCKS, ActionHead, ProprioProjector
from vla_bench_policies.openvla.model import load_trunk
from vla_bench_policies.openvla.pickles import component
from vla_bench_policies.openvla.pictures import libero_picture
from vla_bench_policies.openvla.placement import placed
from vla_bench_policies.openvla.policy import AGENT, WRIST, TrunkPolicy
from vla_bench_policies.openvla.prompt import EOS, Prompter
from vla_bench_policies.openvla.teaching import OftTeacher
from vla_bench_policies.openvla.tensors import Intake, Shards
from vla_bench_policies.token_cache.clock import StageClock
from vla_bench_policies.token_cache.layout import RowLayout

CHUNK, ACTION_SIZE, PROPRIO_SIZE = 8, 7, 8
"""Actions of an answer, entries of one, entries of the state: `LIBERO_CONSTANTS` of `prismatic/vla/constants.py`."""

WIDENED = 1e-8
"""Added to the range when answers become actions; OpenVLA itself does not."""


class OpenVlaOftPolicy(TrunkPolicy):
    """Two pictures, the robot's own state and an instruction; a chunk of actions, applied without looking again."""

    KIND, PROTOCOL = "openvla-oft", "openvla-oft"

    cameras: tuple[str, ...] | None = (AGENT, WRIST)

    def __init__(
        self,
        weights: str,
        stats: str = "",
        execute: int = CHUNK,
        film: bool = False,
        crop: bool = True,
        device: str = "cpu",
        dtype: str = "bfloat16",
        quantise: str = "",
        gpus: int = 1,
        packed: bool = True,
    ) -> None:
        """Load a checkpoint in the layout of `moojink/openvla-7b-oft-finetuned-libero-spatial`.

        Args:
            weights: Folder with the files of an OpenVLA checkpoint, `action_head--*_checkpoint.pt` and
                `proprio_projector--*_checkpoint.pt`.
            stats: Data set by whose statistics answers become actions; by default the suite's own.
            execute: Actions of a chunk that are applied before the next look; published: all.
            film: Whether the towers are told the words, by `vision_backbone--*_checkpoint.pt`; not in LIBERO.
            crop: Whether the middle of the pictures is cut out.
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
        where = placement.device
        if isinstance(execute, bool) or not isinstance(execute, int) or not 1 <= execute <= CHUNK:
            raise OptionError("execute", execute, f"an integer from 1 to {CHUNK}, what one query answers")
        folder = Path(weights)
        source, config = FilmTowers(folder) if film else Shards(folder), read_config(folder)
        prompter = Prompter(folder)
        self.execute, self._film, self._crop = execute, film, crop
        width = config.decoder.width
        with torch.device("meta"):
            self._head, self._projector = ActionHead(width, ACTION_SIZE), ProprioProjector(PROPRIO_SIZE, width)
        hashes = []
        for module, part in ((self._head, "action_head"), (self._projector, "proprio_projector")):
            intake = Intake(component(folder, part), placement.dtype, where)
            intake.fill(module, "")
            hashes.append(intake.sha256[:8])
        self._parts = "".join(hashes)
        trunk = load_trunk(source, config.decoder, placement, scored=False, film=film)
        self._closing = trunk.embed(torch.tensor([[EOS]], device=where))
        super().__init__(weights, trunk, config, prompter, stats)

    chunk = CHUNK
    """Actions of an answer."""

    def teaching(self, first_layer: int) -> Teaching:
        """Return what training of networks asks of the policy."""
        return OftTeacher(self, first_layer).teaching()

    @property
    def preparation(self) -> str:
        """Return a name for what `shown` does."""
        return super().preparation + ("" if self._crop else "-uncropped")

    def _options(self) -> tuple[str, ...]:
        options = {"film": self._film, "uncropped": not self._crop}
        return (self._parts, str(self.execute), *(name for name, given in options.items() if given))

    def shown(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "px px 3"]:
        """Return a picture as the towers see it, before normalisation."""
        return libero_picture(picture, self.config.image_px, self._crop)

    def told(self, tokens: Tensor) -> Tensor | None:
        """Return the mean of all words, BOS and EOS included: all rows that are neither picture nor action."""
        if not self._film:
            return None
        return torch.cat((self.trunk.embed(tokens), self._closing.expand(len(tokens), -1, -1)), dim=1).mean(dim=1)

    def rows(self, visual: Tensor, tokens: Tensor, proprio: np.ndarray) -> tuple[Tensor, RowLayout, int]:
        """Return the embedded rows, which of them are what, and how many of the last ones are wanted."""
        state = torch.from_numpy(self.quantiles("proprio").normalise(proprio.astype(np.float64))).to(visual)
        prompt = self.trunk.prompt(visual, tokens, self._projector(torch.atleast_2d(state))[:, None])
        n_answer, batch = CHUNK * ACTION_SIZE, len(prompt)
        closing = self._closing.expand(batch, -1, -1)
        x = torch.cat((prompt, prompt.new_zeros(batch, n_answer, prompt.shape[2]), closing), dim=1)
        layout = RowLayout(
            self._n_views,
            self.trunk.rows_per_view,
            tokens.shape[1] - 2,
            n_answer + 1,
            bidirectional=True,
            n_before_text=1,
        )
        return x, layout, n_answer + 2

    def regressed(self, tail: Float[Tensor, "b wanted d"]) -> Float[Tensor, "b chunk action"]:
        """Return the normalised actions that hidden states hold, from the prompt's last row on."""
        return self._head(tail[:, : CHUNK * ACTION_SIZE].reshape(len(tail), CHUNK, -1))

    def _answer(self, tail: Tensor, layout: RowLayout, clock: StageClock) -> tuple[np.ndarray, int]:
        with clock.stage("decode"):
            answer = self.regressed(tail)[0]
        with clock.stage("postprocess"):
            values = answer.float().cpu().numpy().astype(np.float64)
            actions = for_libero(self.quantiles("action").restore(values, WIDENED)[: self.execute])
        width = tail.shape[2]
        head = cost.linear(CHUNK, ACTION_SIZE * width, width) + cost.linear(CHUNK, width, ACTION_SIZE)
        head += RESIDUAL_BLOCKS * cost.linear(CHUNK, width, width)
        return actions, head + cost.linear(1, PROPRIO_SIZE, width) + cost.linear(1, width, width)
