"""Every method runs on every published policy by the same code, and where it should change nothing, it does not."""

from collections.abc import Callable
from functools import partial

import published
import pytest
import torch
from published import TASK, PublishedEnv
from test_token_methods import EXACT

from vla_bench import registry
from vla_bench.testing import check_method
from vla_bench_policies.openvla.cogact import CogActPolicy
from vla_bench_policies.openvla.oft import OpenVlaOftPolicy
from vla_bench_policies.openvla.policy import OpenVlaPolicy, TrunkPolicy
from vla_bench_policies.token_cache.rule import CacheRule

Made = dict[str, TrunkPolicy]
LOADED: dict[str, tuple[Callable, Callable[..., TrunkPolicy]]] = {
    "openvla": (published.save_openvla, OpenVlaPolicy),
    "openvla-oft": (published.save_oft, OpenVlaOftPolicy),
    "cogact": (published.save_cogact, partial(CogActPolicy, camera="agentview", steps=2)),
}
DELETING = {"attention-topk", "fastv", "fixed-grid", "sparsevlm", "specprune", "vla-adp", "vla-pruner"}
"""Methods that delete rows; the others reuse them, or none."""


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A small model of each kind that sees 56 px; its weights are shared by all that are made of it."""
    found: Made = {}
    for kind, (save, load) in LOADED.items():
        folder = tmp_path_factory.mktemp("weights") / kind
        save(folder, grid=4)
        found[kind] = load(str(folder), dtype="float32")
    return found


@pytest.mark.parametrize("spec", EXACT)
@pytest.mark.parametrize("kind", LOADED)
def test_every_method_keeps_its_contract_on_every_published_policy_and_is_exact_where_it_should_be(
    kind: str, spec: str, loaded: Made
) -> None:
    exact = EXACT[spec] and registry.method(EXACT[spec])
    check_method(registry.method(spec), lambda: loaded[kind].with_rule(CacheRule()), PublishedEnv(64), TASK, exact)


@pytest.mark.parametrize("spec", [spec for spec in EXACT if spec != "full-eager"])
@pytest.mark.parametrize("kind", LOADED)
def test_every_method_leaves_out_rows_of_every_published_policy(kind: str, spec: str, loaded: Made) -> None:
    policy, env = registry.method(spec).apply(loaded[kind].with_rule(CacheRule())), PublishedEnv(64)
    obs, _ = env.reset()
    policy.reset(TASK, 0)
    found = []
    for _ in range(8):
        answer = policy.act(obs)
        found.append(answer.cache)
        obs, *_ = env.step(answer.actions[0])
    assert max(one["effective"] for one in found) > 0
    assert any(one["rows_deleted"] for one in found) == (spec.partition(":")[0] in DELETING)
