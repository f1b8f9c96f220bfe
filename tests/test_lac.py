"""The proofs of LAC: the gradients reach what they should, and the training forward is the inference forward."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import SMALL, TASK, PictureEnv
from torch import Tensor

from vla_bench import registry
from vla_bench.errors import OptionError
from vla_bench.policy import Fate
from vla_bench_policies.lac.flow import averaged, difference, flow_named, nothing, reduced
from vla_bench_policies.lac.gates import GateConfig, Gates, n_reused, prepared
from vla_bench_policies.lac.relaxation import (
    candidate_masks,
    expected_ratio,
    gumbel_choice,
    hard_mask,
    mixed,
    soft_mask,
)
from vla_bench_policies.lac.rule import LacRule, Recovery
from vla_bench_policies.learned.blend import Remembered
from vla_bench_policies.learned.teacher import alignment_target
from vla_bench_policies.reference.decoder import NORM_EPS, ROPE_THETA
from vla_bench_policies.reference.model import ReferenceVLA
from vla_bench_policies.reference.teaching import ReferenceTeacher
from vla_bench_policies.token_cache import patches
from vla_bench_policies.token_cache.cache import TokenCache
from vla_bench_policies.token_cache.decoder import PackedLlama
from vla_bench_policies.token_cache.lane import Seen
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule

RATIOS = (0.0, 0.2, 0.4, 0.6, 0.8)
CONFIG = GateConfig(flow="difference", px=32, widths=(8, 16, 16), hidden=16, grid=8)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> ReferenceVLA:
    torch.manual_seed(3)
    made = ReferenceVLA(SMALL).double()
    for weight in made.decoder.parameters():
        weight.data *= 1.5
    return made.eval()


@pytest.fixture(scope="module")
def teacher(model: ReferenceVLA) -> ReferenceTeacher:
    return ReferenceTeacher(copy.deepcopy(model))


def pictures(seed: int, n: int = 1) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(0, 255, (n, 2, 3, 32, 32)))


def rows_of(teacher: ReferenceTeacher, seed: int, n: int = 1) -> Tensor:
    tokens = torch.tensor([[4, 5, 6]]).expand(n, -1)
    return teacher.rows(pictures(seed, n), tokens, torch.zeros(n, 8, dtype=torch.float64))


LAYOUT = ReferenceVLA(SMALL).layout(3)
N = LAYOUT.n_visual


def a_scene(teacher: ReferenceTeacher, seed: int) -> tuple[Tensor, Remembered, Tensor]:
    """Rows now, what is remembered of the step before, and a demonstration's chunk.

    As between two inferences, half of the rows change, and little; as after imitation, the demonstration is near to the
    full answer. (With rows that change by 0.7 and a target anywhere, the mean cosine below is 0.58, not 0.94.)
    """
    torch.manual_seed(seed)
    before, now = rows_of(teacher, 2 * seed), rows_of(teacher, 2 * seed + 1)
    now = before + 0.2 * (now - before) * (torch.rand(1, before.shape[1], 1, dtype=torch.float64) < 0.5)
    full = teacher.look(now, LAYOUT).answer
    return now, teacher.look(before, LAYOUT).remembered, full + 0.1 * torch.randn_like(full)


# masks


@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([0.0, 0.13, 0.2, 0.5, 0.6, 0.8, 1.0]))
@settings(deadline=None)
def test_a_hard_mask_reuses_k_rows_of_lowest_score_and_ties_go_to_the_lower_row(
    seed: int, n: int, ratio: float
) -> None:
    scores = torch.from_numpy(np.random.default_rng(seed).integers(0, 5, (2, n)) / 4)
    k = n_reused(ratio, n)
    mask = hard_mask(scores, k)
    assert (mask == 0).sum(dim=1).tolist() == [k, k]
    for row_scores, row in zip(scores, mask, strict=True):
        expected = sorted(range(n), key=lambda index: (row_scores[index], index))[:k]
        assert sorted(torch.nonzero(row == 0)[:, 0].tolist()) == sorted(expected)


def test_the_number_of_reused_rows_is_not_lost_to_rounding() -> None:
    assert [n_reused(ratio, 5) for ratio in RATIOS] == [0, 1, 2, 3, 4]
    assert [n_reused(ratio, 128) for ratio in RATIOS] == [0, 25, 51, 76, 102]


def test_masks_are_exactly_hard_in_the_forward_and_sum_to_no_gradient() -> None:
    scores = torch.rand(3, 20, dtype=torch.float64, requires_grad=True)
    masks = candidate_masks(scores, RATIOS, 0.05)
    assert set(masks.detach().unique().tolist()) == {0.0, 1.0}
    (gradient,) = torch.autograd.grad((masks * torch.randn_like(masks)).sum(), scores)
    assert gradient.abs().max() > 1e-3
    assert gradient.sum().abs() < 1e-12  # all scores up or down changes no mask, and the gradient knows it


def test_the_relaxed_mask_passes_finite_differences() -> None:
    scores = torch.rand(2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: soft_mask(s, 4, 0.1), scores)


def test_a_draw_is_one_of_the_ratios_as_often_as_the_softmax_says() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0]]).expand(20_000, -1)
    drawn = gumbel_choice(logits, 0.5, torch.Generator().manual_seed(0))
    assert drawn.sum(dim=1).unique().tolist() == [1.0]
    np.testing.assert_allclose(drawn.mean(dim=0), logits[0].softmax(dim=0), atol=0.01)


# gradients through the frozen policy


def test_the_task_loss_alone_reaches_the_parameters_of_both_networks(teacher: ReferenceTeacher) -> None:
    gates = Gates(CONFIG).double()
    now, remembered, chunk = a_scene(teacher, 1)
    seen = torch.randn(1, 2, 5, 32, 32, dtype=torch.float64)
    scores, logits = gates(seen)
    masks = candidate_masks(scores, RATIOS, 0.1)
    mask = mixed(logits, masks, "gumbel", 1.0, torch.Generator().manual_seed(4))
    loss = (teacher.look(now, LAYOUT, mask, remembered).answer - chunk).abs().mean()
    loss.backward()
    for name, weight in gates.named_parameters():
        if name.endswith("bias"):
            continue  # one before a norm has none to get
        assert weight.grad is not None, name
        assert weight.grad.norm() > 1e-9, name
    assert all(weight.grad is None for weight in teacher.model.parameters())


def test_the_relaxed_objective_passes_finite_differences(teacher: ReferenceTeacher) -> None:
    now, remembered, chunk = a_scene(teacher, 2)
    scores = torch.rand(1, N, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(1, len(RATIOS), dtype=torch.float64, requires_grad=True)

    def objective(scores: Tensor, logits: Tensor) -> Tensor:
        soft = torch.stack([soft_mask(scores, n_reused(ratio, N), 0.1) for ratio in RATIOS], dim=1)
        mask = (logits.softmax(dim=-1)[..., None] * soft).sum(dim=1)
        answer = teacher.look(now, LAYOUT, mask, remembered).answer
        return ((answer - chunk) ** 2).mean() - 0.1 * expected_ratio(logits, RATIOS).mean()

    for variable in (scores, logits):
        (gradient,) = torch.autograd.grad(objective(scores, logits), variable)
        direction = torch.randn_like(variable)
        values = []
        for sign in (1, -1):
            moved = [given + sign * 1e-5 * direction if given is variable else given for given in (scores, logits)]
            values.append(objective(*moved).item())
        assert (gradient * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-12)


def test_the_ratio_gradient_agrees_with_the_exact_one_over_hard_ratios(teacher: ReferenceTeacher) -> None:
    cosines = []
    for seed in range(24):
        now, remembered, chunk = a_scene(teacher, seed)
        scores = torch.rand(1, N, dtype=torch.float64)
        logits = torch.randn(1, len(RATIOS), dtype=torch.float64, requires_grad=True)
        masks = candidate_masks(scores, RATIOS, 0.05)

        def loss(mask: Tensor, now=now, remembered=remembered, chunk=chunk) -> Tensor:
            return (teacher.look(now, LAYOUT, mask, remembered).answer - chunk).abs().mean()

        hard = torch.stack([loss(masks[:, index]) for index in range(len(RATIOS))]).detach()
        (exact,) = torch.autograd.grad((logits.softmax(dim=-1)[0] * hard).sum(), logits)
        mask = mixed(logits, masks, "blend", 1.0, torch.Generator())
        (found,) = torch.autograd.grad(loss(mask), logits)
        cosines.append(torch.nn.functional.cosine_similarity(exact, found).item())
    assert np.mean(cosines) >= 0.9, cosines


# the training forward and the inference forward


@pytest.mark.parametrize("first_layer", [0, 2])
def test_the_hard_training_forward_is_the_sparse_inference_forward(model: ReferenceVLA, first_layer: int) -> None:
    teacher = ReferenceTeacher(copy.deepcopy(model), first_layer)
    stack = PackedLlama(teacher.model.decoder, SMALL.heads, SMALL.heads, ROPE_THETA, NORM_EPS, packed=False)
    rng = np.random.default_rng(0)
    plans = [rng.random(N) < 0.6 for _ in range(4)]

    class Given(CacheRule):
        def plan(self, step):
            return RowPlan.full(N, SMALL.layers).reuse(plans[step.index - 1], from_layer=first_layer)

    cache = TokenCache(stack, [Given()])
    remembered = None
    for index in range(5):
        rows = rows_of(teacher, index)
        mask = None if index == 0 else torch.from_numpy(~plans[index - 1]).double()[None]
        looked = teacher.look(rows, LAYOUT, mask, remembered)
        remembered = looked.remembered
        seen = Seen(np.full((2, 4, 4, 3), index, np.uint8), np.zeros(8, np.float32), "open")
        tail = cache.step(rows, LAYOUT, [seen])
        sparse = teacher.model.chunk_head(tail[:, -SMALL.chunk :])
        torch.testing.assert_close(looked.answer, sparse, rtol=0, atol=1e-10)


def test_what_stage_one_imitates_is_the_attention_that_the_token_cache_watches(teacher: ReferenceTeacher) -> None:
    stack = PackedLlama(teacher.model.decoder, SMALL.heads, SMALL.heads, ROPE_THETA, NORM_EPS, packed=False)

    class Watching(CacheRule):
        def watched(self, layout, n_layers):
            return {2: layout.answering()}  # layer 15 of 32 is layer 2 of 4

        def plan(self, step):
            self.seen = step.attention
            return step.full()

    rule, rows = Watching(), rows_of(teacher, 5)
    cache = TokenCache(stack, [rule])
    for index in range(2):
        cache.step(rows, LAYOUT, [Seen(np.full((2, 4, 4, 3), index, np.uint8), np.zeros(8, np.float32), "open")])
    watched = rule.seen[2][:, LAYOUT.visual].mean(dim=0)
    torch.testing.assert_close(teacher.look(rows, LAYOUT).attention[0], watched, rtol=1e-4, atol=1e-7)
    target = alignment_target(watched[None])
    assert (target.min(), target.max()) == (0, 1)


# the rule


def lac(**change) -> LacRule:
    torch.manual_seed(0)
    return LacRule("lac", gates=Gates(CONFIG).eval(), **change)


def played(model: ReferenceVLA, rule: LacRule, n: int = 12, seed: int = 0) -> list:
    model = copy.deepcopy(model).float()
    stack = PackedLlama(model.decoder, SMALL.heads, SMALL.heads, ROPE_THETA, NORM_EPS)
    cache, env = TokenCache(stack, [rule]), PictureEnv()
    cache.reset(0, seed)
    obs, _ = env.reset(options={"init_state": 1})
    reports = []
    for _ in range(n):
        frames = np.stack([obs[camera] for camera in SMALL.cameras])
        with torch.inference_mode():
            images = torch.from_numpy(frames).permute(0, 3, 1, 2).float()[None]
            rows = model.rows(model.prompt(model.see(images), torch.tensor([[4, 5, 6]]), torch.zeros(1, 8)), "oft")
        cache.step(rows, LAYOUT, [Seen(frames, np.zeros(8, np.float32), TASK.instruction)])
        reports += cache.reports
        obs, *_ = env.step(np.full(7, 0.3))
    return reports


def test_a_fixed_ratio_reuses_that_share_and_the_first_step_is_full(model: ReferenceVLA) -> None:
    reports = played(model, lac(ratio=0.6, recovery=Recovery(0.0)))
    assert [round(report.effective, 3) for report in reports] == [0.0] + [round(76 / 128, 3)] * 11
    assert {report.nominal for report in reports[1:]} == {0.6}


def test_recovery_recomputes_a_quarter_now_and_then_and_is_seeded(model: ReferenceVLA) -> None:
    reports = played(model, lac(ratio=0.6, recovery=Recovery(0.5)))
    shares = {round(report.effective, 4) for report in reports[1:]}
    assert shares == {round(76 / 128, 4), round((76 - 19) / 128, 4)}
    assert all(report.nominal == 0.6 for report in reports[1:])
    again, other = (played(model, lac(ratio=0.6, recovery=Recovery(0.5)), seed=seed) for seed in (0, 1))
    assert [report.fates.tolist() for report in again] == [report.fates.tolist() for report in reports]
    assert [report.fates.tolist() for report in other] != [report.fates.tolist() for report in reports]


def test_no_row_is_older_than_the_maximum_age(model: ReferenceVLA) -> None:
    assert max(report.age_max for report in played(model, lac(ratio=0.8, recovery=Recovery(0.0)))) > 3
    assert max(report.age_max for report in played(model, lac(ratio=0.8, recovery=Recovery(0.0, max_age=3)))) == 3


def test_flow_may_start_from_what_the_cache_holds(model: ReferenceVLA) -> None:
    rule = lac(ratio=0.6, recovery=Recovery(0.0), since="computed")
    pairs = []
    rule.flow = lambda then, now: pairs.append((then.copy(), now)) or np.zeros((*now.shape[:3], 2), np.float32)
    reports = played(model, rule)
    held = pairs[0][0]  # the first picture, of which every row was computed
    for report, (then, now), (later, _) in zip(reports[1:], pairs, pairs[1:], strict=False):
        np.testing.assert_array_equal(then, held)
        computed = patches.of_pixels(report.fates != Fate.REUSED, now, CONFIG.grid)
        held = np.where(computed, now, held)
        np.testing.assert_array_equal(later, held)
    assert (held != pairs[-1][1]).any(axis=-1).mean() > 0.01
    with pytest.raises(OptionError, match="since"):
        registry.method("lac:since=yesterday")


def test_the_predictor_chooses_among_its_ratios(model: ReferenceVLA) -> None:
    for report in played(model, lac(recovery=Recovery(0.0)))[1:]:
        assert report.nominal in RATIOS


# what the gates see


def test_flow_says_what_moved_and_where() -> None:
    before = np.zeros((2, 64, 64, 3), np.uint8)
    rng = np.random.default_rng(0)
    before[:, 20:40, 20:40] = rng.integers(60, 255, (2, 20, 20, 3))
    now = np.roll(before, 3, axis=2)
    moved = flow_named("dis")(before, now)
    assert moved.shape == (2, 64, 64, 2)
    assert np.median(moved[:, 24:36, 24:36, 0]) == pytest.approx(3, abs=0.5)
    assert np.abs(np.median(moved[:, 24:36, 24:36, 1])) < 0.5
    changed = difference(before, now)
    assert (np.abs(changed[:, 20:40, 20:23]).sum(axis=-1) > 0).all()
    assert not changed[:, :15].any()
    assert not nothing(before, now).any()


def test_flow_of_reduced_frames_is_in_pixels_of_the_frames() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (2, 16, 16, 3), np.uint8)
    before = np.zeros((2, 128, 128, 3), np.uint8)
    before[:, 32:96, 32:96] = coarse.repeat(4, axis=1).repeat(4, axis=2)
    moved = reduced(flow_named("dis"), 64)(before, np.roll(before, 6, axis=2))
    assert moved.shape == (2, 64, 64, 2)
    assert np.median(moved[:, 24:40, 24:40, 0]) == pytest.approx(6, abs=0.5)
    assert np.abs(np.median(moved[:, 24:40, 24:40, 1])) < 0.5


def test_frames_are_normalised_and_reduced_by_averaging() -> None:
    frames = torch.full((1, 8, 8, 3), 255.0)
    flow = torch.full((1, 8, 8, 2), 10.0)
    seen = prepared(frames, flow, 4)
    assert seen.shape == (1, 5, 4, 4)
    assert seen[0, :3, 0, 0].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-3)
    assert seen[0, 3:, 0, 0].tolist() == [0.5, 0.5]


def test_whole_grey_levels_of_averaged_frames_move_no_score() -> None:
    torch.manual_seed(0)
    gates, rng = Gates(GateConfig()).eval(), np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 128, 128, 3), np.uint8)
    still = torch.zeros(2, 64, 64, 2)
    with torch.inference_mode():
        exact, whole = (
            gates(prepared(torch.from_numpy(seen).float(), still, 64)[None]) for seen in (frames, averaged(frames, 64))
        )
    assert torch.allclose(exact[0], whole[0], atol=3e-3)
    assert torch.allclose(exact[1], whole[1], atol=3e-3)


def test_gates_that_are_told_the_instruction_depend_on_it() -> None:
    torch.manual_seed(0)
    config = GateConfig(flow="none", px=32, widths=(8, 16, 16), hidden=16, text_width=32)
    gates, seen = Gates(config), torch.randn(1, 2, 5, 32, 32)
    one, other = (gates(seen, torch.randn(1, 4, 32)) for _ in range(2))
    assert not torch.allclose(one[0], other[0])
    assert sum(weight.numel() for weight in Gates(GateConfig()).parameters()) < 300_000
