"""Pictures in host memory to actions in host memory: a few programs one after the other, and at most one wait."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from time import perf_counter

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vla_bench_policies.static.answers import Answer
from vla_bench_policies.static.decoder import StaticDecoder, Watch
from vla_bench_policies.static.gates import Gate
from vla_bench_policies.static.programs import Recorder
from vla_bench_policies.static.rows import Buckets
from vla_bench_policies.static.vision import StaticSight


def unmarked(stage: str) -> None:
    """Take no note of a stage's end."""


@dataclass(frozen=True)
class Saving:
    """What a step leaves out."""

    buckets: tuple[int, ...] = ()
    """Rows that are computed; several where a gate chooses. Empty: all rows, as if there were no cache."""

    cut: int | None = None
    """The layer before which the others are deleted; None where they are reused."""


class StaticPolicy:
    """A step of a policy: copy the pictures, score the rows, see, think in the bucket, answer, copy the actions.

    `first` takes the place of `think` in the first step of an episode.
    """

    def __init__(
        self,
        sight: StaticSight,
        decoder: StaticDecoder,
        answer: Answer,
        recorder: Recorder,
        saving: Saving = Saving(),
        gate: Gate | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Record the programs.

        Args:
            sight: Has the buffer of the pictures.
            decoder: Holds the rows of the prompt; those that are not visual are there already.
            answer: Is asked for actions.
            recorder: Of the programs.
            saving: What is left out.
            gate: Scores the rows before the decoder runs. A deletion without one ranks rows by what `watch` has found.
            watch: Attention that the decoder looks at.
        """
        self._sight, self._decoder, self._answer, self._saving = sight, decoder, answer, saving
        device = decoder.rows.device
        self._buckets = Buckets(decoder.layout, decoder.n_given, device)
        self._gate, self._watch, self._on_cuda = gate, watch, device.type == "cuda"
        self._recorder = recorder
        self._scores = torch.zeros(decoder.layout.n_visual, device=device)
        self._actions = self._in_host(answer.actions)
        self._chosen = torch.zeros(1, dtype=torch.int64, pin_memory=self._on_cuda)
        self._known = torch.cuda.Event() if self._on_cuda else None
        self.waited_ms = 0.0
        """What the host waited for the bucket in the last step [ms]."""
        self.bucket = 0
        """Rows that the last step computed."""
        self.score = recorder.record(self._score) if gate is not None else None
        self.see = recorder.record(self._see)
        steps: Sequence[int] = saving.buckets or (decoder.n_given,)
        self.think = {bucket: recorder.record(partial(self._think, bucket)) for bucket in steps}
        self.more = recorder.record(answer.more) if answer.n_more else None

    @cached_property
    def first(self) -> Callable[[], None]:
        """Return the program of a first step's decoder: it computes every row and keeps what later steps reuse."""
        answer, decoder = self._answer, self._decoder
        return self._recorder.record(lambda: answer.begin(decoder.whole(answer.n_wanted, watch=self._watch)))

    def act(
        self, images: UInt8[Tensor, "views px px 3"], mark: Callable[[str], None] = unmarked
    ) -> Float[Tensor, "chunk size"]:
        """Return the actions' buffer in the host, which is filled once the device has finished.

        Args:
            images: In pinned memory of the host.
            mark: Is told when the work of a stage has been handed over.
        """
        self._sight.images.copy_(images, non_blocking=True)
        mark("preprocess")
        if self.score is not None:
            self.score()
            self._ask_bucket()
            mark("gate")
        self.see()
        mark("vision")
        self.bucket = self._told_bucket()
        self.think[self.bucket]()
        mark("prefill")
        if self.more is not None:
            for _ in range(self._answer.n_more):
                self.more()
            mark("decode")
        self._actions.copy_(self._answer.actions, non_blocking=True)
        mark("postprocess")
        return self._actions

    def _ask_bucket(self) -> None:
        """Send the chosen bucket to the host, behind the gate and before vision."""
        if len(self._saving.buckets) < 2:
            return
        assert self._gate is not None
        assert self._gate.bucket is not None
        self._chosen.copy_(self._gate.bucket, non_blocking=True)
        if self._known is not None:
            self._known.record()

    def _told_bucket(self) -> int:
        """Return the bucket, after waiting for it if it was chosen; vision is being computed meanwhile."""
        if len(self._saving.buckets) < 2:
            return next(iter(self.think))
        began = perf_counter()
        if self._known is not None:
            self._known.synchronize()
        self.waited_ms = (perf_counter() - began) * 1e3
        return self._buckets.sizes[int(self._chosen)]

    def _score(self) -> None:
        assert self._gate is not None
        self._scores.copy_(self._gate.scores(self._sight.images))

    def _see(self) -> None:
        self._decoder.rows[self._decoder.layout.visual].copy_(self._sight.rows())

    def _think(self, bucket: int) -> None:
        decoder, answer, saving = self._decoder, self._answer, self._saving
        if not saving.buckets:
            hidden = decoder.whole(answer.n_wanted, keep=answer.n_more > 0, watch=self._watch)
        elif saving.cut is not None:
            hidden = decoder.deleted(
                saving.cut, partial(self._left, bucket), answer.n_wanted, answer.n_more > 0, self._watch
            )
        else:
            rows = self._buckets.filled(self._scores, bucket)
            hidden = decoder.partial(rows, answer.n_wanted, self._watch)
        answer.begin(hidden)

    def _left(self, bucket: int) -> Tensor:
        looked = self._watch.into if self._gate is None and self._watch is not None else None
        return self._buckets.filled(self._scores if looked is None else looked, bucket)

    def _in_host(self, buffer: Tensor) -> Tensor:
        return torch.zeros(buffer.shape, dtype=buffer.dtype, pin_memory=self._on_cuda)
