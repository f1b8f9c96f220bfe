"""The same weights in an unmodified `transformers` model: the baseline of whoever loads a checkpoint and calls it."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vla_bench_policies.static.weights import LlamaWeights, WideMatrix


class StockLlama:
    """`transformers.LlamaModel` with fused attention and its growing cache; it shares the weights' memory."""

    def __init__(self, weights: LlamaWeights) -> None:
        """Hand over the weights as views."""
        from transformers import LlamaConfig, LlamaModel

        shape = weights.shape
        config = LlamaConfig(
            vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.hidden,
            num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
            rms_norm_eps=shape.eps,
        )  # fmt: skip
        config._attn_implementation = "sdpa"
        with torch.device("meta"):
            model = LlamaModel(config)
        model.load_state_dict(named(weights), assign=True)
        model.rotary_emb = type(model.rotary_emb)(config=config).to(weights.norm.device)
        self._model: Any = model.eval().requires_grad_(False)
        self._weights = weights

    @torch.no_grad()
    def one_pass(self, x: Float[Tensor, "rows d"], bidirectional: bool) -> Float[Tensor, "rows d"]:
        """Return the last states of all rows."""
        mask = x.new_zeros(1, 1, len(x), len(x)) if bidirectional else None
        return self._model(inputs_embeds=x[None], attention_mask=mask, use_cache=False).last_hidden_state[0]

    @torch.no_grad()
    def tokens(self, x: Float[Tensor, "rows d"], count: int) -> Int[Tensor, " count"]:
        """Return the likeliest tokens behind a prompt, without what `generate` costs on top of it."""
        found = self._model(inputs_embeds=x[None], use_cache=True)
        said = []
        while True:
            said.append((found.last_hidden_state[0, -1:] @ self._weights.scorer.t()).argmax(dim=-1))
            if len(said) == count:
                return torch.cat(said)
            word = self._weights.words[said[-1]][None]
            found = self._model(inputs_embeds=word, past_key_values=found.past_key_values, use_cache=True)


def named(weights: LlamaWeights) -> dict[str, Tensor]:
    """Return weights under the names of `transformers.LlamaModel`, fused ones as slices."""
    shape = weights.shape
    head_width = shape.width // shape.heads
    parts = [shape.width, shape.kv_heads * head_width, shape.kv_heads * head_width]
    state = {"embed_tokens.weight": weights.words, "norm.weight": weights.norm}
    for index, layer in enumerate(weights.layers):
        qkv, out, gate_up, down = (_wide(matrix) for matrix in layer.matrices)
        named = dict(zip(("q_proj", "k_proj", "v_proj"), qkv.split(parts), strict=True)) | {"o_proj": out}
        state |= {f"layers.{index}.self_attn.{name}.weight": part for name, part in named.items()}
        named = dict(zip(("gate_proj", "up_proj"), gate_up.chunk(2), strict=True)) | {"down_proj": down}
        state |= {f"layers.{index}.mlp.{name}.weight": part for name, part in named.items()}
        state[f"layers.{index}.input_layernorm.weight"] = layer.norm_in
        state[f"layers.{index}.post_attention_layernorm.weight"] = layer.norm_out
    return state


def _wide(matrix: object) -> Tensor:
    assert isinstance(matrix, WideMatrix)
    return matrix.weight
