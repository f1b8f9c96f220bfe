"""A model that begins as a trained one: deeper, or for another robot.

A deeper one gets decoder layers that change nothing at first.

After every so many layers comes a copy of the last of them whose output projections are zero, so that it adds nothing
to the stream. The projections get gradients at once, the rest of the copy after them. Source: Wu et al. 2024, "LLaMA
Pro: Progressive LLaMA with Block Expansion", section 3.2.
"""

from dataclasses import asdict, replace

import torch
from torch import Tensor

from vla_bench.errors import VlaBenchError
from vla_bench_policies.reference.model import ModelConfig, ReferenceVLA

LAYERS = "decoder.layers."
CAMERA, PROPRIO = "vision.camera", "proprio."
SILENT = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
"""What a layer adds to the stream goes through these."""


class UngrowableError(VlaBenchError):
    """Refuse to begin with a model that differs in more than its depth."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(
            f"training cannot begin with these weights: {found}; expected {expected}: begin with another checkpoint, "
            f"or choose the preset of its shape"
        )


def grown(model: ReferenceVLA, config: ModelConfig) -> dict[str, Tensor]:
    """Return weights of `config` that compute what `model` computes.

    Args:
        model: Trained.
        config: Equal to the model's but for `layers`, which is a multiple of the model's.

    Raises:
        UngrowableError: Naming what differs.
    """
    given, wanted = asdict(replace(model.config, layers=config.layers)), asdict(config)
    differs = [name for name in wanted if given[name] != wanted[name]]
    if differs:
        found = ", ".join(f"{name} {given[name]}" for name in differs)
        raise UngrowableError(f"their model has {found}", ", ".join(f"{name} {wanted[name]}" for name in differs))
    times, rest = divmod(config.layers, model.config.layers)
    if rest:
        raise UngrowableError(f"their model has {model.config.layers} layers", f"a divisor of {config.layers}")
    weights: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        if not name.startswith(LAYERS):
            weights[name] = weight.clone()
            continue
        index, _, part = name.removeprefix(LAYERS).partition(".")
        for copy in range(times):
            silent = copy > 0 and part in SILENT
            weights[f"{LAYERS}{int(index) * times + copy}.{part}"] = (
                torch.zeros_like(weight) if silent else weight.clone()
            )
    return weights


def transferred(model: ReferenceVLA, config: ModelConfig) -> dict[str, Tensor]:
    """Return weights of `config` that know what `model` knows, but for the robot: its views and its proprioception.

    The first views are told apart as the model's were, further ones and the proprioception begin anew.

    Args:
        model: Trained on another robot.
        config: Equal to the model's but for what depends on the robot, and for `layers`, a multiple of the model's.

    Raises:
        UngrowableError: Naming what differs.
    """
    given = model.config
    weights = grown(
        model,
        replace(config, cameras=given.cameras, proprio_size=given.proprio_size, proprio_entries=given.proprio_entries),
    )
    fresh = ReferenceVLA(config).state_dict()
    n_known = min(len(config.cameras), len(given.cameras))
    views = torch.cat((weights[CAMERA][:n_known], fresh[CAMERA][n_known:]))
    return weights | {CAMERA: views} | {name: weight for name, weight in fresh.items() if name.startswith(PROPRIO)}
