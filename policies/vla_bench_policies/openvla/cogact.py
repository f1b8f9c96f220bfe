"""CogACT (Li et al. 2024) as the benchmark's policy: one hidden state guides a diffusion model of sixteen actions.

    row      0    1 ... 256   then
    holds    BOS  visual      sentence, empty word, EOS: the last hidden state is the condition

Source: microsoft/CogACT, `vla/cogactvla.py`, `predict_action`, and `sim_cogact/cogact_policy.py`. Published numbers are
of SIMPLER; there, actions are metres and radians of the robot's base, and each setup has its own gripper.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from scipy.spatial.transform import Rotation
from torch import Tensor

from vla_bench.errors import OptionError, UnknownNameError
from vla_bench.types import ActionSpec, Task
from vla_bench_policies.learned.teacher import Teaching
from vla_bench_policies.openvla.config import MEANS_AND_DEVIATIONS, PublishedConfig
from vla_bench_policies.openvla.diffusion import TRAINED_STEPS, ActionTransformer, denoised
from vla_bench_policies.openvla.ensemble import AdaptiveEnsemble, StickyGripper
from vla_bench_policies.openvla.model import load_trunk
from vla_bench_policies.openvla.noise_teaching import CogActTeacher
from vla_bench_policies.openvla.pictures import fitted
from vla_bench_policies.openvla.placement import placed
from vla_bench_policies.openvla.policy import TrunkPolicy
from vla_bench_policies.openvla.prismatic import decoder_shape, read_checkpoint
from vla_bench_policies.openvla.prompt import EOS, Prompter
from vla_bench_policies.openvla.tensors import Intake
from vla_bench_policies.token_cache.clock import StageClock
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.rule import CacheRule

GRIPPER = 6


@dataclass(frozen=True)
class Setup:
    """What differs between the robots that CogACT was evaluated on."""

    stats: str
    """Data set by whose statistics answers become actions."""
    horizon: int
    """Answers that are mixed: about as many as the robot's motion between two pictures allows."""
    camera: str
    repeats: int
    """Steps for which a change of the gripper is repeated; 0 where it is told its opening instead."""

    @property
    def action_spec(self) -> ActionSpec:
        """Return what the actions mean."""
        side = "close_is_positive" if self.repeats else "open_is_positive"
        return ActionSpec(translation_m=1.0, rotation_rad=1.0, gripper=side)


SETUPS = {
    "widowx": Setup("bridge_orig", horizon=7, camera="3rd_view_camera", repeats=0),
    "google-robot": Setup("fractal20220817_data", horizon=2, camera="overhead_camera", repeats=10),
}


