"""The laws of the token cache: what holds for every rule, decoder and batch."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vla_bench_policies.reference.decoder import NORM_EPS, ROPE_THETA, Decoder
from vla_bench_policies.token_cache import stream
from vla_bench_policies.token_cache.attention import additive, visible_keys
from vla_bench_policies.token_cache.buffer import NEVER, Ledger
from vla_bench_policies.token_cache.cache import TokenCache
from vla_bench_policies.token_cache.decoder import ROWS_ATTENTION, ModuleStack, PackedLlama, UnfitDecoderError
from vla_bench_policies.token_cache.lane import Seen, SelfComparisonWarning
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.plan import PlanError, RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Merge, Step, at_depth

LAYERS, HEADS, WIDTH = 3, 4, 32
LAYOUT = RowLayout(n_views=2, rows_per_view=4, n_text=3, n_action=2)
N = LAYOUT.n_visual
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def decoder(seed: int = 0) -> Decoder:
    torch.manual_seed(seed)
    made = Decoder(WIDTH, LAYERS, HEADS, 48).eval()
    for norm in (made.norm, *(layer.input_layernorm for layer in made.layers)):
        torch.nn.init.normal_(norm.weight, 1.0, 0.2)
    for weight in made.parameters():
        weight.data *= 1.5  # so that attention is far from even
    return made


def of_transformers(name: str) -> torch.nn.Module:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=2,
        intermediate_size=48, vocab_size=7, head_dim=8,
    )  # fmt: skip
    return getattr(transformers, f"{name}Model")(config).eval()


def stack(kind: str = "packed") -> PackedLlama | ModuleStack:
    if kind in ("packed", "plain"):
        return PackedLlama(decoder(), HEADS, HEADS, ROPE_THETA, NORM_EPS, packed=kind == "packed")
    return ModuleStack(of_transformers(kind))


STACKS = ["packed", "plain", "Llama", "Qwen2", "Qwen3", "Mistral"]


@dataclass
class Given(CacheRule):
    """Follows the plans it is given, one a step; the first step is full."""

    plans: list[RowPlan] = field(default_factory=list)
    seen: list[Step] = field(default_factory=list)

    def plan(self, step: Step) -> RowPlan:
        self.seen.append(step)
        return self.plans[step.index - 1] if self.plans else step.full()


def rows(seed: int, batch: int = 1, layout: RowLayout = LAYOUT) -> Tensor:
    return torch.randn(batch, layout.n_rows, WIDTH, generator=torch.Generator().manual_seed(seed))


def shown(index: int, prompt: str = "open the drawer") -> Seen:
    return Seen(np.full((2, 4, 4, 3), index, np.uint8), np.zeros(8, np.float32), prompt)


def play(
    cache: TokenCache, xs: list[Tensor], layout: RowLayout = LAYOUT, prompt: str = "open the drawer"
) -> list[Tensor]:
    return [cache.step(x, layout, [shown(7 * t + b, prompt) for b in range(len(x))]) for t, x in enumerate(xs)]


def a_plan(draw: np.random.Generator) -> RowPlan:
    visible = draw.integers(0, LAYERS + 1, N)
    visible[draw.random(N) < 0.5] = LAYERS
    return RowPlan(np.minimum(draw.integers(0, LAYERS + 1, N), visible), visible, LAYERS)


def dense(module: Any, xs: list[Tensor], plans: list[RowPlan], bidirectional: bool = False) -> list[Tensor]:
    """The scheme written with loops over rows and a dictionary, in double precision: slow and obvious."""
    module = module.double()
    width = WIDTH // HEADS
    memory: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    answers = []
    for x, plan in zip(xs, plans, strict=True):
        hidden = {row: x[0, row].double() for row in range(x.shape[1])}
        for index, layer in enumerate(module.layers):
            own = layer.self_attn
            verb = {}
            for row in range(x.shape[1]):
                visual = row - 1 if 1 <= row <= N else None
                if visual is None or index < plan.active_until[visual]:
                    verb[row] = "recompute"
                else:
                    verb[row] = "reuse" if index < plan.visible_until[visual] else "delete"
            queries = {}
            for row, what in verb.items():
                if what != "recompute":
                    hidden.pop(row, None)
                    continue
                normed = layer.input_layernorm(hidden[row])
                query, key, value = (
                    projection(normed).view(-1, width) for projection in (own.q_proj, own.k_proj, own.v_proj)
                )
                if hasattr(own, "q_norm"):  # Qwen3
                    query, key = own.q_norm(query), own.k_norm(key)
                queries[row] = turned(query, row)
                memory[index, row] = tuple(
                    part.repeat_interleave(HEADS // len(part), dim=0) for part in (turned(key, row), value)
                )
            for row, query in queries.items():
                keys = [key for key, what in verb.items() if what != "delete" and (bidirectional or key <= row)]
                scores = torch.stack([(query * memory[index, key][0]).sum(-1) for key in keys]) * width**-0.5
                weights = scores.softmax(dim=0)
                mixed = sum(weights[i][:, None] * memory[index, key][1] for i, key in enumerate(keys))
                hidden[row] = hidden[row] + own.o_proj(mixed.flatten())
            for row in queries:
                hidden[row] = hidden[row] + layer.mlp(layer.post_attention_layernorm(hidden[row]))
        answers.append(torch.stack([module.norm(hidden[row]) for row in range(N + 1, x.shape[1])])[None])
    return answers


def turned(x: Tensor, row: int) -> Tensor:
    """Heads (n, w) of a row, each pair of features (i, i + w / 2) turned by the row's own angle."""
    angle = row * ROPE_THETA ** (-torch.arange(0, x.shape[-1], 2, dtype=torch.float64) / x.shape[-1])
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()), -1)


