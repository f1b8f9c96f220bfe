"""What OpenVLA-OFT adds to the trunk: proprioception in, a chunk of actions out.

Source: moojink/openvla-oft, `prismatic/models/projectors.py` and `prismatic/models/action_heads.py`.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

RESIDUAL_BLOCKS = 2
"""Of the action head."""


class ProprioProjector(nn.Module):
    """Two layers from the robot's own state to a row of the decoder."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(size, width), nn.Linear(width, width)

    def forward(self, state: Float[Tensor, "*n size"]) -> Float[Tensor, "*n width"]:
        """Return decoder rows."""
        return self.fc2(F.gelu(self.fc1(state)))


class ActionHead(nn.Module):
    """Hidden states of one action's rows, side by side, to that action; trained by L1."""

    def __init__(self, width: int, action_size: int) -> None:
        super().__init__()
        self.model = _ResidualNetwork(action_size * width, width, action_size)

    def forward(self, hidden: Float[Tensor, "b chunk rows_by_width"]) -> Float[Tensor, "b chunk action"]:
        """Return normalised actions."""
        return self.model(hidden)


class _ResidualNetwork(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(inputs), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.mlp_resnet_blocks = nn.ModuleList(_ResidualBlock(width) for _ in range(RESIDUAL_BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(self.layer_norm1(x)))
        for block in self.mlp_resnet_blocks:
            x = x + block(x)
        return self.fc2(self.layer_norm2(x))


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn(x)