class CogActPolicy(TrunkPolicy):
    """One picture and an instruction; of every answer one action is applied, mixed with what earlier ones said."""

    KIND, PROTOCOL = "cogact", "simpler"

    def __init__(
        self,
        weights: str,
        tokenizer: str = "",
        setup: str = "widowx",
        stats: str = "",
        camera: str = "",
        steps: int = 10,
        guidance: float = 1.5,
        ensemble: bool = True,
        device: str = "cpu",
        dtype: str = "bfloat16",
        quantise: str = "",
        gpus: int = 1,
        packed: bool = True,
    ) -> None:
        """Load a checkpoint in the layout of `CogACT/CogACT-Base`.

        Args:
            weights: Folder with `config.json`, `dataset_statistics.json` and `checkpoints/*.pt`.
            tokenizer: Folder with Llama-2's `tokenizer.json`, which CogACT is published without; any OpenVLA
                checkpoint has it. By default the folder of the weights.
            setup: `widowx` or `google-robot`: statistics, camera, answers that are mixed, gripper.
            stats: Data set by whose statistics answers become actions, instead of the setup's.
            camera: That is looked through, instead of the setup's.
            steps: In which noise is taken away; a divisor of 100.
            guidance: How much the condition is exaggerated; 1 asks the action model once instead of twice.
            ensemble: Whether answers are mixed.
            device: `cpu` or `cuda`.
            dtype: Of the trunk, `bfloat16` or `float32`; the action model is always in float32, as published.
            quantise: `int8` or `int4` for the decoder's matrices.
            gpus: Among which the decoder's layers are divided, in order.
            packed: Whether a CPU gets weights in the layout of its kernels, through which no gradient goes.

        Raises:
            PublishedCheckpointError: If a file is missing, broken or something else.
            OptionError: If an option is out of range.
            MissingPackageError: If an option needs a package that is not installed.
        """
        placement = placed(device, dtype, packed, quantise, gpus)
        if setup not in SETUPS:
            raise UnknownNameError("setup of CogACT", setup, SETUPS)
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= TRAINED_STEPS:
            raise OptionError("steps", steps, f"an integer from 1 to {TRAINED_STEPS}")
        if TRAINED_STEPS % steps:
            raise OptionError(
                "steps", steps, f"a divisor of {TRAINED_STEPS}, so that noise levels are equally far apart"
            )
        if isinstance(guidance, bool) or not isinstance(guidance, int | float) or guidance < 1:
            raise OptionError("guidance", guidance, "a number of at least 1")
        self.setup, self.steps, self.guidance, self._ensembled = SETUPS[setup], steps, float(guidance), ensemble
        folder = Path(weights)
        source, own = read_checkpoint(folder)
        prompter = Prompter(Path(tokenizer) if tokenizer else folder, behind=(EOS,))
        shape = decoder_shape(source)
        trunk = load_trunk(source, shape, placement, scored=False)
        self.network = ActionTransformer.of(own)
        intake = Intake(own, torch.float32, placement.device)
        intake.fill(self.network, "net.")
        self._part = intake.sha256[:8]
        self.cameras = (camera or self.setup.camera,)
        px = trunk.towers.featurizer.shape.grid * trunk.towers.featurizer.shape.patch_px
        config = PublishedConfig(shape, image_px=px, normalisation=MEANS_AND_DEVIATIONS)
        super().__init__(weights, trunk, config, prompter, stats or self.setup.stats)
        self.action_spec = self.setup.action_spec
        self._begin(0)

    def teaching(self, first_layer: int) -> Teaching:
        """Return what training of networks asks of the policy."""
        return CogActTeacher(self, first_layer).teaching()

    def with_rule(self, rule: CacheRule) -> "CogActPolicy":
        """Return a policy with the same weights that follows another rule and remembers nothing yet."""
        other = super().with_rule(rule)
        assert isinstance(other, CogActPolicy)
        other._begin(0)
        return other

    def reset(self, task: Task, seed: int) -> None:
        """Forget the last episode; the noise that answers begin with is drawn from the seed."""
        super().reset(task, seed)
        self._begin(seed)

    def _begin(self, seed: int) -> None:
        self._noise = torch.Generator().manual_seed(seed)
        self._ensemble = AdaptiveEnsemble(self.setup.horizon if self._ensembled else 1)
        self._gripper = StickyGripper(self.setup.repeats)

    def _options(self) -> tuple[str, ...]:
        given = (self._part, f"{self.steps}", f"{self.guidance:g}", f"{self.setup.horizon}", *(self.cameras or ()))
        return given if self._ensembled else (*given, "alone")

    def shown(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "px px 3"]:
        """Return a picture as the towers see it, before normalisation."""
        return fitted(picture, self.config.image_px)

    def rows(self, visual: Tensor, tokens: Tensor, proprio: np.ndarray) -> tuple[Tensor, RowLayout, int]:
        """Return the embedded rows, which of them are what, and how many of the last ones are wanted."""
        layout = RowLayout(1, self.trunk.rows_per_view, tokens.shape[1] - 2, n_action=0)
        n_wanted = tokens.shape[1] - 1  # one would do, but is rounded otherwise than several, which some methods need
        return self.trunk.prompt(visual, tokens), layout, n_wanted

    def _answer(self, tail: Tensor, layout: RowLayout, clock: StageClock) -> tuple[np.ndarray, int]:
        network = self.network
        with clock.stage("decode"):
            noise = torch.randn(1, network.chunk, network.action_size, generator=self._noise).to(tail.device)
            chunk = denoised(network, noise, tail[:, -1].float(), self.steps, self.guidance)
        with clock.stage("postprocess"):
            values = np.clip(chunk[0].cpu().numpy().astype(np.float64), -1, 1)
            values[:, GRIPPER] = values[:, GRIPPER] >= 0.5
            action = self._ensemble.mixed(self.quantiles("action").restore(values))
        return self._applied(action)[None], self.steps * network.flops(self.guidance)

    def _applied(self, action: np.ndarray) -> np.ndarray:
        """Return an action as SIMPLER takes it: the rotation as a vector, not as roll, pitch and yaw."""
        spec = self.action_spec
        rotation = Rotation.from_euler("xyz", action[3:6]).as_rotvec()
        opening = float(action[GRIPPER])
        command = self._gripper.told(opening) if self.setup.repeats else 2.0 * (opening > 0.5) - 1.0
        return np.clip(np.concatenate((action[:3], rotation, [command])), spec.low, spec.high)
