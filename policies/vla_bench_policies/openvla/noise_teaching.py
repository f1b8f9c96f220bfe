"""CogACT as training of gates sees it: the answer is a condition, judged by the noise that it lets the model find."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from scipy.spatial.transform import Rotation
from torch import Tensor

from vla_bench.errors import OptionError
from vla_bench_policies.openvla.diffusion import TRAINED_STEPS, denoised, remaining_signal
from vla_bench_policies.openvla.teaching import TrunkTeacher

if TYPE_CHECKING:
    from vla_bench_policies.openvla.cogact import CogActPolicy

DRAWS = 8
"""Noisy versions of each chunk. Source: microsoft/CogACT, `scripts/train.py`, `repeated_diffusion_steps`."""


class CogActTeacher(TrunkTeacher["CogActPolicy"]):
    """CogACT: one hidden state guides a diffusion model, which is trained to find noise (mean squared error)."""

    picture_px = None  # the filter takes any

    def __init__(self, policy: "CogActPolicy", first_layer: int) -> None:
        """Take a policy.

        Raises:
            OptionError: If its gripper is told changes, which no single recorded action says.
        """
        super().__init__(policy, first_layer)
        if policy.setup.repeats:
            raise OptionError(
                "setup", "google-robot", "'widowx': of its gripper, recordings have commands, not openings"
            )
        self._network = policy.network
        self.chunk = policy.network.chunk

    def loss(
        self,
        answer: Float[Tensor, "b width"],
        demonstrated: Float[Tensor, "b chunk action"],
        within: Bool[Tensor, "b chunk"],
        full: Float[Tensor, "b width"] | None,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Return the squared error of the noise that is found in noisy demonstrations, at levels drawn evenly.

        With `full`, half of it is the squared distance to the noise that the full computation finds.
        """
        n, device = DRAWS * len(answer), answer.device
        noise = torch.randn(n, *demonstrated.shape[1:], generator=generator).to(device)
        level = torch.randint(TRAINED_STEPS, (n,), generator=generator)
        signal = torch.from_numpy(remaining_signal()).float()[level].to(device)[:, None, None]
        noisy = signal.sqrt() * demonstrated.repeat(DRAWS, 1, 1) + (1 - signal).sqrt() * noise
        at = level.to(device).float()
        found = self._network(noisy, at, answer.repeat(DRAWS, 1))
        error, counted = (found - noise).square().mean(dim=-1), within.repeat(DRAWS, 1)
        loss = (error * counted).sum() / counted.sum().clamp(min=1)
        if full is None:
            return loss
        return (loss + (found - self._network(noisy, at, full.repeat(DRAWS, 1))).square().mean()) / 2

    @torch.no_grad()
    def distance(self, answer: Tensor, full: Tensor) -> Float[Tensor, ""]:
        """Return the distance of the actions that are left of the same noise."""
        generator = torch.Generator().manual_seed(0)
        size = (len(answer), self._network.chunk, self._network.action_size)
        noise = torch.randn(size, generator=generator).to(answer.device)
        policy = self.policy
        one, other = (
            denoised(self._network, noise, given, policy.steps, policy.guidance).clamp(-1, 1)
            for given in (answer, full)
        )
        return (one - other).abs().mean()

    def _answered(self, tail: Tensor) -> Tensor:
        return tail[:, -1].float()

    def _unapplied(self, actions: Float64[np.ndarray, "*n action"]) -> Float64[np.ndarray, "*n action"]:
        """Return rotations as roll, pitch and yaw, and the gripper as an opening of 0 or 1."""
        flat = actions.reshape(-1, actions.shape[-1])
        angles = Rotation.from_rotvec(flat[:, 3:6]).as_euler("xyz")
        opening = (flat[:, 6:] > 0).astype(np.float64)
        return np.concatenate((flat[:, :3], angles, opening), axis=1).reshape(actions.shape)
