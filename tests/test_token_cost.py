"""What a query is said to cost is what torch counts while it runs."""

import functools

import numpy as np
import pytest
import torch
from pictures import SMALL, TASK, PictureEnv, save_checkpoint
from test_token_methods import EXACT
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vla_bench import registry
from vla_bench.policy import Fate, Policy
from vla_bench_policies.lac.gates import GateConfig, Gates, gate_flops
from vla_bench_policies.lac.rule import LacRule
from vla_bench_policies.reference import policy as reference
from vla_bench_policies.token_cache.decoder import PackedLlama


@pytest.fixture
def weights(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """Torch counts no product with packed weights."""
    torch.set_num_threads(1)
    monkeypatch.setattr(reference, "PackedLlama", functools.partial(PackedLlama, packed=False))
    return str(save_checkpoint(tmp_path_factory.mktemp("weights") / "small.safetensors"))


def played(policy: Policy, n_queries: int = 6) -> list[tuple]:
    """Return the answers of a policy, each with the operations that torch has counted."""
    env = PictureEnv()
    obs, _ = env.reset(options={"init_state": 1})
    policy.reset(TASK, 0)
    answers = []
    for _ in range(n_queries):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            answers.append((policy.act(obs), counter.get_total_flops()))
        obs, *_ = env.step(answers[-1][0].actions[0])
    return answers


@pytest.mark.parametrize("spec", ["full", *EXACT])
def test_the_operations_of_a_query_are_those_that_torch_counts(spec: str, weights: str) -> None:
    for chunk, counted in played(registry.method(spec).apply(reference.ReferencePolicy(weights))):
        assert chunk.flops == counted


@pytest.mark.parametrize("spec", ["full", "random:0.6", "fastv:0.5"])
def test_so_are_those_of_an_autoregressive_answer(spec: str, weights: str) -> None:
    for chunk, counted in played(registry.method(spec).apply(reference.AutoregressivePolicy(weights))):
        assert chunk.flops == counted


def test_so_are_those_of_lac_gates_included(weights: str) -> None:
    rule = LacRule("lac", gates=Gates(GateConfig(flow="difference")).eval(), ratio=0.6)
    for chunk, counted in played(reference.ReferencePolicy(weights).with_rule(rule)):
        assert chunk.flops == counted
    assert gate_flops(GateConfig(), views=2) < 40e6


@pytest.mark.parametrize("make", [reference.ReferencePolicy, reference.AutoregressivePolicy])
def test_bytes_are_those_of_weights_once_a_pass_and_of_the_keys_that_rows_look_at(make, weights: str) -> None:
    policy = make(weights)
    (chunk, _), *_ = played(policy, 1)
    config = SMALL
    matrices = 4 * config.width**2 + 3 * config.width * config.hidden
    n_rows = 1 + config.n_visual + 3 + 1 + (config.chunk if policy.head == "oft" else config.action_size - 1)
    n_prompt = n_rows if policy.head == "oft" else n_rows - (config.action_size - 1)
    passes = [n_prompt] if policy.head == "oft" else [n_prompt, *[n_rows] * (config.action_size - 1)]
    values = config.layers * sum(matrices + 2 * config.width * n_keys for n_keys in passes)
    assert chunk.cache["decoder_bytes"] == 4 * values


def test_who_deletes_rows_reads_less_and_who_reuses_them_does_not(weights: str) -> None:
    full, deleting, reusing = (
        played(registry.method(spec).apply(reference.ReferencePolicy(weights)), 2)[-1][0].cache["decoder_bytes"]
        for spec in ("full", "fixed-grid:0.5", "random:0.5")
    )
    assert deleting < full == reusing


def test_fewer_rows_cost_fewer_operations(weights: str) -> None:
    spent = {
        spec: np.median(
            [chunk.flops for chunk, _ in played(registry.method(spec).apply(reference.ReferencePolicy(weights)))]
        )
        for spec in ("full", "random:0.4", "random:0.8", "fastv:0.5")
    }
    assert spent["random:0.8"] < spent["random:0.4"] < spent["full"]
    assert spent["fastv:0.5"] < spent["full"]


def test_the_fate_of_every_patch_is_told_by_camera(weights: str) -> None:
    policy = registry.method("random:0.5+refresh:3").apply(reference.ReferencePolicy(weights))
    chunks = [chunk for chunk, _ in played(policy)]
    for chunk in chunks:
        assert list(chunk.fates) == list(policy.cameras)
        assert {fates.shape for fates in chunk.fates.values()} == {(8, 8)}
    counts = [np.bincount(np.stack(list(chunk.fates.values())).ravel(), minlength=4) for chunk in chunks]
    assert counts[0].tolist() == [128, 0, 0, 0]
    assert counts[1].tolist() == [64, 0, 64, 0]
    refreshed = counts[3]  # the fourth inference is a full one
    assert refreshed[Fate.REUSED] == 0
    assert refreshed[Fate.REFRESHED] == chunks[3].cache["rows_refreshed"] > 0
    deleting = registry.method("fastv:0.5").apply(reference.ReferencePolicy(weights))
    assert (played(deleting)[1][0].fates[policy.cameras[0]] == Fate.DELETED).any()
