"""The partial forward: a decoder over the rows that are to be computed, with remembered keys and values of the rest."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vla_bench_policies.token_cache.attention import additive
from vla_bench_policies.token_cache.buffer import KeyValueBuffer
from vla_bench_policies.token_cache.clock import StageClock
from vla_bench_policies.token_cache.decoder import DecoderStack
from vla_bench_policies.token_cache.lane import Lane, Seen
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.report import CacheReport
from vla_bench_policies.token_cache.rule import CacheRule
from vla_bench_policies.token_cache.stream import Present, RowAttention, Stream


class TokenCache:
    """Decoder states of a batch of environments, each with a rule of its own.

    What is remembered of an environment is forgotten at its `reset`, when its prompt or the layout changes, and when a
    step raises; the step after that is full.
    """

    def __init__(self, stack: DecoderStack, rules: Sequence[CacheRule]) -> None:
        """Remember nothing yet.

        Args:
            stack: The decoder.
            rules: One for each environment of a batch.
        """
        self._stack = stack
        self._lanes = [Lane(rule, stack.n_layers) for rule in rules]
        self._buffer: KeyValueBuffer | None = None
        self._decoding: list[Tensor] = []
        self.flops_extended = 0
        """Operations for each environment of the rows that came after the last step."""
        self.bytes_extended = 0
        """Bytes that they read."""

    @classmethod
    def joint(cls, caches: "Sequence[TokenCache]") -> "TokenCache":
        """Return a cache that steps all environments of some caches of one decoder together; they keep what it does."""
        together = cls(caches[0]._stack, [])
        together._lanes = [lane for cache in caches for lane in cache._lanes]
        return together

    @property
    def reports(self) -> list[CacheReport]:
        """Return what caching did in the last step, by environment."""
        return [lane.report for lane in self._lanes if lane.report is not None]

    @property
    def rules(self) -> list[CacheRule]:
        """Return the rules, by environment."""
        return [lane.rule for lane in self._lanes]

    def reset(self, index: int, seed: int) -> None:
        """Begin an episode of one environment."""
        self._lanes[index].begin(seed)

    @torch.inference_mode()
    def step(
        self,
        x: Float[Tensor, "b rows d"],
        layout: RowLayout,
        seen: Sequence[Seen],
        n_wanted: int | None = None,
        clock: StageClock | None = None,
    ) -> Float[Tensor, "b wanted d"]:
        """Return the hidden states of the last rows; the last layer computes no others, if the decoder can do that.

        Args:
            x: The embedded rows of the prompt, all of them; what is reused is not looked at.
            layout: Which rows are what. Rows of the layout behind those of `x` are places for `extend`.
            seen: What each environment shows.
            n_wanted: How many rows; None for all behind the visual ones, of which there must be as many.
            clock: Is told what the rules take: `gate`, attention that is read for them included, and their `flow`.

        Raises:
            PlanError: If a rule's plan cannot be followed.
        """
        try:
            n_tail = n_wanted or x.shape[1] - layout.visual.stop
            return self._step(x, layout, seen, n_tail, clock or StageClock(x.device))
        except BaseException:
            for lane in self._lanes:  # half of a step is written: nothing of it may be reused
                lane.forget()
            raise

    @torch.inference_mode()
    def extend(self, x: Float[Tensor, "b d"], row: int) -> Float[Tensor, "b d"]:
        """Return the hidden state of one more row, computed after `step` and seen by those that follow it."""
        assert self._buffer is not None
        rows = torch.tensor([[row]], device=x.device)
        hidden, rotation = x[:, None], self._stack.rotation(rows, x)
        before = torch.arange(self._buffer.n_rows, device=x.device) <= row
        self.flops_extended += self._stack.n_layers * self._stack.cost.layer(1, self._buffer.n_rows)
        self.bytes_extended += self._stack.n_layers * self._stack.cost.bytes_read(self._buffer.n_rows)
        for index in range(self._stack.n_layers):
            mask = additive(before & self._decoding[index], x.dtype)[:, None, None]
            attend = RowAttention(self._buffer, index, Present(rows, mask, causal=False))
            hidden = self._stack.layer(index, hidden, rotation, attend)
        return self._stack.norm(hidden)[:, 0]

    def _step(self, x: Tensor, layout: RowLayout, seen: Sequence[Seen], n_wanted: int, clock: StageClock) -> Tensor:
        self.flops_extended = self.bytes_extended = 0
        self._buffer = self._joined(x, layout)
        steps = [
            lane.look(one, layout, rows, self._stack, clock)
            for lane, one, rows in zip(self._lanes, seen, x, strict=True)
        ]
        with clock.stage("gate"):
            for lane, step in zip(self._lanes, steps, strict=True):
                lane.decide(step)
        stream = Stream(x, layout, self._buffer, self._lanes, self._stack, clock)
        last = self._stack.n_layers - 1
        for index in range(self._stack.n_layers):
            with clock.stage("gate"):
                merges = [
                    lane.narrow(step, index, stream.hidden(which)) if index in lane.narrows else None
                    for which, (lane, step) in enumerate(zip(self._lanes, steps, strict=True))
                ]
            stream.enter(index, merges)
            watched = [lane.watched.get(index) for lane in self._lanes]
            attention, n_after = stream.attention(index, watched, n_wanted if index == last else None)
            stream.x = self._stack.layer(index, stream.x, stream.rotation, attention, n_after)
            for lane, found in zip(self._lanes, attention.found, strict=True):
                if found is not None:
                    lane.attention[index] = found
        n_rest = x.shape[1] - layout.n_visual
        for lane, one, flops, n_bytes in zip(self._lanes, seen, stream.flops, stream.bytes_read, strict=True):
            lane.close(one, n_rest, flops, n_bytes)
        self._decoding = stream.shown_by_layer()
        return self._stack.norm(stream.x[:, -n_wanted:])

    def _joined(self, x: Tensor, layout: RowLayout) -> KeyValueBuffer:
        """Return one buffer for all lanes, of which each has its part from now on."""
        for lane in self._lanes:
            lane.enter(layout, self._stack, x)
        buffer = KeyValueBuffer.joined([lane.buffer for lane in self._lanes if lane.buffer is not None])
        for lane, part in zip(self._lanes, buffer.parts(), strict=True):
            lane.buffer = part
        return buffer
