"""From the last states of a prompt to actions: in one pass with a head, or token by token."""

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla_bench_policies.static.decoder import StaticDecoder


class Answer(Protocol):
    """What a decoder's states become; `actions` is a buffer that never moves."""

    n_wanted: int
    """Last rows of the prompt whose states are asked for."""
    n_more: int
    """Times that `more` is to be run after `begin`."""
    actions: Float[Tensor, "chunk size"]

    def begin(self, hidden: Float[Tensor, "wanted d"]) -> None:
        """Take the states of the prompt's last rows."""
        ...

    def more(self) -> None:
        """Compute one more row."""
        ...


class OnePass:
    """A chunk of actions by regression: OpenVLA-OFT, whose answer is read one row early."""

    n_more = 0

    def __init__(self, head: nn.Module, chunk: int, action_size: int, restored: tuple[Tensor, Tensor]) -> None:
        """Keep the head.

        Args:
            head: `openvla.heads.ActionHead`.
            chunk: Actions of an answer.
            action_size: Entries of one; each has a row.
            restored: Half of the range of each entry and the middle of it, for numbers in [-1, 1].
        """
        self._head, self._scale, self._middle = head, *restored
        self._size = (chunk, action_size)
        self.n_wanted = chunk * action_size + 2
        self.actions = torch.zeros(self._size, device=restored[0].device)

    def begin(self, hidden: Float[Tensor, "wanted d"]) -> None:
        """Make actions of states."""
        chunk, size = self._size
        values = self._head(hidden[: chunk * size].reshape(1, chunk, -1))[0]
        self.actions.copy_(values.float() * self._scale + self._middle)

    def more(self) -> None:
        """Do nothing: all is said in one pass."""


class Tokens:
    """One action, a token for each of its entries, the likeliest one every time: OpenVLA."""

    n_wanted = 1

    def __init__(
        self,
        decoder: StaticDecoder,
        n_tokens: int,
        n_bins: int,
        restored: tuple[Tensor, Tensor],
        cut: int | None = None,
    ) -> None:
        """Reserve the buffers.

        Args:
            decoder: Has places behind its prompt.
            n_tokens: Of the tokenizer, the last of which is the lowest bin; the embedding may be filled up by more.
            n_bins: Edges of the bins that tokens stand for.
            restored: Half of the range of each entry and the middle of it, for numbers in [-1, 1].
            cut: The layer from which rows are deleted; None if none are.
        """
        device = decoder.rows.device
        self._decoder, self._scale, self._middle, self._cut = decoder, *restored, cut
        action_size = len(restored[0])
        self.n_more, self._n_tokens = action_size - 1, n_tokens
        edges = torch.linspace(-1, 1, n_bins, dtype=torch.float64)
        self._centres = ((edges[:-1] + edges[1:]) / 2).float().to(device)
        self.tokens = torch.zeros(action_size, dtype=torch.int64, device=device)
        self.actions = torch.zeros(1, action_size, device=device)
        self._token = torch.zeros(1, dtype=torch.int64, device=device)
        self._index = torch.zeros(1, dtype=torch.int64, device=device)
        self._position = torch.full((1,), decoder.n_given, dtype=torch.int64, device=device)

    def begin(self, hidden: Float[Tensor, "1 d"]) -> None:
        """Say the first token."""
        self._index.zero_()
        self._position.fill_(self._decoder.n_given)
        self._say(hidden)

    def more(self) -> None:
        """Say one more token; beyond the last one, say the last one again."""
        x = self._decoder.weights.words.index_select(0, self._token)
        hidden = self._decoder.one_more(x, self._position, self._cut)
        self._index.add_(1).clamp_(max=self.n_more)
        self._position.add_(1).clamp_(max=self._decoder.layout.n_rows - 1)
        self._say(hidden)

    def _say(self, hidden: Tensor) -> None:
        scores = self._decoder.kernels.of_one_row(hidden, self._decoder.weights.scorer)
        self._token.copy_(scores.argmax(dim=-1))
        self.tokens.index_copy_(0, self._index, self._token)
        bins = (self._n_tokens - self._token - 1).clamp(0, len(self._centres) - 1)
        value = self._centres[bins] * self._scale[self._index] + self._middle[self._index]
        self.actions[0].index_copy_(0, self._index, value)
