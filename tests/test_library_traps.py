"""Three ways in which transformers is silently wrong about scattered rows: still there, and not on the cache's way.

Each test shows the trap first. If a release of the library closes one, that part fails, and this page says what to look
at again: `token_cache/decoder.py` goes around all three by an attention of its own.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_token_cache import HEADS, LAYERS, LAYOUT, WIDTH, Given, N, dense, of_transformers, play, rows
from torch import Tensor
from torch.nn import functional as F

from vla_bench_policies.token_cache import stream
from vla_bench_policies.token_cache.cache import TokenCache
from vla_bench_policies.token_cache.decoder import ModuleStack
from vla_bench_policies.token_cache.plan import RowPlan

KEPT = torch.arange(N) % 3 == 0
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def heads(n_rows: int, seed: int) -> Tensor:
    return torch.randn(1, HEADS, n_rows, WIDTH // HEADS, generator=torch.Generator().manual_seed(seed))


def answers(plan: RowPlan) -> tuple[Tensor, Tensor]:
    """What the cache makes of a Llama in a partial step, and the plainly written scheme."""
    xs = [rows(1), rows(2)]
    found = play(TokenCache(ModuleStack(of_transformers("Llama")), [Given(plans=[plan])]), xs)[-1]
    return found.double(), dense(of_transformers("Llama"), xs, [RowPlan.full(N, LAYERS), plan])[-1]


def test_without_a_mask_the_library_looks_at_the_first_keys_only() -> None:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    query, key, value = heads(3, 1), heads(7, 2), heads(7, 3)
    module = SimpleNamespace(is_causal=True, num_key_value_groups=1)
    found, _ = sdpa_attention_forward(module, query, key, value, None)
    first = F.scaled_dot_product_attention(query, key[:, :, :3], value[:, :, :3], is_causal=True)
    torch.testing.assert_close(found.transpose(1, 2), first)

    reusing, deleting = (
        act(RowPlan.full(N, LAYERS), ~KEPT.numpy()) for act in (RowPlan.reuse, RowPlan.delete)
    )  # the second one leaves no key that is not a query, and so no mask
    for plan in (reusing, deleting):
        torch.testing.assert_close(*answers(plan), **CLOSE)


def test_the_library_adds_a_boolean_mask_to_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama.modeling_llama import eager_attention_forward

    query, key, value = heads(3, 1), heads(7, 2), heads(7, 3)
    mask = torch.arange(7)[None] <= torch.tensor([1, 4, 6])[:, None]
    module = SimpleNamespace(num_key_value_groups=1, training=False)
    found, _ = eager_attention_forward(module, query, key, value, mask[None, None], scaling=1.0)
    expected = (query @ key.transpose(-1, -2) + mask).softmax(dim=-1) @ value
    torch.testing.assert_close(found.transpose(1, 2), expected)

    asked = []
    plainly = stream.attended_eagerly

    def watched(query: Tensor, key: Tensor, value: Tensor, mask: Any, causal: bool) -> Tensor:
        asked.append(mask)
        return plainly(query, key, value, mask, causal)

    monkeypatch.setattr(stream, "attended_eagerly", watched)
    plan = RowPlan.full(N, LAYERS).reuse(~KEPT.numpy())
    xs = [rows(1), rows(2)]
    eager = TokenCache(ModuleStack(of_transformers("Llama")), [Given(plans=[plan], eager=True)])
    torch.testing.assert_close(play(eager, xs)[-1].double(), answers(plan)[1], **CLOSE)
    masks = [mask for mask in asked if mask is not None]
    assert len(masks) == LAYERS  # of the second step
    assert all(mask.is_floating_point() and (mask == -torch.inf).any() for mask in masks)


def test_a_static_cache_of_the_library_ignores_where_rows_belong() -> None:
    from transformers.cache_utils import StaticLayer

    layer = StaticLayer(max_cache_len=LAYOUT.n_rows)
    asked = torch.tensor([9, 3, 2, 1])
    keys, _ = layer.update(heads(4, 1), heads(4, 2), cache_position=asked)
    torch.testing.assert_close(keys[:, :, :4], heads(4, 1))
    assert not keys[:, :, asked[0]].any()

    plan = RowPlan.full(N, LAYERS).reuse(~KEPT.numpy())
    xs, model = [rows(1), rows(2)], of_transformers("Llama")
    cache = TokenCache(ModuleStack(model), [Given(plans=[plan])])
    play(cache, xs)
    assert cache._buffer is not None
    found, _ = cache._buffer.all_rows(0)
    with torch.no_grad():
        projected = [model.layers[0].self_attn.k_proj(model.layers[0].input_layernorm(x)) for x in xs]
    age = torch.zeros(LAYOUT.n_rows, dtype=torch.long)
    age[1 : 1 + N][~KEPT] = 1
    norms = torch.stack([key.unflatten(-1, (2, -1)).norm(dim=-1)[0] for key in reversed(projected)])  # (age, row, head)
    expected = norms[age, torch.arange(LAYOUT.n_rows)]  # a rotation changes no length
    torch.testing.assert_close(found[0].norm(dim=-1).T, expected)