@pytest.mark.parametrize("kind", STACKS)
def test_full_computation_is_the_plain_forward(kind: str) -> None:
    x = rows(1, batch=2)
    answer = TokenCache(stack(kind), [CacheRule(), CacheRule()]).step(x, LAYOUT, [shown(0), shown(1)])
    with torch.no_grad():
        if kind in ("packed", "plain"):
            plain = decoder()(x, torch.arange(LAYOUT.n_rows)[None])
        else:
            plain = of_transformers(kind)(inputs_embeds=x).last_hidden_state
    torch.testing.assert_close(answer, plain[:, LAYOUT.visual.stop :], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("seed", range(4))
def test_a_partial_step_whose_inputs_did_not_change_is_the_full_one(kind: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    plans = [RowPlan(draw.integers(0, LAYERS + 1, N), np.full(N, LAYERS), LAYERS) for _ in range(3)]
    first, *others = play(TokenCache(stack(kind), [Given(plans=plans)]), [rows(1)] * 4)
    for other in others:
        torch.testing.assert_close(other, first, **CLOSE)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bidirectional=st.booleans())
def test_the_sparse_forward_is_the_dense_scheme_for_any_plans(seed: int, bidirectional: bool) -> None:
    draw = np.random.default_rng(seed)
    layout = RowLayout(2, 4, 3, 2, bidirectional)
    plans = [a_plan(draw) for _ in range(3)]
    xs = [rows(int(draw.integers(1000)), layout=layout) for _ in range(4)]
    found = play(TokenCache(stack(), [Given(plans=plans)]), xs, layout)
    expected = dense(decoder(), xs, [RowPlan.full(N, LAYERS), *plans], bidirectional)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, **CLOSE)


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3", "Mistral"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bidirectional=st.booleans())
def test_so_it_is_for_modules_of_transformers(kind: str, seed: int, bidirectional: bool) -> None:
    draw = np.random.default_rng(seed)
    layout = RowLayout(2, 4, 3, 2, bidirectional)
    plans = [a_plan(draw) for _ in range(2)]
    xs = [rows(int(draw.integers(1000)), layout=layout) for _ in range(3)]
    found = play(TokenCache(stack(kind), [Given(plans=plans)]), xs, layout)
    expected = dense(of_transformers(kind), xs, [RowPlan.full(N, LAYERS), *plans], bidirectional)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, **CLOSE)


def test_reuse_of_changed_inputs_is_not_full_computation() -> None:
    """The laws above have teeth: the stale values are far from the fresh ones."""
    half = RowPlan.full(N, LAYERS).reuse(np.arange(N) % 2 == 0)
    _, found = play(TokenCache(stack(), [Given(plans=[half])]), [rows(1), rows(2)])
    _, full = play(TokenCache(stack(), [CacheRule()]), [rows(1), rows(2)])
    assert (found - full).abs().max() > 0.05


