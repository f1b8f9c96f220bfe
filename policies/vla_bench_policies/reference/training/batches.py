"""Which frames a step sees, and how they are altered: a function of seed and step, so that resuming is exact."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, UInt8
from torch import Tensor

from vla_bench.errors import OptionError
from vla_bench_policies.reference.actions import Range, to_bins
from vla_bench_policies.reference.tokenizer import PAD, tokenizer
from vla_bench_policies.reference.training.frames import Demonstrations
from vla_bench_policies.reference.training.recipe import Recipe
from vla_bench_policies.reference.training.team import Team

FRAMES_SHARE = 0.6
"""Of a device's free memory, what frames may take: the rest is for weights and activations."""

FRAMES_A_COPY = 4096

POSITION = slice(0, 3)
"""Entries of the proprioception that are the hand's position [m]."""

N_SIGHTS = 9
"""Numbers that vision alone is asked for: the hand's position now, at its next grasp or release, and at the next."""


@dataclass(frozen=True)
class Batch:
    """What the model is given, and what it should answer; numbers are normalised."""

    images: Float[Tensor, "b cameras 3 px px"]
    """Grey levels from 0 to 255."""
    tokens: Int[Tensor, "b text"]
    proprio: Float[Tensor, "b p"]
    chunk: Float[Tensor, "b chunk action"]
    within: Bool[Tensor, "b chunk"]
    """Whether the episode has that action still."""
    places: Float[Tensor, "b places"]
    """The hand's position now, and at its next grasp or release."""

    @property
    def bins(self) -> Int[Tensor, "b action"]:
        """Return the action tokens of the next action."""
        return to_bins(self.chunk[:, 0])


