"""Every token method keeps the contract of a method, and does what its paper says."""

import pkgutil
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pictures import SMALL, TASK, PictureEnv, save_checkpoint
from toy import ToyPolicy

from vla_bench import registry
from vla_bench.contestant import Contestant
from vla_bench.errors import OptionError
from vla_bench.policy import Division
from vla_bench.protocol import Protocol
from vla_bench.rollout import run_episode
from vla_bench.testing import check_method
from vla_bench.types import Cell, Outcome
from vla_bench_policies import methods
from vla_bench_policies.methods import sparsevlm, specprune, vla_cache, vla_pruner
from vla_bench_policies.reference.policy import AutoregressivePolicy, ReferencePolicy
from vla_bench_policies.token_cache import patches, stream
from vla_bench_policies.token_cache.attention import attention_of
from vla_bench_policies.token_cache.clock import StageClock
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.method import NoTokenRowsError, TokenMethod, written
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Inside

EXACT = {
    "full-eager": None,
    "random:0.6": "random:0",
    "pixel-difference:0.6": "pixel-difference:0",
    "feature-difference:0.6": "feature-difference:0",
    "attention-topk:0.5": "attention-topk:1",
    "fixed-grid:0.5": "fixed-grid:1",
    "keyframe:2": "keyframe:1",
    "vla-cache:0.996": "vla-cache:1.1",
    "fastv:0.5": "fastv:0",
    "sparsevlm:1.0": "sparsevlm:6",
    "vla-adp:0.75": "vla-adp:1",
    "vla-pruner:0.5": "vla-pruner:1",
    "specprune:0.2": "specprune:1,precise=1",
    "random:0.8+refresh:2": "random:0.8+refresh:1",
    "vla-cache:0.996+refresh:3": "vla-cache:0.9+refresh:1",
    "random:0.8+rotate:2": "random:0.8+rotate:1",
    "vla-cache:0.9+rotate:8": "vla-cache:0.9+rotate:1",
    "random:0.8+still:3": "random:0.8+still:1000000",
    "vla-cache:0.996+still:3": "vla-cache:0.9+still:1000000",
    "pixel-difference:0.6+action-reuse:2": "pixel-difference:0+action-reuse:1",
}
"""Methods, and the setting of each at which it must change no action."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_checkpoint(tmp_path_factory.mktemp("weights") / "small.safetensors"))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def play(policy, n_steps: int = 12, seed: int = 0) -> list:
    """The answers of a policy, of whose chunks one action each is applied."""
    env = PictureEnv()
    obs, _ = env.reset(options={"init_state": 1})
    policy.reset(TASK, seed)
    answers = []
    for _ in range(n_steps):
        answers.append(policy.act(obs))
        obs, *_ = env.step(answers[-1].actions[0])
    return answers


def test_every_method_of_the_package_is_tested_here() -> None:
    tested = {part.partition(":")[0] for spec in EXACT for part in spec.split("+")}
    shipped = {module.name.replace("_", "-") for module in pkgutil.iter_modules(methods.__path__)}
    assert tested == shipped - {"full", "lac", "vla-acl"}  # the learned ones: test_lac_training.py, test_acl.py


@pytest.mark.parametrize("spec", EXACT)
def test_a_method_keeps_its_contract_and_changes_no_action_at_its_exact_setting(spec: str, weights: str) -> None:
    exact = EXACT[spec] and registry.method(EXACT[spec])
    check_method(registry.method(spec), lambda: ReferencePolicy(weights), PictureEnv(), TASK, exact)


@pytest.mark.parametrize("spec", ["random:0.6", "fastv:0.5", "vla-cache:0.99", "keyframe:3", "vla-pruner", "specprune"])
def test_methods_work_on_the_autoregressive_head_too(spec: str, weights: str) -> None:
    full, cheaper = (
        play(method.apply(AutoregressivePolicy(weights))) for method in map(registry.method, ("full", spec))
    )
    assert sum(answer.cache["effective"] for answer in cheaper) > 0.1
    assert all(answer.cache["effective"] == 0 for answer in full)


@pytest.mark.parametrize("spec", [spec for spec in EXACT if "eager" not in spec and "action-reuse" not in spec])
def test_a_method_saves_rows_and_changes_the_answer(spec: str, weights: str) -> None:
    policy = registry.method(spec).apply(ReferencePolicy(weights))
    full, answers = play(ReferencePolicy(weights)), play(policy)
    assert max(answer.cache["effective"] for answer in answers) > 0.05
    assert any(not np.array_equal(one.actions, other.actions) for one, other in zip(full, answers, strict=True))
    remembers = any(answer.cache["rows_reused"] for answer in answers)
    assert registry.division(registry.method(spec)) is (Division.TEMPORAL_CACHE if remembers else Division.LOSSY)


@pytest.mark.parametrize("spec", [spec for spec in EXACT if "action-reuse" not in spec])
def test_who_reads_attention_of_the_forward_says_so(spec: str, weights: str) -> None:
    rule = registry.method(spec).apply(ReferencePolicy(weights)).rule
    reads = bool(rule.watched(RowLayout(2, 16, 5, 8), 8))
    assert rule.provenance == ("self" if reads else "clean")


def test_eager_attention_answers_as_fused_attention_does(weights: str) -> None:
    full = play(ReferencePolicy(weights))
    eager = play(registry.method("full-eager").apply(ReferencePolicy(weights)))
    for one, other in zip(full, eager, strict=True):
        np.testing.assert_allclose(one.actions, other.actions, atol=1e-4)


@pytest.mark.parametrize(("spec", "share"), [
    ("random:0.6", 0.6), ("random:0.9", 0.9), ("pixel-difference:0.25", 0.25), ("keyframe:100", 1.0),
])  # fmt: skip
def test_a_reuse_method_leaves_out_its_share(spec: str, share: float, weights: str) -> None:
    first, *others = [answer.cache for answer in play(registry.method(spec).apply(ReferencePolicy(weights)))]
    assert (first["full_because"], first["effective"]) == ("first", 0.0)
    n_visual = SMALL.n_visual
    for found in others:
        assert found["nominal"] == found["effective"] == int(share * n_visual) / n_visual
        assert found["rows_reused"] == int(share * n_visual)
        assert found["rows_deleted"] == 0
        assert sum(found["age_counts"]) == found["rows_reused"]


def test_a_refresh_bounds_ages_and_is_full(weights: str) -> None:
    policy = registry.method("keyframe:100+refresh:4").apply(ReferencePolicy(weights))
    found = [answer.cache for answer in play(policy)]
    assert [one["full_because"] for one in found] == ["first", "", "", "", "rule", "", "", "", "rule", "", "", ""]
    assert [one["age_max"] for one in found[:6]] == [0, 1, 2, 3, 0, 1]
    assert found[1]["rule"] == "keyframe:100+refresh:4"


def test_while_the_hand_stands_everything_is_computed(weights: str) -> None:
    policy = registry.method("keyframe:100+still:3").apply(ReferencePolicy(weights))
    obs, _ = PictureEnv().reset()
    policy.reset(TASK, 0)
    found = []
    for travelled_m in (0.0, 0.01, 0.02, 0.022, 0.026, 0.031):  # by 10, 10, 2, 4 and 5 mm
        obs["proprio"] = np.array([travelled_m, *[0.0] * 7], np.float64)
        found.append(policy.act(obs).cache)
    assert [one["full_because"] for one in found] == ["first", "rule", "", "rule", "", ""]  # nothing known, 10 mm, 2 mm
    assert [one["age_max"] for one in found] == [0, 0, 1, 0, 1, 2]
    assert found[2]["rule"] == "keyframe:100+still:3"
    with pytest.raises(OptionError, match=r"still: below-mm.*-1.*'lac\+still:3'"):
        registry.method("keyframe:2+still:-1")


def test_a_rotation_bounds_ages_and_costs_the_same_in_each_step(weights: str) -> None:
    policy = registry.method("keyframe:100+rotate:4").apply(ReferencePolicy(weights))
    first, *others = [answer.cache for answer in play(policy)]
    assert first["full_because"] == "first"
    assert [one["age_max"] for one in others] == [1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3]
    assert {one["effective"] for one in others} == {0.75}
    assert {one["nominal"] for one in others} == {1.0}
    assert others[0]["rule"] == "keyframe:100+rotate:4"


def test_a_rotation_brings_back_no_row_that_was_deleted(weights: str) -> None:
    plain, turned = (
        [answer.cache for answer in play(registry.method(spec).apply(ReferencePolicy(weights)))]
        for spec in ("fixed-grid:0.5", "fixed-grid:0.5+rotate:2")
    )
    assert [one["rows_deleted"] for one in turned] == [one["rows_deleted"] for one in plain]
    assert plain[1]["rows_deleted"] > 0


def test_another_seed_is_another_choice_and_the_same_seed_the_same(weights: str) -> None:
    policy = registry.method("random:0.6").apply(ReferencePolicy(weights))
    one, same, other = (play(policy, seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a.actions, b.actions) for a, b in zip(one, same, strict=True))
    assert any(not np.array_equal(a.actions, b.actions) for a, b in zip(one, other, strict=True))


def test_what_changes_is_recomputed_before_what_does_not() -> None:
    still = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    moved = still.copy()
    moved[1, 8:12, 4:8] ^= 255  # the patch in row 2, column 1 of the second view
    changed = patches.difference(*(patches.patches(frames, grid=8) for frames in (moved, still)))
    assert np.flatnonzero(changed).tolist() == [64 + 2 * 8 + 1]
    alike = patches.cosine_similarity(moved, still, grid=8)
    assert np.argmin(alike) == 64 + 17
    assert np.isclose(np.delete(alike, 64 + 17), 1).all()
    dark = np.zeros_like(still)
    assert (patches.cosine_similarity(dark, dark, 8) == 1).all()
    assert (patches.cosine_similarity(dark, still, 8) == 0).all()


def test_creeping_change_is_seen_only_against_the_frame_in_which_a_row_was_computed() -> None:
    """Rows 0 and 1 drift by 3 levels a step, the others flicker by 4: step by step the drift looks stiller."""
    ground = np.full((1, 16, 16, 3), 100, np.uint8)
    recomputed = {}
    for since in ("inference", "computed"):
        rule = registry.method(f"pixel-difference:0.9,since={since}").rule()
        ages = np.zeros((2, 16), int)
        reference, recomputed[since] = ground, set()
        for index in range(1, 7):
            frame = ground + np.uint8(4 * (index % 2))
            frame[:, :4, :8] = 100 + 3 * index
            step = SimpleNamespace(
                frames=frame, reference=reference, n_layers=2, layout=RowLayout(1, 16, 3, 8),
                just_computed=ages.max(axis=0) == 0, full=lambda: RowPlan.full(16, 2),
            )  # fmt: skip
            active = rule.plan(step).active(0)
            recomputed[since] |= set(np.flatnonzero(active).tolist())
            ages, reference = np.where(active, 0, ages + 1), frame
    assert not recomputed["inference"] & {0, 1}
    assert recomputed["computed"] >= {0, 1}
    with pytest.raises(OptionError, match="since"):
        registry.method("pixel-difference:0.5,since=yesterday")


def test_a_row_that_crept_away_from_what_the_cache_holds_is_computed_again() -> None:
    """Row 0 drifts by 1 an inference, the others jump to and fro by 2: from one to the next the drift looks stiller."""
    rule = registry.method("feature-difference:0.75").rule()
    ages, drifted = np.zeros((2, 4), int), []
    for index in range(5):
        visual = torch.full((4, 3), 2.0 * (index % 2))
        visual[0] = index
        step = SimpleNamespace(visual=visual, just_computed=ages.max(axis=0) == 0, full=lambda: RowPlan.full(4, 2))
        active = rule.plan(step).active(0)
        drifted.append(bool(active[0]))
        ages = np.where(active, 0, ages + 1)
    assert drifted[:2] == [True, False]
    assert any(drifted[2:])


def test_a_refresh_does_not_ask_the_rule_that_it_overrules_and_tells_it(weights: str) -> None:
    asked = []

    class Counting(CacheRule):
        def plan(self, step):
            asked.append(("plan", step.index))
            return step.full()

        def overruled(self, step):
            asked.append(("overruled", step.index))

    policy = ReferencePolicy(weights).with_rule(Counting(first_is_full=False))
    play(registry.method("refresh:3").apply(policy), 5)
    assert asked == [("overruled", 0), ("plan", 1), ("plan", 2), ("overruled", 3), ("plan", 4)]


def test_ties_go_to_the_lower_row() -> None:
    scores = np.array([1.0, 0.0, 0.0, 1.0])
    assert patches.lowest(scores, 3).tolist() == [1, 2, 0]
    assert patches.highest(scores, 3).tolist() == [0, 3, 1]


def test_fastv_deletes_what_the_last_prompt_row_looks_at_least(weights: str) -> None:
    answers = play(registry.method("fastv:0.75").apply(ReferencePolicy(weights)), 2)
    rows = [list(answer.cache["rows_per_layer"]) for answer in answers]
    n_rest = 1 + 3 + 1 + 8
    assert rows[0] == [SMALL.n_visual + n_rest, *[SMALL.n_visual // 4 + n_rest] * 3]
    assert rows[0] == rows[1]  # nothing is remembered


def test_vla_cache_reuses_more_where_attention_is_more_certain() -> None:
    np.testing.assert_allclose(vla_cache.growth_limited([4.0, 3.0, 2.0, 3.0]), [0.0, 0.275, 0.67375, 0.5])
    assert (vla_cache.growth_limited([2.0, 2.0]) == 1).all()


def test_vla_cache_reuses_nothing_that_moves(weights: str) -> None:
    found = [answer.cache for answer in play(registry.method("vla-cache").apply(ReferencePolicy(weights)))]
    assert all(one["provenance"] == "self" for one in found)
    still_share = 150 / 256
    assert 0 < max(one["rows_reused"] for one in found) <= still_share * SMALL.n_visual


def test_vla_pruner_is_full_for_three_steps(weights: str) -> None:
    found = [answer.cache for answer in play(registry.method("vla-pruner").apply(ReferencePolicy(weights)), 6)]
    assert [one["rows_deleted"] > 0 for one in found] == [False, False, False, True, True, True]
    assert found[-1]["rows_deleted"] == SMALL.n_visual // 2


def test_vla_pruner_reads_the_whole_prompt_and_keeps_what_acts() -> None:
    layout = RowLayout(2, 16, 5, 8)
    watched = registry.method("vla-pruner").rule().watched(layout, 32)
    assert {layer: rows.tolist() for layer, rows in watched.items()} == {
        2: list(range(layout.proprio + 1)), 15: list(range(layout.proprio, layout.n_rows))
    }  # fmt: skip


def test_vla_pruner_weighs_the_newest_step_most() -> None:
    layout, n_layers = RowLayout(1, 4, 1, 1), 32
    rule = registry.method("vla-pruner:0.25").rule()
    for row in (0, 1, 2):  # each step looks at another row; nothing but the memory tells them apart
        rule.looked.append(np.eye(4)[row])
    attention = {2: torch.zeros(layout.proprio + 1, layout.n_rows)}
    attention[2][:, layout.visual.start + 2] = 1
    visual = torch.eye(4)
    step = SimpleNamespace(layout=layout, visual=visual)
    plan, _ = rule.narrow(RowPlan.full(4, n_layers), step, Inside(3, attention, visual))
    assert np.flatnonzero(plan.visible(3)).tolist() == [2]


def test_spread_takes_one_of_each_kind_first() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0], [-1.0, 0.0]])
    picked = set(vla_pruner.spread(np.arange(5), features, 3).tolist())
    assert len(picked & {0, 1}) == len(picked & {2, 3}) == len(picked & {4}) == 1


def test_merged_rows_are_means_of_their_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.cat(
        [torch.randn(6, 4, generator=generator) * 0.01 + 9, torch.randn(6, 4, generator=generator) * 0.01]
    )
    merge = sparsevlm.merged(np.arange(12), hidden)
    assert len(merge.targets) == 2  # a tenth, and one more
    np.testing.assert_allclose(merge.weights.sum(axis=1), 1)
    halves = {tuple(np.flatnonzero(row)) for row in merge.weights}
    assert halves == {tuple(range(6)), tuple(range(6, 12))}


def test_equal_rows_still_make_full_clusters() -> None:
    merge = sparsevlm.merged(np.arange(24), torch.ones(24, 4))
    assert len(merge.targets) == 3
    np.testing.assert_allclose(merge.weights.sum(axis=1), 1)


def test_sparsevlm_ranks_by_the_published_layers_and_deletes_after_them() -> None:
    rule = registry.method("sparsevlm").rule()
    assert rule.narrows_at(32) == (3, 7, 16)
    assert sorted(rule.watched(RowLayout(2, 16, 5, 8), 32)) == [2, 6, 15]


def test_sparsevlm_merges_some_of_what_it_drops(weights: str) -> None:
    with_merge, without = (
        play(registry.method(spec).apply(ReferencePolicy(weights)), 1)[0].cache["rows_per_layer"]
        for spec in ("sparsevlm", "sparsevlm:1.0,recycled=0")
    )
    assert all(one >= other for one, other in zip(with_merge, without, strict=True))
    assert sum(with_merge) > sum(without)


def test_specprune_keeps_rows_of_each_view_for_both_layers_and_what_moved() -> None:
    layout = RowLayout(2, 16, 3, 4)
    still = np.random.default_rng(0).integers(1, 255, (2, 16, 16, 3), dtype=np.uint8)
    frames = still.copy()
    frames[1, :4, :4] ^= 255  # row 16
    step = SimpleNamespace(layout=layout, n_layers=4, frames=frames, reference=still, full=lambda: RowPlan.full(32, 4))
    step.proprio, step.attention = np.zeros(3), {2: read(layout, 0, 17)}
    rule = registry.method("specprune:0.0625").rule()  # one row of 16
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(specprune, "MOST_STILL", (1.0, 1.0))
        plan = rule.plan(step)
    assert np.flatnonzero(rule.kept).tolist() == [0, 16, 17]
    early, _ = rule.narrow(plan, step, Inside(1, {0: read(layout, 1, 2, 3, 18, 19, 20)}, None))
    assert np.flatnonzero(early.visible(1)).tolist() == [0, 1, 2, 3, 16, 17, 18, 19, 20]
    late, _ = rule.narrow(early, step, Inside(2, {1: read(layout, 3, 20, 31)}, None))
    assert np.flatnonzero(late.visible(2)).tolist() == [0, 1, 3, 16, 17, 18, 20]


def test_specprune_lets_only_the_most_similar_rows_of_a_view_be_still() -> None:
    frames = np.full((1, 64, 64, 3), 9, np.uint8)
    step = SimpleNamespace(layout=RowLayout(1, 256, 1, 1), frames=frames, reference=frames)
    assert [int(specprune.moved(step, share).sum()) for share in specprune.MOST_STILL] == [56, 36]


def read(layout: RowLayout, *rows: int) -> torch.Tensor:
    """The attention of three words that look at these visual rows, at the first ones most."""
    attention = torch.zeros(3, layout.n_rows)
    for rank, row in enumerate(rows):
        attention[:, layout.visual.start + row] = 1.0 - rank / 10
    return attention


def test_vla_adp_prunes_coarse_movements_and_not_more_than_three_in_a_row(weights: str) -> None:
    found = [
        answer.cache["rows_deleted"] > 0
        for answer in play(registry.method("vla-adp").apply(ReferencePolicy(weights)), 20)
    ]
    assert found[:3] == [False] * 3
    assert any(found)
    assert max(len(run) for run in "".join("x" if one else " " for one in found).split()) <= 3


@pytest.mark.parametrize("spec", [
    "random:1.2", "random:-0.1", "random:yes", "pixel-difference:2", "fixed-grid:7", "keyframe:0", "keyframe:1.5",
    "fastv:1.5", "attention-topk:3", "vla-adp:9", "vla-pruner:2", "specprune:2", "sparsevlm:9", "random:0.5+refresh:0",
    "random:0.5+rotate:0",
])  # fmt: skip
def test_a_setting_out_of_range_is_refused(spec: str) -> None:
    with pytest.raises(OptionError, match=r"expected"):
        registry.method(spec)


@pytest.mark.parametrize("spec", ["random:0.5", "refresh:3", "rotate:3"])
def test_a_policy_without_token_rows_is_refused_with_a_way_out(spec: str) -> None:
    with pytest.raises(NoTokenRowsError, match=r"'toy' has none that a cache could keep: .* such as 'reference'"):
        registry.method(spec).apply(ToyPolicy())


def test_two_policies_of_one_method_share_nothing(weights: str) -> None:
    method = registry.method("vla-pruner")
    policy = ReferencePolicy(weights)  # as in a run, where all methods have one
    one, other = method.apply(policy), method.apply(policy)
    play(one, 5)
    assert play(other, 1)[0].cache["rows_deleted"] == 0
    assert one.rule is not other.rule


def test_a_rule_that_raises_ends_the_act_loudly_and_the_next_step_is_full(weights: str) -> None:
    class Broken(TokenMethod):
        NAME = "broken"

    policy = registry.method("random:0.6").apply(ReferencePolicy(weights))
    play(policy, 3)
    policy.rule.plan = lambda step: 1 / 0
    env = PictureEnv()
    obs, _ = env.reset()
    with pytest.raises(ZeroDivisionError):
        policy.act(obs)
    del policy.rule.plan
    assert policy.act(obs).cache["full_because"] == "first"


def test_stage_times_add_up_to_the_policy_time_and_name_the_gate(weights: str) -> None:
    contestant = Contestant("vla-cache", registry.method("vla-cache").apply(ReferencePolicy(weights)))
    obs, _ = PictureEnv().reset()
    contestant.policy.reset(TASK, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answers = [contestant.ask(obs, list(obs)) for _ in range(12)]
    stages = answers[-1].chunk.stages_ms
    assert list(stages) == ["preprocess", "vision", "prefill", "gate", "postprocess"]
    assert all(ms >= 0 for ms in stages.values())
    left_out = [1 - sum(answer.chunk.stages_ms.values()) / answer.policy_ms for answer in answers]
    assert abs(np.median(left_out)) < 0.05


def test_attention_that_a_rule_has_read_is_the_gates_time(weights: str, monkeypatch) -> None:
    def slow(*arguments):
        time.sleep(0.02)
        return attention_of(*arguments)

    monkeypatch.setattr(stream, "attention_of", slow)
    for answer in play(registry.method("fastv:0.5").apply(ReferencePolicy(weights)), 2):
        assert answer.stages_ms["gate"] >= 20


def test_a_stage_within_a_stage_is_counted_once() -> None:
    clock = StageClock(torch.device("cpu"))
    with clock.stage("outer"):
        time.sleep(0.01)
        for _ in range(2):
            with clock.stage("inner"):
                time.sleep(0.02)
    laps = clock.laps_ms()
    assert list(laps) == ["outer", "inner"]
    assert 40 <= laps["inner"] < 60
    assert 10 <= laps["outer"] < 30


def test_answering_rows_are_text_first() -> None:
    layout = RowLayout(2, 16, 5, 8)
    assert layout.answering()[:5].tolist() == list(range(layout.text.start, layout.text.stop))


def test_an_episode_in_which_a_rule_raises_is_an_error_and_the_next_one_is_whole(weights: str) -> None:
    class Raising(CacheRule):
        fails = True

        def plan(self, step):
            if self.fails and step.index == 2:
                raise ZeroDivisionError("the gate is stuck")
            return super().plan(step)

    protocol = Protocol("pictures", SMALL.cameras, 32, False, settle_steps=0, settle_action=(), control_hz=20)
    rule = Raising()
    contestant = Contestant("raising", ReferencePolicy(weights, execute=4).with_rule(rule))
    record = run_episode(PictureEnv(), contestant, TASK, Cell(0, 0, 0), protocol)
    assert record.outcome is Outcome.ERROR
    assert record.error == "ZeroDivisionError: the gate is stuck"
    assert len(record.queries) == 2
    rule.fails = False
    record = run_episode(PictureEnv(), contestant, TASK, Cell(0, 1, 0), protocol)
    assert record.outcome is Outcome.TIMEOUT
    assert record.queries[0].cache["full_because"] == "first"


@pytest.mark.parametrize("spec", ["full", "random:0.6", "fastv:0.5", "vla-cache", "keyframe:3+refresh:4"])
@pytest.mark.parametrize("kind", [ReferencePolicy, AutoregressivePolicy])
def test_policies_that_share_weights_answer_together_as_each_would_alone(spec: str, kind: type, weights: str) -> None:
    """Seats begin at different times, drop out, come back and hold different instructions."""
    base, method = kind(weights), registry.method(spec)
    attending = [[0], [0, 1], [2, 0, 1], [0, 2], [1, 2], [0, 1, 2], [2, 1, 0], [1]]
    sentences = ["open the drawer", "close the drawer", "open the top drawer"]
    worlds = []
    for seat in range(3):
        env = PictureEnv()
        worlds.append((env, env.reset(options={"init_state": seat})[0]))
    seats, alone = ([method.apply(base.seat()) for _ in range(3)] for _ in "ab")
    for policy in (*seats, *alone):
        policy.reset(TASK, seats.index(policy) if policy in seats else alone.index(policy))
    for present in attending:
        shown = [worlds[seat][1] | {"instruction": sentences[seat]} for seat in present]
        together = base.act_together([seats[seat] for seat in present], shown)
        for seat, obs, answer in zip(present, shown, together, strict=True):
            single = alone[seat].act(obs)
            np.testing.assert_allclose(answer.actions, single.actions, rtol=0, atol=1e-5)
            assert answer.cache | {"decoder_bytes": 0} == single.cache | {"decoder_bytes": 0}
            assert answer.rows_computed == single.rows_computed
            assert answer.flops >= single.flops  # under one mask with others, what they see is multiplied, too
            assert answer.cache["decoder_bytes"] >= single.cache["decoder_bytes"]
            env = worlds[seat][0]
            worlds[seat] = (env, env.step(single.actions[0])[0])


@pytest.mark.parametrize("spec", ["lac:balanced,ratio=0.2", "pixel-difference:0.6,since=computed", "random:0.4"])
def test_a_name_is_the_specification_that_was_given(spec: str) -> None:
    assert registry.method(spec).name == spec


@pytest.mark.parametrize("value", ["a,b", "x=1", "0.5", "None", "a+b"])
def test_words_that_would_be_read_as_something_else_keep_their_quotes(value: str) -> None:
    assert written(value) == repr(value)
