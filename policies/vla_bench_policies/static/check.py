"""Whether what a device computes is right, at a small size: recorded and compiled steps against the token cache."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vla_bench_policies.static.answers import Tokens
from vla_bench_policies.static.decoder import StaticDecoder
from vla_bench_policies.static.models import PromptShape, Sizes, openvla, openvla_oft
from vla_bench_policies.static.pointwise import PLAIN, Kernels
from vla_bench_policies.static.programs import Recorder
from vla_bench_policies.static.rows import Buckets
from vla_bench_policies.static.stock import named
from vla_bench_policies.static.weights import LlamaWeights, WideMatrix
from vla_bench_policies.token_cache.cache import TokenCache
from vla_bench_policies.token_cache.decoder import PackedLlama
from vla_bench_policies.token_cache.lane import Seen
from vla_bench_policies.token_cache.patches import chosen
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step

LIMITS = {torch.float32: 1e-3, torch.bfloat16: 2e-2}
"""Greatest norm of the error over the norm of the result, by type of the weights."""

NARROW_LIMIT = 0.12
"""The same for weights and rows in 8 bits."""

N_WANTED = 9
"""Rows that are compared."""

LOUD = 4.0
"""Weights are that much larger than drawn, so that layers matter beside what passes by them."""


@dataclass(frozen=True)
class Check:
    """One comparison."""

    name: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """Return whether it is small enough; a number that is none is not."""
        return self.error <= self.limit


@dataclass
class _Told(CacheRule):
    """Reuses or deletes what it is told."""

    out: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    cut: int | None = None

    def plan(self, step: Step) -> RowPlan:
        """Return the plan."""
        full = step.full()
        if not self.out.any():
            return full
        return full.reuse(self.out) if self.cut is None else full.delete(self.out, self.cut)


def checks(device: torch.device, variants: dict[str, tuple[Kernels, bool, bool]]) -> Iterator[Check]:
    """Return comparisons of a few steps of each variant with the token cache in single precision.

    Args:
        device: Where to compute.
        variants: Kernels, whether steps are recorded, and whether weights have 8 bits, by name.
    """
    sizes = Sizes.small()
    for prompt in (openvla_oft(2, 64), openvla(64)):
        for dtype, limit in LIMITS.items():
            weights = LlamaWeights.random(sizes.decoder, device, dtype, seed=1)
            for layer in weights.layers:
                for matrix in layer.matrices:
                    assert isinstance(matrix, WideMatrix)
                    matrix.weight.mul_(LOUD)
            for name, (kernels, graphs, narrow) in variants.items():
                if (narrow or kernels is not PLAIN) and dtype != torch.bfloat16:
                    continue  # compiling twice as much would take longer than the measurements of a shape
                decoder = StaticDecoder(weights.narrow() if narrow else weights, prompt.layout, prompt.n_given, kernels)
                title = f"{prompt.name} {str(dtype).removeprefix('torch.')} {name}"
                most = NARROW_LIMIT if narrow else limit
                for part, error in _errors(prompt, weights, decoder, Recorder(device, graphs)):
                    yield Check(f"{title}: {part}", error, most)


def _errors(
    prompt: PromptShape, weights: LlamaWeights, decoder: StaticDecoder, recorder: Recorder
) -> Iterator[tuple[str, float]]:
    """Return the error of a full step, of buckets that change, of a deletion and, where there are some, of tokens."""
    device, layout = recorder.device, prompt.layout
    generator = torch.Generator().manual_seed(2)
    rule = _Told(first_is_full=False)
    reference = _Reference(prompt, weights, rule)
    buckets = Buckets(layout, prompt.n_given, device)
    scores = torch.zeros(layout.n_visual, device=device)

    def shown() -> Tensor:
        x = torch.randn(prompt.n_given, weights.shape.width, generator=generator)
        decoder.rows[: prompt.n_given].copy_(x)
        scores.copy_(torch.rand(layout.n_visual, generator=generator))
        return decoder.rows[: prompt.n_given].clone()

    def out(bucket: int) -> np.ndarray:
        return ~chosen(buckets.filled(scores, bucket).cpu().numpy(), prompt.n_given)[layout.visual]

    def bucket_step(bucket: int) -> Callable[[], Tensor]:
        return recorder.record(lambda: decoder.partial(buckets.filled(scores, bucket), N_WANTED))

    full = recorder.record(lambda: decoder.whole(N_WANTED))
    partial = {bucket: bucket_step(bucket) for bucket in buckets.sizes}
    x = shown()
    yield "all rows", _apart(full(), reference(x))
    for bucket in (*buckets.sizes, *reversed(buckets.sizes)):
        x = shown()
        rule.out = out(bucket)
        yield f"{bucket} rows", _apart(partial[bucket](), reference(x))
    smallest = buckets.sizes[0]
    for cut in (0, 2):
        less = recorder.record(lambda cut=cut: decoder.deleted(cut, lambda: buckets.filled(scores, smallest), N_WANTED))
        x = shown()
        rule.out, rule.cut = out(smallest), cut
        yield f"{smallest} rows from layer {cut}", _apart(less(), reference(x))
    if not prompt.one_pass:
        rule.out = np.zeros(0, dtype=bool)
        yield "rows behind the prompt", _rows_behind(decoder, recorder, weights, reference, shown())
        if weights.norm.dtype == torch.float32:  # rounding changes which token is the likeliest
            yield "share of other tokens", _other_tokens(decoder, recorder, weights, reference, shown())


class _Reference:
    """The token cache in single precision, with the same weights."""

    def __init__(self, prompt: PromptShape, weights: LlamaWeights, rule: CacheRule) -> None:
        shape = weights.shape
        state = {name: part.float() for name, part in named(weights).items() if not name.startswith("embed")}
        stack = PackedLlama(state, shape.heads, shape.kv_heads, shape.rope_theta, shape.eps, packed=False)
        self.cache, self.prompt = TokenCache(stack, [rule]), prompt

    def __call__(self, x: Tensor) -> Tensor:
        seen = [Seen(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(8), "")]
        return self.cache.step(x.float()[None], self.prompt.layout, seen, N_WANTED)[0]


def _rows_behind(
    decoder: StaticDecoder, recorder: Recorder, weights: LlamaWeights, reference: _Reference, x: Tensor
) -> float:
    """Return the error of a few rows behind the prompt, whatever they stand for."""
    word = torch.zeros_like(weights.words[:1])
    generator = torch.Generator().manual_seed(3)
    place = torch.full((1,), decoder.n_given, device=recorder.device)
    program = recorder.record(lambda: decoder.one_more(word, place))
    decoder.whole(1)
    reference(x)
    worst = 0.0
    for token in range(3):
        word.copy_(torch.randn(word.shape, generator=generator))
        place.fill_(decoder.n_given + token)
        worst = max(worst, _apart(program()[0], reference.cache.extend(word.float(), decoder.n_given + token)[0]))
    return worst


def _other_tokens(
    decoder: StaticDecoder, recorder: Recorder, weights: LlamaWeights, reference: _Reference, x: Tensor
) -> float:
    """Return the share of tokens that are not the reference's for the tokens before it."""
    restored = (torch.ones(7, device=recorder.device), torch.zeros(7, device=recorder.device))
    answer = Tokens(decoder, weights.shape.vocabulary - 64, 256, restored)
    begin, more = recorder.record(lambda: answer.begin(decoder.whole(1))), recorder.record(answer.more)
    begin()
    for _ in range(answer.n_more):
        more()
    hidden, wrong = reference(x)[-1], 0
    for place, token in enumerate(answer.tokens.tolist()):
        wrong += token != int((weights.scorer.float() @ hidden).argmax())
        hidden = reference.cache.extend(weights.words[token].float()[None], decoder.n_given + place)[0]
    return wrong / len(answer.tokens)


def _apart(found: Tensor, wanted: Tensor) -> float:
    """Return the norm of the difference over the norm."""
    return float((found.float() - wanted).norm() / wanted.norm())