class Batches:
    """Batches of demonstrations on a device."""

    def __init__(
        self, data: Demonstrations, recipe: Recipe, actions: Range, states: Range, device: torch.device,
        team: Team = Team(),  # noqa: B008 - it is frozen
    ) -> None:  # fmt: skip
        """Take ranges of the training episodes; on an accelerator all frames are kept in its memory."""
        self._data, self._recipe, self._device = data, recipe, device
        self._own = team.share(recipe.batch)
        self._actions, self._states = actions, states
        words = [tokenizer().encode(sentence) for sentence in data.sentences]
        self.n_tokens = np.array([len(tokens) for tokens in words])
        longest = self.n_tokens.max()
        self._tokens = torch.tensor([[*tokens, *[PAD] * (longest - len(tokens))] for tokens in words], device=device)
        self._training, self._frames = data.training, None
        self._shares = _shares(data, recipe.far)
        if device.type != "cpu":
            self._frames = _on_device(data.images, device)

    def training(self, step: int) -> Batch:
        """Return the batch of a step, or this process's share of it: what is drawn is drawn for all of them."""
        rng = np.random.default_rng([self._recipe.seed, step])
        n = self._recipe.batch
        batch = self.at(rng.choice(self._training, n, p=self._shares)[self._own])
        shape = (n, *batch.proprio.shape[1:])
        noise = rng.normal(0.0, self._recipe.proprio_noise, shape).astype(np.float32)[self._own]
        return Batch(
            images=altered(batch.images, self._recipe.shift_px, self._recipe.colour, rng, n, self._own),
            tokens=batch.tokens,
            proprio=batch.proprio + torch.from_numpy(noise).to(self._device),
            chunk=batch.chunk,
            within=batch.within,
            places=batch.places,
        )

    def sights(self, step: int, n_frames: int) -> tuple[Float[Tensor, "b cameras 3 px px"], Float[Tensor, "b sights"]]:
        """Return altered pictures of a step, and what they should tell of the hand's ways, normalised."""
        rng = np.random.default_rng([self._recipe.seed, step, N_SIGHTS])
        index, data = rng.choice(self._training, n_frames, p=self._shares), self._data
        images = torch.from_numpy(data.pictures(index)).to(self._device).permute(0, 1, 4, 2, 3).float()
        then = data.grasp[index]
        after = data.grasp[np.minimum(then + 1, data.end[index] - 1)]
        places = [self._normalised(data.states[at])[:, POSITION] for at in (index, then, after)]
        return altered(images, self._recipe.shift_px, self._recipe.colour, rng), torch.cat(places, dim=1)

    def validation(self, n_frames: int) -> list[Batch]:
        """Return about `n_frames` held-out frames, evenly spread and unaltered, neighbours in a batch unrelated."""
        index = self._data.validation
        chosen = np.random.default_rng(0).permutation(index[:: max(1, len(index) // n_frames)])
        parts = np.array_split(chosen, max(1, len(chosen) // self._recipe.batch))
        return [self.at(part) for part in parts if len(part)]

    def at(self, index: np.ndarray) -> Batch:
        """Return the frames of these indices, unaltered."""
        if self._frames is None:
            images = torch.from_numpy(self._data.pictures(index))
        else:
            images = self._frames[torch.from_numpy(index).to(self._device)]
        actions, within = self._data.chunks(index, self._recipe.model.chunk)
        now, then = (self._normalised(self._data.states[at]) for at in (index, self._data.grasp[index]))
        return Batch(
            images=images.permute(0, 1, 4, 2, 3).float(),
            tokens=self._tokens[torch.from_numpy(self._data.sentence[index]).to(self._device)],
            proprio=now,
            chunk=self._actions.normalise(torch.from_numpy(actions).to(self._device)),
            within=torch.from_numpy(within).to(self._device),
            places=torch.cat((now[:, POSITION], then[:, POSITION]), dim=1),
        )

    def _normalised(self, states: np.ndarray) -> Tensor:
        return self._states.normalise(torch.from_numpy(states).to(self._device))


def _shares(data: Demonstrations, far: float) -> Float64[np.ndarray, " n"] | None:
    """Return how often each frame that is trained on is drawn; None means evenly."""
    if not far:
        return None
    index = data.training
    ways = data.states[data.grasp[index], POSITION] - data.states[index, POSITION]
    left = np.linalg.norm(ways, axis=1).astype(np.float64)
    return (1 - far) / len(index) + far * left / left.sum()


def _on_device(images: tuple[np.ndarray, ...], device: torch.device) -> UInt8[Tensor, "n cameras px px 3"]:
    """Return all frames in the memory of a device, copied in parts so that they are never there twice."""
    n_bytes = sum(part.nbytes for part in images)
    free, _ = torch.cuda.mem_get_info(device)
    if n_bytes > FRAMES_SHARE * free:
        found = f"{n_bytes / 1e9:.0f} GB of frames, {free / 1e9:.0f} GB free on {torch.cuda.get_device_name(device)}"
        raise OptionError("--data", found, f"frames that take at most {FRAMES_SHARE:.0%} of the device's memory")
    whole = torch.empty((sum(map(len, images)), *images[0].shape[1:]), dtype=torch.uint8, device=device)
    at = 0
    for part in images:
        for start in range(0, len(part), FRAMES_A_COPY):
            some = torch.from_numpy(np.array(part[start : start + FRAMES_A_COPY]))
            whole[at : at + len(some)].copy_(some)
            at += len(some)
    return whole


def altered(
    images: Float[Tensor, "b cameras 3 px px"], shift_px: int, colour: float, rng: np.random.Generator,
    n_drawn: int = 0, own: slice = slice(None),
) -> Float[Tensor, "b cameras 3 px px"]:  # fmt: skip
    """Return the images shifted, each by its own whole pixels, and in another light.

    Nothing is mirrored, turned or scaled: that would need other actions. After a shift all things in an image are
    where they were relative to each other, the gripper included (random crops: Mandlekar et al. 2021, robomimic).

    Args:
        images: Grey levels from 0 to 255.
        shift_px: Largest shift.
        colour: Largest relative change of brightness, contrast and each channel.
        rng: Draws for each image.
        n_drawn: Images of the whole batch, of which these are a part; 0 means that they are all.
        own: Which of them these are.
    """
    batch, cameras, _, _, px = images.shape
    n, device = n_drawn or batch, images.device

    def draw(low: float, high: float, *shape: int) -> Tensor:
        drawn = rng.uniform(low, high, (n, cameras, *shape))[own]
        return torch.from_numpy(drawn.astype(np.float32)).to(device)

    offset = torch.from_numpy(rng.integers(-shift_px, shift_px + 1, (2, n, cameras, 1))[:, own]).to(device)
    rows, columns = (offset + torch.arange(px, device=device)).clamp(0, px - 1)
    shifted = images.take_along_dim(rows[:, :, None, :, None], dim=3)
    shifted = shifted.take_along_dim(columns[:, :, None, None, :], dim=4)
    contrast, brightness = draw(1 - colour, 1 + colour, 1, 1, 1), draw(1 - colour, 1 + colour, 1, 1, 1)
    gain = brightness * draw(1 - colour / 2, 1 + colour / 2, 3, 1, 1)
    mean = shifted.mean(dim=(2, 3, 4), keepdim=True)
    return torch.addcmul(mean * (1 - contrast) * gain, shifted, contrast * gain).clamp_(0, 255)
