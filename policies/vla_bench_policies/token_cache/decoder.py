"""Decoder layers that the cache can drive one by one: packed Llama weights, or any Llama-family module as it is."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vla_bench.errors import VlaBenchError
from vla_bench_policies.token_cache.cost import LayerCost

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What a layer calls once it has rotated queries (b, heads, q, w), rotated keys and values (b, kv_heads, q, w): the
cache keeps keys and values, and returns what the queries have seen (b, heads, q, w)."""

Product = Callable[[Tensor], Tensor]
"""Rows (*n, in) to rows (*n, out), by a weight of its own."""

MOST_POSITIONS = 4096
"""Rows for which rotations are kept; Llama-2's own limit."""

MATRICES = (*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down")))
"""Of a Llama layer: queries, keys and values first."""

ROWS_ATTENTION = "vla_bench_rows"
"""Name under which `transformers` knows the attention that asks the cache."""


class UnfitDecoderError(VlaBenchError):
    """Refuse a module whose layers the cache cannot drive."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"the decoder {found}; the token cache expects {expected}: use another back-end")


class DecoderStack(Protocol):
    """Layers from embedded rows to hidden states; the cache decides which rows, and what they see."""

    @property
    def n_layers(self) -> int:
        """Return the number of layers."""
        ...

    @property
    def kv_heads(self) -> int:
        """Return the number of key/value heads."""
        ...

    @property
    def head_width(self) -> int:
        """Return the width of a head."""
        ...

    @property
    def cost(self) -> LayerCost:
        """Return what a layer costs; all are alike."""
        ...

    def rotation(self, positions: Int[Tensor, "b q"], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of the rotary embedding (b, q, head_width)."""
        ...

    def layer(
        self,
        index: int,
        x: Float[Tensor, "b q d"],
        rotation: tuple[Tensor, Tensor],
        attend: Attend,
        n_wanted: int | None = None,
    ) -> Float[Tensor, "b wanted d"]:
        """Return the last `n_wanted` rows after one layer, or all; of the others keys and values are kept."""
        ...

    def norm(self, x: Float[Tensor, "b q d"]) -> Float[Tensor, "b q d"]:
        """Return the hidden states after the last norm."""
        ...

    def project(self, index: int, x: Float[Tensor, "q d"]) -> tuple[Tensor, Tensor]:
        """Return a layer's queries (heads, q, w) and keys (kv_heads, q, w) for its input, before their rotation."""
        ...


class WeightSource(Protocol):
    """Weights of a decoder under the names of `transformers.LlamaModel`, each taken once."""

    def names(self) -> Iterable[str]:
        """Return the names of all."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one without taking it."""
        ...

    def take(self, name: str) -> Tensor:
        """Return one, on the device of its layer, and forget it."""
        ...


class PackedLlama:
    """A Llama decoder with fused projections and, on a CPU, weights in the layout that its matrix kernels want.

    Takes any module with the parameter names of `transformers.LlamaModel`; weights are copied, the module stays as it
    is. Of a dictionary or a source of such weights one layer is taken at a time, so that a large decoder is never there
    twice. Packed products keep their speed down to a few rows, plain ones do not. Layers may be on several devices:
    rows go to a layer's and come back, attention stays where the rows are.
    """

    def __init__(
        self,
        module: nn.Module | dict[str, Tensor] | WeightSource,
        heads: int,
        kv_heads: int,
        rope_theta: float,
        eps: float,
        packed: bool = True,
        product: Callable[[Tensor], Product] | None = None,
        product_bits: float = 0,
    ) -> None:
        """Copy or take over the weights.

        Args:
            module: Has `layers.i.self_attn.{q,k,v,o}_proj`, `layers.i.mlp.{gate,up,down}_proj`,
                `layers.i.{input,post_attention}_layernorm` and `norm`; a dictionary is empty afterwards.
            heads: Query heads.
            kv_heads: Key and value heads.
            rope_theta: Base of the rotary frequencies.
            eps: Of the norms.
            packed: Whether to pack weights on a CPU; torch's counter of operations does not see packed products, and no
                gradient goes through them.
            product: Makes of a weight (out, in) its product with rows, such as a quantised one, instead.
            product_bits: Of a weight as that product stores it, scales included; 0 if it keeps the weight's own type.

        Raises:
            UnfitDecoderError: If a parameter is missing, or there is one that this decoder has no place for.
        """
        source = _source(module)
        names = set(source.names())
        self.n_layers = 1 + max(int(name.split(".")[1]) for name in names if name.startswith("layers."))
        _check_names(names, self.n_layers)
        self.heads, self.kv_heads, self._eps = heads, kv_heads, eps
        self.head_width = source.shape("layers.0.self_attn.q_proj.weight")[0] // heads
        sizes = [math.prod(source.shape(f"layers.0.{part}.weight")) for part in MATRICES]
        make = product or (lambda weight: _linear(weight, packed))
        self._layers = [_PackedLayer(source, f"layers.{index}.", make) for index in range(self.n_layers)]
        self._final = source.take("norm.weight").clone()
        entry_bytes = self._final.element_size()
        self.cost = LayerCost(
            weights=sum(sizes), projections=sum(sizes[:3]), width=heads * self.head_width,
            weight_bytes=round(sum(sizes) * (product_bits / 8 or entry_bytes)),
            row_bytes=2 * kv_heads * self.head_width * entry_bytes, trims=True,
        )  # fmt: skip
        self._cosine, self._sine = _turns(self.head_width, rope_theta, self._final)

    def rotation(self, positions: Int[Tensor, "b q"], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine; the sine's first half is negative, as `_rotated` wants it."""
        return self._cosine[positions], self._sine[positions]

    def layer(
        self,
        index: int,
        x: Float[Tensor, "b q d"],
        rotation: tuple[Tensor, Tensor],
        attend: Attend,
        n_wanted: int | None = None,
    ) -> Float[Tensor, "b wanted d"]:
        """Return the last `n_wanted` rows after one layer, or all."""
        weights, home = self._layers[index], x.device
        batch, n_rows, _ = x.shape
        first = 0 if n_wanted is None else n_rows - n_wanted
        x = x.to(weights.device)
        fused = weights.qkv(F.rms_norm(x, (x.shape[-1],), weights.norm_in, self._eps)).to(home)
        fused = fused.view(batch, n_rows, self.heads + 2 * self.kv_heads, self.head_width).transpose(1, 2)
        both = self.heads + self.kv_heads
        turned = _rotated(fused[:, :both], rotation)
        seen = attend(turned[:, : self.heads, first:], turned[:, self.heads :], fused[:, both:])
        x = x[:, first:] + weights.out(seen.transpose(1, 2).reshape(batch, n_rows - first, -1).to(weights.device))
        gate, up = weights.gate_up(F.rms_norm(x, (x.shape[-1],), weights.norm_out, self._eps)).chunk(2, dim=-1)
        return (x + weights.down(F.silu(gate) * up)).to(home)

    def norm(self, x: Float[Tensor, "b q d"]) -> Float[Tensor, "b q d"]:
        """Return the hidden states after the last norm."""
        return F.rms_norm(x, (x.shape[-1],), self._final, self._eps)

    def project(self, index: int, x: Float[Tensor, "q d"]) -> tuple[Tensor, Tensor]:
        """Return a layer's queries and keys before their rotation."""
        weights, there = self._layers[index], x.to(self._layers[index].device)
        fused = weights.qkv(F.rms_norm(there, (x.shape[-1],), weights.norm_in, self._eps)).to(x.device)
        fused = fused.unflatten(-1, (-1, self.head_width)).transpose(0, 1)
        return fused[: self.heads], fused[self.heads : self.heads + self.kv_heads]


class _PackedLayer:
    """The weights of one layer."""

    def __init__(self, source: WeightSource, prefix: str, product: Callable[[Tensor], Product]) -> None:
        attention, network = f"{prefix}self_attn.", f"{prefix}mlp."
        self.qkv = product(torch.cat([source.take(f"{attention}{name}_proj.weight") for name in "qkv"]))
        self.out = product(source.take(f"{attention}o_proj.weight"))
        self.gate_up = product(torch.cat([source.take(f"{network}{name}_proj.weight") for name in ("gate", "up")]))
        self.down = product(source.take(f"{network}down_proj.weight"))
        self.norm_in = source.take(f"{prefix}input_layernorm.weight").clone()
        self.norm_out = source.take(f"{prefix}post_attention_layernorm.weight").clone()
        self.device = self.norm_in.device


class _Held:
    """Weights that are there already."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self._state = state

    def names(self) -> Iterable[str]:
        return self._state

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._state[name].shape)

    def take(self, name: str) -> Tensor:
        return self._state.pop(name)


def _source(module: nn.Module | dict[str, Tensor] | WeightSource) -> WeightSource:
    if isinstance(module, dict):
        return _Held(module)
    if isinstance(module, nn.Module):
        every = module.state_dict().items()
        return _Held({name: weight.detach() for name, weight in every if "embed_tokens" not in name})
    return module


def _linear(weight: Tensor, packed: bool) -> Product:
    """Return the product with a weight (out, in), packed once on a CPU."""
    weight = weight.contiguous()
    if not packed or weight.device.type != "cpu" or not _packs(weight.dtype):
        return lambda x: F.linear(x, weight)
    ordered = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, ordered, None, "none", [], "")


def _packs(dtype: torch.dtype) -> bool:
    """Return whether this processor has packed products in a type; not every one has them in half precision."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _turns(head_width: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and signed sine of every position (MOST_POSITIONS, head_width)."""
    steps = torch.arange(0, head_width, 2, device=like.device, dtype=torch.float32)
    positions = torch.arange(MOST_POSITIONS, device=like.device, dtype=torch.float32)
    angle = positions[:, None] * theta ** (-steps / head_width)
    cosine, sine = angle.cos(), angle.sin()
    return torch.cat((cosine, cosine), -1).to(like.dtype), torch.cat((-sine, sine), -1).to(like.dtype)


def _rotated(x: Float[Tensor, "b heads q w"], rotation: tuple[Tensor, Tensor]) -> Float[Tensor, "b heads q w"]:
    cosine, sine = rotation
    half = x.shape[-1] // 2
    return x * cosine[:, None] + torch.cat((x[..., half:], x[..., :half]), dim=-1) * sine[:, None]


def _check_names(found: set[str], n_layers: int) -> None:
    parts = (*MATRICES, "input_layernorm", "post_attention_layernorm")
    wanted = {f"layers.{index}.{part}.weight" for index in range(n_layers) for part in parts} | {"norm.weight"}
    if missing := sorted(wanted - found):
        raise UnfitDecoderError(f"has no parameter {missing[0]!r}", "Llama's parameters")
    if more := sorted(found - wanted):
        raise UnfitDecoderError(f"has a parameter {more[0]!r}", "Llama's parameters and no other")


class ModuleStack:
    """A decoder of `transformers` (Llama, Qwen2, Qwen3, Mistral and their kin), driven layer by layer and not patched.

    Its attention back-end becomes one that asks the cache, by the library's own `AttentionInterface`. So none of the
    library's caches and masks is in the way: a `StaticCache` would write scattered rows to the wrong places, a missing
    mask would cut the keys to the first rows, a boolean one would be added as 0 and 1 by the eager attention.
    """

    def __init__(self, model: Any) -> None:
        """Take a model such as `LlamaModel`, in evaluation mode; called as a whole it computes what it did before.

        Raises:
            UnfitDecoderError: If it lacks layers, norm or a rotary embedding, or has attention that slides.
        """
        for part in ("layers", "norm", "rotary_emb", "config"):
            if not hasattr(model, part):
                raise UnfitDecoderError(f"{type(model).__name__} has no {part!r}", "a text decoder of transformers")
        config = model.config
        if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
            raise UnfitDecoderError(f"{type(model).__name__} has sliding attention", "full attention in every layer")
        _register_attention()
        model.set_attn_implementation(ROWS_ATTENTION)
        self._model = model
        self.n_layers = len(model.layers)
        self.kv_heads = config.num_key_value_heads
        self.head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        attention = model.layers[0].self_attn
        self.cost = LayerCost(
            weights=sum(weight.numel() for weight in model.layers[0].parameters() if weight.ndim == 2),
            projections=attention.q_proj.weight.numel() + attention.k_proj.weight.numel(),
            width=config.num_attention_heads * self.head_width,
            weight_bytes=sum(weight.nbytes for weight in model.layers[0].parameters() if weight.ndim == 2),
            row_bytes=2 * self.kv_heads * self.head_width * attention.k_proj.weight.element_size(),
        )

    def rotation(self, positions: Int[Tensor, "b q"], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the model's own rotary embedding returns."""
        return self._model.rotary_emb(like, position_ids=positions)

    def layer(
        self,
        index: int,
        x: Float[Tensor, "b q d"],
        rotation: tuple[Tensor, Tensor],
        attend: Attend,
        n_wanted: int | None = None,
    ) -> Float[Tensor, "b wanted d"]:
        """Return the last `n_wanted` rows after one layer, or all; the module computes all of them."""
        done = self._model.layers[index](x, position_embeddings=rotation, ask_cache=attend)
        rows = done if isinstance(done, Tensor) else done[0]
        return rows if n_wanted is None else rows[:, -n_wanted:]

    def norm(self, x: Float[Tensor, "b q d"]) -> Float[Tensor, "b q d"]:
        """Return the hidden states after the last norm."""
        return self._model.norm(x)

    def project(self, index: int, x: Float[Tensor, "q d"]) -> tuple[Tensor, Tensor]:
        """Return a layer's queries and keys before their rotation, and before the norms that Qwen3 gives them."""
        layer = self._model.layers[index]
        normed, attention = layer.input_layernorm(x), layer.self_attn
        query, key = (
            projection(normed).unflatten(-1, (-1, self.head_width)).transpose(0, 1)
            for projection in (attention.q_proj, attention.k_proj)
        )
        return query, key


def _register_attention() -> None:
    """Make `ROWS_ATTENTION` known: the library's fused attention, unless a cache is to be asked."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        attend: Attend | None = options.pop("ask_cache", None)
        if attend is None:
            return sdpa_attention_forward(module, query, key, value, mask, **options)
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        seen = attend(query * (scaling * query.shape[-1] ** 0.5), key, value)
        return seen.transpose(1, 2).contiguous(), None

    AttentionInterface.register(ROWS_ATTENTION, attention)
    AttentionMaskInterface.register(ROWS_ATTENTION, sdpa_mask)
