"""VLA-ACL, the learned rival: its soft selection is exact, it learns, and what it learns is what is used."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import SMALL, TASK, PictureEnv, save_checkpoint
from recordings import CAMERAS, write_dataset
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vla_bench import registry
from vla_bench.errors import OptionError
from vla_bench.testing import check_method
from vla_bench_policies.acl import command
from vla_bench_policies.acl.command import TrainAcl
from vla_bench_policies.acl.losses import FadingLosses, ScorerRecipe
from vla_bench_policies.acl.rule import AclRule, ScorerShapeError
from vla_bench_policies.acl.scorer import KIND, Scorer, ScorerConfig, scorer_flops
from vla_bench_policies.acl.selection import hard_top_k, soft_top_k
from vla_bench_policies.learned import checkpoint
from vla_bench_policies.learned.card import GatesCard
from vla_bench_policies.learned.checkpoint import ForeignNetworksError, Trained
from vla_bench_policies.learned.command import NETWORKS
from vla_bench_policies.learned.trainer import NetworkTrainer
from vla_bench_policies.learned.windows import Windows
from vla_bench_policies.reference import checkpoint as policies_on_disk
from vla_bench_policies.reference.decoder import NORM_EPS, ROPE_THETA
from vla_bench_policies.reference.model import ReferenceVLA
from vla_bench_policies.reference.policy import ReferencePolicy
from vla_bench_policies.reference.teaching import ReferenceReader, ReferenceTeacher
from vla_bench_policies.reference.training import frames
from vla_bench_policies.token_cache.cache import TokenCache
from vla_bench_policies.token_cache.decoder import PackedLlama
from vla_bench_policies.token_cache.lane import Seen

CONFIG = ScorerConfig(SMALL.width, SMALL.n_visual, width=16, layers=2, heads=2, keep=0.25)
RECIPE = ScorerRecipe(scorer=CONFIG, steps=80, batch=16, learning_rate=5e-3, warmup_steps=2, validate_every=80)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("recorded") / "squares")


@pytest.fixture(scope="module")
def data(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> frames.Demonstrations:
    return frames.load([dataset], CAMERAS, 32, tmp_path_factory.mktemp("cache"))


def made(data, weights: Path, directory: Path, recipe: ScorerRecipe = RECIPE) -> NetworkTrainer:
    policy = policies_on_disk.load(weights)
    torch.manual_seed(0)
    scorer = Scorer(recipe.scorer)
    losses = FadingLosses(recipe, scorer, ReferenceTeacher(policy.model))
    return NetworkTrainer(
        recipe, scorer, losses, Windows(data, ReferenceReader(policy), recipe), directory, {"policy": "p"}
    )


@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=40), st.integers(0, 40), st.sampled_from([0.05, 0.1, 0.7, 2.0])
)
@settings(max_examples=150, deadline=None)
def test_shares_sum_to_k_for_any_scores_and_keep_their_order(values: list[float], k: int, alpha: float) -> None:
    scores = torch.tensor(values, dtype=torch.float64)
    k = min(k, len(values))
    shares = soft_top_k(scores, k, alpha)
    assert float(shares.sum()) == pytest.approx(k, abs=1e-9 * max(1, k))
    assert bool(((shares >= 0) & (shares <= 1)).all())
    assert bool((shares[scores.argsort()].diff() >= 0).all())


def test_the_gradient_of_shares_is_exact_and_leaves_their_sum_alone() -> None:
    torch.manual_seed(0)
    scores = torch.randn(3, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: soft_top_k(s, 4, 0.5), scores)
    soft_top_k(scores, 4, 0.5).sum().backward()
    assert scores.grad is not None
    assert float(scores.grad.abs().max()) < 1e-12


def test_the_narrow_limit_is_the_hard_selection() -> None:
    scores = torch.tensor([[0.3, 2.0, -1.0, 0.9, 0.1]], dtype=torch.float64)
    assert hard_top_k(scores, 2).tolist() == [[0, 1, 0, 1, 0]]
    torch.testing.assert_close(soft_top_k(scores, 2, 1e-3), hard_top_k(scores, 2), rtol=0, atol=1e-6)
    assert hard_top_k(torch.zeros(1, 4), 2).tolist() == [[1, 1, 0, 0]]


def test_the_operations_of_the_scorer_are_those_that_torch_counts() -> None:
    for config in (CONFIG, ScorerConfig()):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it does not see the fused one
            Scorer(config)(torch.randn(1, config.n_rows, config.rows_width))
        assert scorer_flops(config) == counter.get_total_flops()
    assert scorer_flops(ScorerConfig()) < 100e6


def test_what_training_holds_out_is_what_the_token_cache_computes() -> None:
    torch.manual_seed(3)
    model = ReferenceVLA(SMALL).double().eval()
    for weight in model.decoder.parameters():
        weight.data *= 1.5
    teacher = ReferenceTeacher(copy.deepcopy(model))
    scorer = Scorer(CONFIG).double().eval()
    stack = PackedLlama(teacher.model.decoder, SMALL.heads, SMALL.heads, ROPE_THETA, NORM_EPS, packed=False)
    layout = model.layout(3)
    cache = TokenCache(stack, [AclRule(first_is_full=False, scorer=scorer)])
    for index in range(3):
        images = torch.rand(1, 2, 3, 32, 32, dtype=torch.float64) * 255
        rows = teacher.rows(images, torch.tensor([[4, 5, 6]]), torch.zeros(1, 8, dtype=torch.float64))
        stays = hard_top_k(scorer(rows[:, layout.visual]), CONFIG.k).flatten(1).bool()
        assert int(stays.sum()) == 2 * 16
        looked = teacher.look(rows, layout, shown=stays)
        seen = Seen(np.full((2, 4, 4, 3), index, np.uint8), np.zeros(8, np.float32), "open")
        tail = cache.step(rows, layout, [seen])
        torch.testing.assert_close(looked.answer, teacher.model.chunk_head(tail[:, -SMALL.chunk :]), rtol=0, atol=1e-10)


def test_a_scorer_learns_which_rows_the_policy_needs_and_the_policy_stays_as_it_is(data, weights, tmp_path) -> None:
    before = policies_on_disk.load(weights).sha256
    training = made(data, weights, tmp_path)
    first = training.validate()
    training.run()
    last = training.validate()
    assert last["held_out_distance"] < 0.9 * first["held_out_distance"]
    assert last["held_out_ratio"] == pytest.approx(0.75)
    assert policies_on_disk.load(weights).sha256 == before


def test_from_the_command_to_a_method_that_keeps_its_contract(dataset, weights, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(command, "ScorerRecipe", lambda **values: replace(RECIPE, **values))
    teaching = TrainAcl(
        (dataset,), policy=str(weights), out=tmp_path / "half", steps=3, threads=1, cache=tmp_path, keep=0.5
    )
    assert teaching.run() == 0
    path = tmp_path / "half" / NETWORKS
    assert checkpoint.load(path, KIND).network.config.keep == 0.5
    everything = Trained(KIND, Scorer(replace(CONFIG, keep=1.0)), policies_on_disk.load(weights).sha256)
    everything.save(tmp_path / "all.safetensors")
    exact = registry.method(f"vla-acl:{tmp_path / 'all.safetensors'}")
    check_method(registry.method(f"vla-acl:{path}"), lambda: ReferencePolicy(str(weights)), PictureEnv(), TASK, exact)

    policy = registry.method(f"vla-acl:{path}").apply(ReferencePolicy(str(weights)))
    obs, _ = PictureEnv().reset()
    policy.reset(TASK, 0)
    assert policy.act(obs).cache["effective"] == 0.5
    (tmp_path / "ships").mkdir()
    (tmp_path / "ships" / "half.safetensors").write_bytes(path.read_bytes())
    assert GatesCard("vla-acl", tmp_path / "ships").run() == 0
    card = (tmp_path / "ships" / "card.md").read_text()
    assert "# Networks of VLA-ACL" in card
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) == 2
    assert len(rows[0]) == len(rows[1])
    assert dict(zip(rows[0], rows[1], strict=True))["keep"] == "0.5"
    assert dict(zip(rows[0], rows[1], strict=True))["reused or deleted"] == "0.5000"
    for share in (0.001, 1.0):
        with pytest.raises(OptionError, match="--keep"):
            replace(teaching, out=tmp_path / "none", keep=share).run()


def test_a_scorer_of_another_policy_is_refused(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "scorer.safetensors"
    Trained(KIND, Scorer(CONFIG), "f" * 64).save(path)
    with pytest.raises(ForeignNetworksError, match="vla-bench train vla-acl"):
        registry.method(f"vla-acl:{path}").apply(ReferencePolicy(str(weights)))
    policy = ReferencePolicy(str(weights)).with_rule(AclRule(scorer=Scorer(replace(CONFIG, n_rows=64)).eval()))
    policy.reset(TASK, 0)
    obs, _ = PictureEnv().reset()
    policy.act(obs)
    with pytest.raises(ScorerShapeError, match="64 rows of 2 views, width 32, the policy has 128 rows"):
        policy.act(obs)
