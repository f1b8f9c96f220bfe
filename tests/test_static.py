"""The static decoder computes what the token cache computes, at any choice of rows; here eagerly, in float32."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from vla_bench_policies.lac.flow import difference
from vla_bench_policies.lac.gates import GateConfig, Gates, prepared
from vla_bench_policies.openvla.answers import of_tokens
from vla_bench_policies.openvla.config import MEANS_AND_DEVIATIONS, DecoderShape
from vla_bench_policies.openvla.heads import ActionHead
from vla_bench_policies.openvla.pictures import normalised
from vla_bench_policies.openvla.vision import TowerShape
from vla_bench_policies.reference.decoder import Decoder
from vla_bench_policies.static.answers import OnePass, Tokens
from vla_bench_policies.static.decoder import StaticDecoder, Watch
from vla_bench_policies.static.gates import LacGate, PixelGate, RandomGate, VlaCacheGate, patches
from vla_bench_policies.static.pointwise import narrowed
from vla_bench_policies.static.policy import Saving, StaticPolicy
from vla_bench_policies.static.programs import Recorder
from vla_bench_policies.static.rows import Buckets
from vla_bench_policies.static.vision import StaticSight, random_sight
from vla_bench_policies.static.weights import LlamaWeights, NarrowMatrix, WideMatrix
from vla_bench_policies.token_cache.cache import TokenCache
from vla_bench_policies.token_cache.decoder import PackedLlama
from vla_bench_policies.token_cache.lane import Seen
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.patches import chosen, cosine_similarity
from vla_bench_policies.token_cache.patches import difference as patch_difference
from vla_bench_policies.token_cache.patches import patches as patches_in_numpy
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Inside, Merge, Step

SHAPE = DecoderShape(width=32, hidden=48, layers=4, heads=4, kv_heads=4, vocabulary=320)
ONE_PASS = RowLayout(2, 64, 9, 15, bidirectional=True, n_before_text=1)
CAUSAL = RowLayout(1, 64, 9, 7)
CPU = torch.device("cpu")


@dataclass
class Told(CacheRule):
    """Follows what a test says."""

    reused: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    deleted: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    cut: int = 0

    def plan(self, step: Step) -> RowPlan:
        plan = step.full()
        if self.reused.any():
            plan = plan.reuse(self.reused)
        return plan.delete(self.deleted, self.cut) if self.deleted.any() else plan


@dataclass
class Looking(CacheRule):
    """Keeps the attention that it watches."""

    looked: Tensor = field(default_factory=lambda: torch.zeros(0))

    def watched(self, layout: RowLayout, n_layers: int) -> dict[int, np.ndarray]:
        return {1: np.arange(layout.text.start, layout.text.stop)}

    def narrows_at(self, n_layers: int) -> tuple[int, ...]:
        return (2,)

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        self.looked = inside.attention[1][:, step.layout.visual].mean(dim=0)
        return plan, None


class Pair:
    """The same weights in the token cache and in the static decoder."""

    def __init__(self, layout: RowLayout, rule: CacheRule | None = None) -> None:
        torch.manual_seed(0)
        module = Decoder(SHAPE.width, SHAPE.layers, SHAPE.heads, SHAPE.hidden).requires_grad_(False)
        for weight in module.parameters():
            weight.normal_(0, 0.3)
        self.layout, self.rule = layout, rule or Told(first_is_full=False)
        self.n_given = layout.n_rows if layout.bidirectional else layout.proprio + 1
        stack = PackedLlama(module, SHAPE.heads, SHAPE.kv_heads, SHAPE.rope_theta, SHAPE.eps)
        self.cache = TokenCache(stack, [self.rule])
        words = torch.randn(SHAPE.vocabulary, SHAPE.width)
        self.weights = LlamaWeights.of(module.state_dict(), SHAPE, words, torch.randn_like(words))
        self.decoder = StaticDecoder(self.weights, layout, self.n_given)
        self.buckets = Buckets(layout, self.n_given, CPU)

    def shown(self) -> Tensor:
        """Return new rows, given to both."""
        x = torch.randn(self.n_given, SHAPE.width)
        self.decoder.rows[: self.n_given] = x
        return x

    def reference(self, x: Tensor, n_wanted: int) -> Tensor:
        seen = [Seen(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(8), "")]
        return self.cache.step(x[None], self.layout, seen, n_wanted)[0]


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.fixture(autouse=True)
def _without_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("layout", [ONE_PASS, CAUSAL])
@pytest.mark.parametrize("keep", [True, False])
def test_all_rows_give_what_the_token_cache_gives(layout: RowLayout, keep: bool) -> None:
    pair = Pair(layout)
    for n_wanted in (1, 7):
        x = pair.shown()
        close(pair.decoder.whole(n_wanted, keep), pair.reference(x, n_wanted))


@pytest.mark.parametrize("layout", [ONE_PASS, CAUSAL])
def test_buckets_of_changing_rows_give_what_the_token_cache_gives(layout: RowLayout) -> None:
    pair = Pair(layout)
    assert isinstance(pair.rule, Told)
    x = pair.shown()
    close(pair.decoder.whole(7), pair.reference(x, 7))
    for bucket in (*pair.buckets.sizes, *reversed(pair.buckets.sizes)):
        scores = torch.rand(layout.n_visual)
        rows = pair.buckets.filled(scores, bucket)
        assert len(rows) == bucket
        x = pair.shown()
        pair.rule.reused = ~chosen(rows.numpy(), pair.n_given)[layout.visual]
        close(pair.decoder.partial(rows, 7), pair.reference(x, 7))


@pytest.mark.parametrize("layout", [ONE_PASS, CAUSAL])
def test_padding_of_a_bucket_changes_nothing(layout: RowLayout) -> None:
    pair = Pair(layout)
    assert isinstance(pair.rule, Told)
    x = pair.shown()
    pair.decoder.whole(7)
    pair.reference(x, 7)
    for n_visual in (0, 3, 11):
        scores = torch.rand(layout.n_visual)
        rows = pair.buckets.padded(scores, pair.buckets.sizes[0], torch.tensor(n_visual))
        assert int((rows == pair.buckets.spare).sum()) == pair.buckets.sizes[0] - pair.buckets.n_rest - n_visual
        x = pair.shown()
        highest = scores.argsort(stable=True)[layout.n_visual - n_visual :]
        pair.rule.reused = ~chosen(highest.numpy(), layout.n_visual)
        close(pair.decoder.partial(rows, 7), pair.reference(x, 7))


@pytest.mark.parametrize("layout", [ONE_PASS, CAUSAL])
@pytest.mark.parametrize("cut", [1, 3])
def test_deletion_gives_what_the_token_cache_gives(layout: RowLayout, cut: int) -> None:
    pair = Pair(layout)
    assert isinstance(pair.rule, Told)
    for bucket in pair.buckets.sizes[:-1]:
        rows = pair.buckets.filled(torch.rand(layout.n_visual), bucket)
        x = pair.shown()
        pair.rule.deleted, pair.rule.cut = ~chosen(rows.numpy(), pair.n_given)[layout.visual], cut
        for keep in (True, False):
            close(pair.decoder.deleted(cut, lambda rows=rows: rows, 7, keep), pair.reference(x, 7))


@pytest.mark.parametrize("layout", [ONE_PASS, CAUSAL])
@pytest.mark.parametrize("whole", [True, False])
def test_watched_attention_is_that_of_the_token_cache(layout: RowLayout, whole: bool) -> None:
    pair = Pair(layout, Looking(first_is_full=False))
    assert isinstance(pair.rule, Looking)
    watch = Watch(1, layout.text, torch.zeros(layout.n_visual))
    x = pair.shown()
    pair.reference(x, 7)
    rows = pair.buckets.filled(torch.rand(layout.n_visual), pair.buckets.sizes[-1])
    pair.decoder.whole(7, watch=watch) if whole else pair.decoder.partial(rows, 7, watch)
    close(watch.into, pair.rule.looked)


@pytest.mark.parametrize("cut", [0, 2])
def test_tokens_are_those_of_the_token_cache(cut: int) -> None:
    pair = Pair(CAUSAL)
    assert isinstance(pair.rule, Told)
    restored = (torch.full((7,), 0.5), torch.arange(7.0))
    answer = Tokens(pair.decoder, n_tokens=300, n_bins=256, restored=restored, cut=cut)
    rows = pair.buckets.filled(torch.rand(CAUSAL.n_visual), 64)
    for _ in range(2):
        x = pair.shown()
        if cut:
            pair.rule.deleted, pair.rule.cut = ~chosen(rows.numpy(), pair.n_given)[CAUSAL.visual], cut
            answer.begin(pair.decoder.deleted(cut, lambda: rows, 1))
        else:
            answer.begin(pair.decoder.whole(1))
        for _ in range(answer.n_more):
            answer.more()
        hidden, tokens = pair.reference(x, 1)[0], []
        for place in range(7):
            tokens.append(int((pair.weights.scorer @ hidden).argmax()))
            hidden = pair.cache.extend(pair.weights.words[tokens[-1]][None], pair.n_given + place)[0]
        assert answer.tokens.tolist() == tokens
        close(
            answer.actions[0], torch.from_numpy(of_tokens(np.array(tokens), 300, 256)).float() / 2 + torch.arange(7.0)
        )


def test_shared_heads_give_what_the_token_cache_gives() -> None:
    shape = DecoderShape(width=32, hidden=48, layers=2, heads=4, kv_heads=2, vocabulary=8)
    weights = LlamaWeights.random(shape, CPU, torch.float32, 0)
    head = shape.width // shape.heads
    state = {"norm.weight": weights.norm}
    for index, layer in enumerate(weights.layers):
        assert isinstance(layer.qkv, WideMatrix)
        assert isinstance(layer.gate_up, WideMatrix)
        parts = {
            f"self_attn.{name}_proj": part
            for name, part in zip("qkv", layer.qkv.weight.split([32, 2 * head, 2 * head]), strict=True)
        }
        parts |= {
            f"mlp.{name}_proj": part for name, part in zip(("gate", "up"), layer.gate_up.weight.chunk(2), strict=True)
        }
        assert isinstance(layer.out, WideMatrix)
        assert isinstance(layer.down, WideMatrix)
        parts |= {"self_attn.o_proj": layer.out.weight, "mlp.down_proj": layer.down.weight}
        parts |= {"input_layernorm": layer.norm_in, "post_attention_layernorm": layer.norm_out}
        state |= {f"layers.{index}.{name}.weight": weight for name, weight in parts.items()}
    cache = TokenCache(PackedLlama(dict(state), 4, 2, shape.rope_theta, shape.eps), [CacheRule()])
    decoder = StaticDecoder(weights, CAUSAL, CAUSAL.proprio + 1)
    x = torch.randn(decoder.n_given, 32)
    decoder.rows[: decoder.n_given] = x
    wanted = cache.step(x[None], CAUSAL, [Seen(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(8), "")], 3)[0]
    close(decoder.whole(3), wanted)
    close(decoder.partial(torch.arange(decoder.n_given), 3), wanted)


def test_a_bucket_holds_what_it_is_asked_for() -> None:
    buckets = Buckets(RowLayout(2, 256, 33, 57, bidirectional=True, n_before_text=1), 605, CPU)
    assert buckets.sizes == (128, 192, 256, 320, 384, 448, 512, 576, 605)
    assert [buckets.reusing(share) for share in (0.0, 0.2, 0.6, 0.9, 1.0)] == [605, 512, 320, 192, 128]
    counts = torch.arange(513)
    wanted = [buckets.sizes.index(buckets.holding(int(count))) for count in counts]
    assert buckets.bucket_of(counts).tolist() == wanted


def test_matrices_of_8_bits_are_near_the_wide_ones() -> None:
    torch.manual_seed(0)
    wide, x = WideMatrix(torch.randn(48, 64)), torch.randn(32, 64)
    narrow = NarrowMatrix.of(wide)
    assert narrow.n_bytes == wide.weight.numel()
    pair = Pair(CAUSAL)
    for rows in (x, x[:1]):
        found, wanted = narrow.times(rows, pair.decoder.kernels), wide.times(rows, pair.decoder.kernels)
        assert float((found - wanted).norm() / wanted.norm()) < 0.06
    rows, scale = narrowed(x)
    assert float((rows.float() * scale - x).norm() / x.norm()) < 0.03


@dataclass
class Scene:
    """A small policy with two views."""

    layout: RowLayout
    sight: StaticSight
    decoder: StaticDecoder
    buckets: Buckets

    @classmethod
    def small(cls, layout: RowLayout) -> "Scene":
        views = layout.n_views
        towers, projector = random_sight((_tower(2), _tower(0)), SHAPE.width, CPU, torch.float32, 0)
        weights = LlamaWeights.random(SHAPE, CPU, torch.float32, 1)
        n_given = layout.n_rows if layout.bidirectional else layout.proprio + 1
        decoder = StaticDecoder(weights, layout, n_given)
        decoder.rows[:n_given] = torch.randn(n_given, SHAPE.width)
        return cls(layout, StaticSight(towers, projector, views), decoder, Buckets(layout, n_given, CPU))

    def images(self) -> Tensor:
        return torch.randint(0, 256, self.sight.images.shape, dtype=torch.uint8)


def _tower(registers: int) -> TowerShape:
    return TowerShape(32, 48, 2, 2, 8, registers, registers > 0, registers > 0)


def test_pictures_are_normalised_as_in_the_published_preparation() -> None:
    scene = Scene.small(ONE_PASS)
    images = scene.images()
    scene.sight.images.copy_(images)
    towers, projector = scene.sight._towers, scene.sight._projector
    wanted = projector(towers(normalised(images.numpy(), MEANS_AND_DEVIATIONS)[None]))[0]
    close(scene.sight.rows(), wanted)


def test_gates_score_as_the_methods_do() -> None:
    scene = Scene.small(ONE_PASS)
    first, second = scene.images(), scene.images()
    frames = [images.numpy() for images in (first, second)]
    pixel = PixelGate(first, 8)
    pixel.scores(first)
    then, now = (patches_in_numpy(one, 8) for one in frames)
    close(pixel.scores(second), torch.from_numpy(patch_difference(now, then)))
    close(patches(first, 8), torch.from_numpy(then))
    cached = VlaCacheGate(first, 8, n_relevant=5)
    cached.scores(first)
    cached.looked.copy_(torch.rand(128))
    relevant = np.concatenate(
        [np.argsort(-view)[:5] + 64 * index for index, view in enumerate(cached.looked.view(2, 64).numpy())]
    )
    scores = 1 - cosine_similarity(frames[1], frames[0], 8) + 4.0 * chosen(relevant, 128)
    close(cached.scores(second), torch.from_numpy(scores.astype(np.float32)))
    assert len(set(RandomGate(128, CPU).scores(first).tolist())) > 100


def test_gates_of_lac_choose_what_the_rule_chooses() -> None:
    torch.manual_seed(0)
    scene = Scene.small(ONE_PASS)
    gates = Gates(GateConfig(flow="difference", px=8)).eval().requires_grad_(False)
    gate = LacGate(gates, scene.sight.images, scene.buckets)
    first, second = scene.images(), scene.images()
    gate.scores(first)
    moved = torch.from_numpy(difference(first.numpy(), second.numpy()))
    wanted, logits = gates(prepared(second.float(), moved, 8)[None])
    close(gate.seen(second), prepared(second.float(), moved, 8))
    close(gate.scores(second), wanted[0])
    assert gate.bucket is not None
    ratio = gates.config.ratios[int(logits[0].argmax())]
    assert scene.buckets.sizes[int(gate.bucket)] == scene.buckets.reusing(ratio)
    forced = LacGate(gates, scene.sight.images, scene.buckets, ratio=0.8)
    forced.scores(first)
    assert forced.bucket is not None
    assert scene.buckets.sizes[int(forced.bucket)] == scene.buckets.reusing(0.8)


@pytest.mark.parametrize("one_pass", [True, False])
def test_a_policy_that_reuses_nothing_answers_as_one_without_a_cache(one_pass: bool) -> None:
    torch.manual_seed(0)
    scene = Scene.small(ONE_PASS if one_pass else CAUSAL)
    restored = (torch.ones(7), torch.zeros(7))
    if one_pass:
        head = ActionHead(SHAPE.width, 7).requires_grad_(False)
        answer = OnePass(head, 2, 7, restored)
    else:
        answer = Tokens(scene.decoder, 300, 256, restored)
    recorder, stages = Recorder(CPU), []
    dense = StaticPolicy(scene.sight, scene.decoder, answer, recorder)
    gates = Gates(GateConfig(flow="difference", px=8)).eval().requires_grad_(False)
    looked = torch.zeros(scene.layout.n_visual)
    savings = {
        "nothing": (Saving((scene.decoder.n_given,)), RandomGate(scene.layout.n_visual, CPU), None),
        "chosen": (Saving(scene.buckets.sizes), LacGate(gates, scene.sight.images, scene.buckets, 0.0), None),
        "deleted": (Saving((scene.decoder.n_given,), cut=2), None, Watch(1, scene.layout.text, looked)),
    }
    images = scene.images()
    wanted = dense.act(images, stages.append).clone()
    assert stages[0] == "preprocess"
    assert stages[-1] == "postprocess"
    assert float(wanted.std()) > 0
    for name, (saving, gate, watch) in savings.items():
        policy = StaticPolicy(scene.sight, scene.decoder, answer, recorder, saving, gate, watch)
        close(policy.act(images), wanted)
        assert policy.bucket == scene.decoder.n_given, name