@pytest.mark.parametrize("kind", ["packed", "Llama"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_batch_with_different_plans_is_its_environments_one_by_one(kind: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    plans = [[a_plan(draw) for _ in range(2)] for _ in range(3)]
    xs = [rows(t, batch=3) for t in range(3)]
    together = play(TokenCache(stack(kind), [Given(plans=own) for own in plans]), xs)
    for lane, own in enumerate(plans):
        cache = TokenCache(stack(kind), [Given(plans=own)])
        alone = [cache.step(x[lane : lane + 1], LAYOUT, [shown(7 * t + lane)]) for t, x in enumerate(xs)]
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[lane : lane + 1], other, **CLOSE)


class Shuffled:
    """Layers that are given their rows in another order each time, and hand them back in the cache's own."""

    def __init__(self, inner: Any, seed: int, forgets: str = "") -> None:
        self._inner, self._generator, self._forgets = inner, torch.Generator().manual_seed(seed), forgets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def layer(self, index, x, rotation, attend, n_wanted=None):
        turn = torch.randperm(x.shape[1], generator=self._generator)
        buffer, present = attend._buffer, attend._present
        places, mask = present.rows, present.mask
        if mask is None:  # the kernel's own causal order would be that of the gathering
            shown = torch.zeros(len(places), buffer.n_rows, dtype=torch.bool).scatter_(1, places, True)
            mask = additive(visible_keys(places, torch.arange(buffer.n_rows)[None], shown, not present.causal), x.dtype)
        if self._forgets != "places":
            places = places[:, turn]
        if self._forgets != "positions":
            rotation = tuple(part[:, turn] for part in rotation)
        attend = stream.RowAttention(buffer, index, stream.Present(places, mask[:, :, turn], causal=False))
        done = self._inner.layer(index, x[:, turn], rotation, attend)[:, turn.argsort()]
        return done if n_wanted is None else done[:, -n_wanted:]


@pytest.mark.parametrize("kind", ["packed", "Llama", "Qwen3"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bidirectional=st.booleans())
def test_the_order_in_which_rows_are_gathered_changes_nothing(kind: str, seed: int, bidirectional: bool) -> None:
    draw = np.random.default_rng(seed)
    layout = RowLayout(2, 4, 3, 2, bidirectional)
    plans = [[a_plan(draw) for _ in range(2)] for _ in range(2)]
    xs = [rows(t, batch=2, layout=layout) for t in range(3)]
    layers = stack(kind)
    ordered, shuffled = (
        play(TokenCache(made, [Given(plans=own) for own in plans]), xs, layout)
        for made in (layers, Shuffled(layers, seed))
    )
    for one, other in zip(shuffled, ordered, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("forgets", ["places", "positions"])
def test_rows_that_lose_their_place_or_their_position_are_noticed(forgets: str) -> None:
    plans = [a_plan(np.random.default_rng(1))]
    layers, xs = stack(), [rows(1), rows(2)]
    ordered, lost = (
        play(TokenCache(made, [Given(plans=plans)]), xs)[-1] for made in (layers, Shuffled(layers, 1, forgets))
    )
    assert (ordered - lost).abs().max() > 0.05


@pytest.mark.parametrize("kind", ["packed", "Llama"])
def test_rows_decoded_later_see_what_the_last_layer_of_the_plan_shows(kind: str) -> None:
    """Token by token after a partial prefill is the same as all tokens within the prompt."""
    plan = a_plan(np.random.default_rng(5))
    xs = [rows(1), rows(2)]
    within = play(TokenCache(stack(kind), [Given(plans=[plan])]), xs)[-1]
    cache = TokenCache(stack(kind), [Given(plans=[plan])])
    n_prompt = LAYOUT.n_rows - LAYOUT.n_action
    for t, x in enumerate(xs):
        cache.step(x[:, :n_prompt], LAYOUT, [shown(t)])
    later = [cache.extend(xs[-1][:, row], row) for row in range(n_prompt, LAYOUT.n_rows)]
    torch.testing.assert_close(torch.stack(later, dim=1), within[:, -LAYOUT.n_action :], **CLOSE)


@pytest.mark.parametrize("change", ["reset", "instruction", "prompt length", "camera", "exception"])
def test_what_must_be_forgotten_is_forgotten(change: str) -> None:
    nothing = RowPlan.full(N, LAYERS).reuse(np.ones(N, bool))
    rule = Given(plans=[nothing] * 9)
    cache = TokenCache(stack(), [rule])
    play(cache, [rows(1), rows(2)])
    assert cache.reports[0].rows_reused == N
    prompt, layout = "open the drawer", LAYOUT
    if change == "reset":
        cache.reset(0, seed=0)
    elif change == "instruction":
        prompt = "close the drawer"
    elif change == "prompt length":
        layout = RowLayout(2, 4, 4, 2)
    elif change == "camera":
        layout = RowLayout(1, 4, 3, 2)
    else:
        with pytest.raises(ValueError):
            cache.step(rows(3), LAYOUT, [])
    x = rows(4, layout=layout)
    found = cache.step(x, layout, [shown(9, prompt)])
    fresh = TokenCache(stack(), [CacheRule()]).step(x, layout, [shown(9, prompt)])
    assert torch.equal(found, fresh)
    assert cache.reports[0].full_because == "first"


def test_a_new_instruction_in_one_environment_leaves_the_others_alone() -> None:
    nothing = RowPlan.full(N, LAYERS).reuse(np.ones(N, bool))
    cache = TokenCache(stack(), [Given(plans=[nothing] * 3), Given(plans=[nothing] * 3)])
    play(cache, [rows(1, 2), rows(2, 2)])
    cache.step(rows(3, 2), LAYOUT, [shown(20), shown(21, "another")])
    assert [report.full_because for report in cache.reports] == ["", "first"]


def test_ages_count_inferences_since_a_row_was_computed() -> None:
    full = RowPlan.full(N, LAYERS)
    first_half = np.arange(N) < N // 2
    plans = [full.reuse(first_half), full.reuse(first_half, from_layer=2), full.reuse(~first_half)]
    rule = Given(plans=plans)
    cache = TokenCache(stack(), [rule])
    play(cache, [rows(t) for t in range(4)])
    ages = [step.ages for step in rule.seen]
    assert (ages[0] == 0).all()
    assert (ages[1][:, first_half] == 1).all()
    assert (ages[1][:, ~first_half] == 0).all()
    assert (ages[2][:2, first_half] == 0).all()
    assert (ages[2][2, first_half] == 2).all()
    assert cache.reports[0].age_max == 1
    assert cache.reports[0].age_counts == (N // 2, 0, 0, 0, 0, 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_ages_are_those_that_a_list_of_past_steps_tells(seed: int) -> None:
    """Also in the report: of what was reused, the age at the last layer that sees it."""
    draw = np.random.default_rng(seed)
    past, plans = [RowPlan.full(N, LAYERS)], [a_plan(draw) for _ in range(6)]
    rule = Given(plans=plans)
    cache = TokenCache(stack(), [rule])
    cache.step(rows(0), LAYOUT, [shown(0)])
    for t, plan in enumerate(plans, start=1):
        cache.step(rows(t), LAYOUT, [shown(t)])
        assert np.array_equal(rule.seen[-1].ages, counted(past))  # before the step
        past.append(plan)
        reused = np.flatnonzero(plan.visible_until > plan.active_until)
        seen = counted(past)[plan.visible_until[reused] - 1, reused]
        report = cache.reports[0]
        assert (report.rows_reused, report.age_max) == (len(seen), seen.max(initial=0))
        assert report.age_counts[:3] == ((seen == 1).sum(), ((seen > 1) & (seen < 4)).sum(), (seen >= 4).sum())


def counted(past: list[RowPlan]) -> np.ndarray:
    """Steps since each row was last computed at each layer, looked up in the list."""
    return np.array(
        [
            [next(age for age, plan in enumerate(reversed(past)) if plan.active(layer)[row]) for row in range(N)]
            for layer in range(LAYERS)
        ]
    )


def test_a_ledger_knows_what_was_never_computed() -> None:
    ledger = Ledger(2, 3)
    ledger.advance(np.array([2, 1, 0]))
    assert ledger.ages.tolist() == [[0, 0, NEVER], [0, NEVER, NEVER]]
    assert ledger.oldest.tolist() == [0, NEVER, NEVER]


def test_reuse_of_what_was_never_computed_is_refused() -> None:
    deleted = RowPlan.full(N, LAYERS).delete(np.arange(N) == 2)
    rule = Given(plans=[deleted, RowPlan.full(N, LAYERS).reuse(np.arange(N) == 2)], first_is_full=False)
    rule.plan = lambda step: rule.plans[step.index]  # type: ignore[method-assign]
    cache = TokenCache(stack(), [rule])
    cache.step(rows(1), LAYOUT, [shown(0)])
    with pytest.raises(PlanError, match="reuses row 2 at layer 0, which was never computed there"):
        cache.step(rows(2), LAYOUT, [shown(1)])


@pytest.mark.parametrize(("active", "visible", "problem"), [
    ([0] * (N - 1), [3] * N, "has shapes"),
    ([2] * N, [1] * N, "computes row 0 until layer 2, shows it until 1"),
    ([0] * N, [4] * N, "shows it until 4"),
    ([-1] * N, [1] * N, "until layer -1"),
])  # fmt: skip
def test_a_plan_out_of_range_is_refused(active: list[int], visible: list[int], problem: str) -> None:
    with pytest.raises(PlanError, match=problem):
        RowPlan(np.array(active), np.array(visible), LAYERS)


def test_a_plan_for_another_number_of_rows_is_refused() -> None:
    rule = Given(plans=[RowPlan.full(N + 1, LAYERS)])
    with pytest.raises(PlanError, match=rf"is for {N + 1} rows and {LAYERS} layers; expected {N} rows"):
        play(TokenCache(stack(), [rule]), [rows(1), rows(2)])


@dataclass
class Narrowing(CacheRule):
    """Deletes before layer 1 the rows that the last row looked at least in layer 0."""

    keep: int = 3
    back: bool = False
    found: list[np.ndarray] = field(default_factory=list)

    def watched(self, layout, n_layers):
        return {0: np.array([layout.n_rows - 1])}

    def narrows_at(self, n_layers):
        return (1,)

    def narrow(self, plan, step, inside):
        if self.back:
            return RowPlan.full(N, LAYERS), None
        looked = inside.attention[0][0, step.layout.visual].numpy()
        self.found.append(looked)
        least = np.isin(np.arange(N), np.argsort(-looked, kind="stable")[self.keep :])
        return plan.delete(least, from_layer=inside.layer), None


def test_a_rule_may_narrow_by_the_attention_of_this_forward() -> None:
    rule = Narrowing(first_is_full=False)
    cache = TokenCache(stack(), [rule])
    x = rows(1)
    found = cache.step(x, LAYOUT, [shown(0)])
    kept = np.isin(np.arange(N), np.argsort(-rule.found[0], kind="stable")[:3])
    plan = RowPlan.full(N, LAYERS).delete(~kept, from_layer=1)
    (expected,) = dense(decoder(), [x], [plan])
    torch.testing.assert_close(found.double(), expected, **CLOSE)
    assert cache.reports[0].rows_per_layer == (15, 10, 10)
    assert cache.reports[0].nominal == 0.0
    assert cache.reports[0].effective == pytest.approx(1 - (N + 3 + 3) / (3 * N))


def test_a_narrowing_that_brings_rows_back_is_refused() -> None:
    rule = Narrowing(back=True, first_is_full=False)
    rule.plan = lambda step: step.full().reuse(np.zeros(N, bool)).delete(np.arange(N) == 4)  # type: ignore[method-assign]
    with pytest.raises(PlanError, match="made at layer 1 brings back row 4"):
        TokenCache(stack(), [rule]).step(rows(1), LAYOUT, [shown(0)])


@pytest.mark.parametrize("kind", ["packed", "Llama"])
def test_watched_attention_is_what_eager_attention_gives(kind: str) -> None:
    @dataclass
    class Watching(CacheRule):
        def watched(self, layout, n_layers):
            return {layer: np.arange(layout.text.start, layout.n_rows) for layer in range(n_layers)}

    x = rows(3)
    cache = TokenCache(stack(kind), [Watching()])
    cache.step(x, LAYOUT, [shown(0)])
    found = cache._lanes[0].attention
    model = of_transformers("Llama")
    if kind == "packed":
        from transformers import LlamaConfig, LlamaModel

        config = LlamaConfig(
            hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=48,
            vocab_size=7, rms_norm_eps=NORM_EPS,
        )  # fmt: skip
        model = LlamaModel(config).eval()
        model.load_state_dict(decoder().state_dict(), strict=False)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(inputs_embeds=x, output_attentions=True).attentions
    for layer in range(LAYERS):
        expected = maps[layer][0].mean(dim=0)[LAYOUT.text.start :]
        torch.testing.assert_close(found[layer], expected, rtol=1e-4, atol=1e-6)


def test_merged_rows_are_weighted_means_in_the_hidden_stream() -> None:
    @dataclass
    class Merging(CacheRule):
        def narrows_at(self, n_layers):
            return (0,)

        def narrow(self, plan, step, inside):
            assert torch.equal(inside.hidden, step.visual)
            weights = np.zeros((1, N))
            weights[0, [1, 2, 5]] = 0.5, 0.25, 0.25
            gone = np.isin(np.arange(N), [2, 5])
            return plan.delete(gone, from_layer=0), Merge(np.array([1]), weights)

    x = rows(1)
    found = TokenCache(stack(), [Merging(first_is_full=False)]).step(x, LAYOUT, [shown(0)])
    mixed = x.clone()
    mixed[0, 2] = 0.5 * x[0, 2] + 0.25 * x[0, 3] + 0.25 * x[0, 6]
    plan = RowPlan.full(N, LAYERS).delete(np.isin(np.arange(N), [2, 5]))
    (expected,) = dense(decoder(), [mixed], [plan])
    torch.testing.assert_close(found.double(), expected, **CLOSE)


def test_a_frame_that_is_compared_with_itself_is_told_once_an_episode() -> None:
    cache = TokenCache(stack(), [Given(plans=[RowPlan.full(N, LAYERS)] * 5, compares=True)])
    frames = shown(0)
    cache.step(rows(1), LAYOUT, [frames])
    with pytest.warns(SelfComparisonWarning, match="bit for bit"):
        cache.step(rows(1), LAYOUT, [frames])
    cache.step(rows(1), LAYOUT, [frames])  # warnings are errors here: there is no second one


def test_the_model_as_a_whole_still_computes_what_it_did() -> None:
    model = of_transformers("Llama")
    x = rows(1)
    with torch.no_grad():
        before = model(inputs_embeds=x).last_hidden_state
        ModuleStack(model)
        assert model.config._attn_implementation == ROWS_ATTENTION
        torch.testing.assert_close(model(inputs_embeds=x).last_hidden_state, before)


def test_decoders_that_cannot_be_driven_are_refused() -> None:
    import transformers

    with pytest.raises(UnfitDecoderError, match="Linear has no 'layers'"):
        ModuleStack(torch.nn.Linear(2, 2))
    sliding = transformers.Qwen2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
        vocab_size=7, use_sliding_window=True, sliding_window=4, max_window_layers=1,
    )  # fmt: skip
    with pytest.raises(UnfitDecoderError, match="sliding attention"):
        ModuleStack(transformers.Qwen2Model(sliding))
    with pytest.raises(UnfitDecoderError, match=r"has a parameter 'layers.0.self_attn.k_proj.bias'"):
        PackedLlama(of_transformers("Qwen2"), HEADS, 2, ROPE_THETA, NORM_EPS)
    short = decoder()
    del short.layers[1].mlp
    with pytest.raises(UnfitDecoderError, match=r"has no parameter 'layers.1.mlp.down_proj.weight'"):
        PackedLlama(short, HEADS, HEADS, ROPE_THETA, NORM_EPS)


def test_published_layers_are_taken_at_their_depth() -> None:
    assert [at_depth(layer, 32) for layer in (0, 2, 6, 9, 11, 15)] == [0, 2, 6, 9, 11, 15]
    assert [at_depth(layer, 4) for layer in (0, 2, 3, 6, 15, 31)] == [0, 1, 1, 1, 2, 3]


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("n_wanted", [1, 3])
def test_the_last_layer_leaves_out_what_nobody_wants_and_nobody_notices(kind: str, n_wanted: int) -> None:
    """Keys and values of all rows are kept all the same: what the next step reuses is equal too."""
    draw = np.random.default_rng(n_wanted)
    xs = [rows(index, batch=2) for index in range(5)]
    plans = [[a_plan(draw) for _ in range(2)] for _ in xs[1:]]
    layers = stack(kind)
    whole, few = (TokenCache(layers, [Given(plans=[both[lane] for both in plans]) for lane in range(2)]) for _ in "ab")
    for index, x in enumerate(xs):
        seen = [shown(7 * index + lane) for lane in range(2)]
        every = whole.step(x, LAYOUT, seen)
        torch.testing.assert_close(few.step(x, LAYOUT, seen, n_wanted), every[:, -n_wanted:])


def test_what_is_watched_at_the_last_layer_is_computed_there() -> None:
    watching = [Given(), Given()]
    for rule in watching:
        rule.watched = lambda layout, n_layers: {n_layers - 1: np.array([2, layout.proprio])}  # type: ignore[method-assign]
    whole, few = (TokenCache(stack(), [rule]) for rule in watching)
    for index in range(2):
        whole.step(rows(index), LAYOUT, [shown(index)])
        few.step(rows(index), LAYOUT, [shown(index)], 1)
    for rule in watching:
        assert rule.seen
    one, other = (rule.seen[-1].attention[LAYERS - 1] for rule in watching)
    torch.testing.assert_close(one, other)
