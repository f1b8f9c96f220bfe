"""The published computation once more, written from the papers' code with transformers' own modules and none of ours.

DINOv2, SigLIP and Llama are `transformers` classes that are given the checkpoint's tensors; what is left (pictures,
projector, tokens, actions) is written plainly, slow and obvious.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from published import DINO, EPS, HEADS, HIDDEN, LAYERS, SIGLIP, STATISTICS, VOCABULARY, WIDTH
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from vla_bench_policies.openvla.jpeg import round_trip

SOURCE = {"DINOv2": "vision_backbone.featurizer.", "SigLIP": "vision_backbone.fused_featurizer."}
COLOURS = [((0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375)), ((0.5,) * 3, (0.5,) * 3)]
"""Mean and deviation as bfloat16 leaves them of 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225."""


def real_lanczos(pixels: np.ndarray, px: int = 224) -> np.ndarray:
    """Pillow's float filter, channel by channel: no rounding between the two directions."""
    channels = [Image.fromarray(pixels[..., c].astype(np.float32), mode="F") for c in range(3)]
    return np.stack([np.asarray(one.resize((px, px), Image.Resampling.LANCZOS)) for one in channels], axis=-1)


def real_crop(pixels: np.ndarray, px: int = 224) -> np.ndarray:
    """torch's sampler; corners are pixel centres, as in `tf.image.crop_and_resize`. In [0, 1]."""
    side = 0.9**0.5
    place = torch.linspace(-side, side, px, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(place, place, indexing="ij")[::-1], dim=-1)[None]
    whole = torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 255
    return F.grid_sample(whole, grid, mode="bilinear", align_corners=True)[0].permute(1, 2, 0).numpy()


def libero_picture(picture: np.ndarray, crop: bool = True) -> np.ndarray:
    """From the decoded JPEG on; the JPEG itself is held against the library's own in test_openvla_pictures.py."""
    shown = np.clip(np.round(real_lanczos(round_trip(picture))), 0, 255).astype(np.uint8)
    return np.floor(np.minimum(real_crop(shown) * 255.5, 255)).astype(np.uint8) if crop else shown


EXACT_COLOURS = [((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (0.5,) * 3)]


def pixel_values(shown: np.ndarray, colours: list = COLOURS) -> Tensor:
    """Six channels: the picture as DINOv2 and as SigLIP want it."""
    parts = []
    for mean, deviation in colours:
        parts += [(shown[..., c] / 255.0 - mean[c]) / deviation[c] for c in range(3)]
    return torch.from_numpy(np.stack(parts)).float()


class PublishedReference:
    """From pictures and a sentence to seven tokens and seven numbers."""

    def __init__(self, folder: Path, tensors: dict[str, Tensor], heads: int = HEADS, eps: float = EPS) -> None:
        self.tensors, self._heads, self._eps = tensors, heads, eps
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self.dino, self.siglip, self.llama = self._dino(), self._siglip(), self._llama()

    def features(self, pixels: Tensor) -> Tensor:
        """Of every patch, what comes out of the last block but one."""
        first = self.dino(pixels[None, :3], output_hidden_states=True).hidden_states[DINO["depth"] - 1]
        second = self.siglip(pixels[None, 3:], output_hidden_states=True).hidden_states[SIGLIP["depth"] - 1]
        return torch.cat((first[:, 1 + DINO["registers"] :], second), dim=2)

    def visual(self, pixels: Tensor) -> Tensor:
        x = self.features(pixels)
        for name in ("fc1", "fc2", "fc3"):
            x = x @ self.tensors[f"projector.{name}.weight"].T + self.tensors[f"projector.{name}.bias"]
            x = F.gelu(x) if name != "fc3" else x
        return x

    def prompt_ids(self, instruction: str) -> list[int]:
        asked = f"In: What action should the robot take to {instruction.lower()}?\nOut:"
        return [*self.tokenizer(asked).input_ids, 29871]

    def rows(self, pictures: list[np.ndarray], ids: list[int], between: tuple[Tensor, ...] = ()) -> Tensor:
        words = self.tensors["language_model.model.embed_tokens.weight"][torch.tensor([ids])]
        visual = [self.visual(pixel_values(shown)) for shown in pictures]
        return torch.cat((words[:, :1], *visual, *between, words[:, 1:]), dim=1)

    def tokens(self, shown: np.ndarray, instruction: str) -> list[int]:
        """Seven greedy tokens for a prepared picture, by the library's own `generate`."""
        x = self.rows([shown], self.prompt_ids(instruction))
        seen = torch.ones(x.shape[:2], dtype=torch.long)
        found = self.llama.generate(
            inputs_embeds=x, attention_mask=seen, max_new_tokens=7, min_new_tokens=7, do_sample=False
        )
        return found[0].tolist()

    def action(self, tokens: list[int], key: str = "libero_spatial") -> list[float]:
        """What LIBERO is given: bins, quantiles, gripper, one entry after the other."""
        stats, found = STATISTICS[key]["action"], []
        for token, low, high, scaled in zip(tokens, stats["q01"], stats["q99"], stats["mask"], strict=True):
            bin_number = min(max(32000 - token - 1, 0), 254)
            value = -1 + (2 * bin_number + 1) / 255
            found.append(0.5 * (value + 1) * (high - low) + low if scaled else value)
        found[6] = -1.0 if 2 * found[6] - 1 > 0 else 1.0
        return [min(max(entry, -1.0), 1.0) for entry in found]

    def hidden(self, x: Tensor, bidirectional: bool = False) -> Tensor:
        """The last hidden states of all rows, after the norm."""
        n_rows = x.shape[1]
        blocked = torch.full((n_rows, n_rows), float("-inf")).triu(1)
        mask = torch.zeros(n_rows, n_rows) if bidirectional else blocked
        return self.llama.model(inputs_embeds=x, attention_mask=mask[None, None]).last_hidden_state

    def chunk(self, views: list[np.ndarray], instruction: str, proprio: np.ndarray) -> np.ndarray:
        """OpenVLA-OFT's eight actions for two prepared pictures."""
        stats = STATISTICS["libero_spatial"]
        low, high = (np.array(stats["proprio"][name]) for name in ("q01", "q99"))
        state = torch.from_numpy(np.clip(2 * (proprio - low) / (high - low + 1e-8) - 1, -1, 1)).float()
        state = F.gelu(state @ self.tensors["proprio.fc1.weight"].T + self.tensors["proprio.fc1.bias"])
        state = state @ self.tensors["proprio.fc2.weight"].T + self.tensors["proprio.fc2.bias"]
        x = self.rows(views, self.prompt_ids(instruction), (state[None, None],))
        n_prompt = x.shape[1]
        stop = self.tensors["language_model.model.embed_tokens.weight"][2]
        x = torch.cat((x, torch.zeros(1, 56, WIDTH), stop[None, None]), dim=1)
        hidden = self.hidden(x, bidirectional=True)[0, n_prompt - 1 : n_prompt - 1 + 56]
        actions = []
        for rows in hidden.view(8, 7 * WIDTH):
            y = torch.relu(self._head_linear("fc1", self._head_norm("layer_norm1", rows)))
            for index in range(2):
                block = f"mlp_resnet_blocks.{index}.ffn"
                y = y + torch.relu(self._head_linear(f"{block}.1", self._head_norm(f"{block}.0", y)))
            actions.append(self._head_linear("fc2", self._head_norm("layer_norm2", y)).double().numpy())
        low, high = (np.array(stats["action"][name]) for name in ("q01", "q99"))
        found = np.array(actions)
        found[:, :6] = (0.5 * (found + 1) * (high - low + 1e-8) + low)[:, :6]
        found[:, 6] = -np.sign(2 * found[:, 6] - 1)
        return np.clip(found, -1, 1)

    def cognition(self, pixels: Tensor, instruction: str) -> Tensor:
        """CogACT's condition (1, width): the last hidden state of the token that ends the prompt."""
        words = self.tensors["language_model.model.embed_tokens.weight"][[*self.prompt_ids(instruction), 2]][None]
        x = torch.cat((words[:, :1], self.visual(pixels), words[:, 1:]), dim=1)
        return self.hidden(x)[:, -1]

    def diffused(self, condition: Tensor, noise: Tensor, guidance: float = 1.5, n_steps: int = 10) -> np.ndarray:
        """CogACT's normalised actions (16, 7): DDIM, written from its definition with betas and products of alphas."""

        def cosine(t: float) -> float:
            return np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2

        betas = [min(1 - cosine((t + 1) / 100) / cosine(t / 100), 0.999) for t in range(100)]
        alphas_product = [float(np.prod([1 - beta for beta in betas[: t + 1]])) for t in range(100)]
        x, nothing = noise[0], self.tensors["action_model.net.z_embedder.uncondition"]
        times = list(range(0, 100, 100 // n_steps))
        for place, t in reversed(list(enumerate(times))):
            product = alphas_product[t]
            before = alphas_product[times[place - 1]] if place > 0 else 1.0
            told, untold = (self.noise_in(x, t, given) for given in (condition, nothing))
            found = untold + guidance * (told - untold)
            clean = (x - (1 - product) ** 0.5 * found) / product**0.5
            x = before**0.5 * clean + (1 - before) ** 0.5 * found
        return x.double().numpy()

    def noise_in(self, x: Tensor, t: int, condition: Tensor) -> Tensor:
        """One call of the diffusion transformer, one actions' sequence at a time."""
        frequency = 10000 ** (-torch.arange(128) / 128)
        y = torch.cat((torch.cos(t * frequency), torch.sin(t * frequency)))[None]
        y = self._net("t_embedder.mlp.2", F.silu(self._net("t_embedder.mlp.0", y)))
        rows = torch.cat((y + self._net("z_embedder.linear", condition), self._net("x_embedder.linear", x)))
        rows = rows + self.tensors["action_model.net.positional_embedding"]
        wide = rows.shape[1]
        for index in range(6):
            query, key, value = self._net(f"blocks.{index}.attn.qkv", _plain_norm(rows)).chunk(3, dim=1)
            heads = []
            for head in range(4):
                columns = slice(head * wide // 4, (head + 1) * wide // 4)
                weights = (query[:, columns] @ key[:, columns].T / (wide / 4) ** 0.5).softmax(dim=1)
                heads.append(weights @ value[:, columns])
            rows = rows + self._net(f"blocks.{index}.attn.proj", torch.cat(heads, dim=1))
            inner = F.gelu(self._net(f"blocks.{index}.mlp.fc1", _plain_norm(rows)), approximate="tanh")
            rows = rows + self._net(f"blocks.{index}.mlp.fc2", inner)
        return self._net("final_layer.linear", _plain_norm(rows))[1:]

    def _net(self, name: str, x: Tensor) -> Tensor:
        return x @ self.tensors[f"action_model.net.{name}.weight"].T + self.tensors[f"action_model.net.{name}.bias"]

    def _head_linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.tensors[f"action_head.model.{name}.weight"].T + self.tensors[f"action_head.model.{name}.bias"]

    def _head_norm(self, name: str, x: Tensor) -> Tensor:
        scaled = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
        return (
            scaled * self.tensors[f"action_head.model.{name}.weight"] + self.tensors[f"action_head.model.{name}.bias"]
        )

    def _dino(self) -> torch.nn.Module:
        wide = DINO["width"]
        config = Dinov2WithRegistersConfig(
            hidden_size=wide, num_hidden_layers=DINO["depth"], num_attention_heads=16, image_size=224, patch_size=14,
            mlp_ratio=DINO["hidden"] // wide, num_register_tokens=DINO["registers"], layer_norm_eps=1e-6,
            hidden_act="gelu", attn_implementation="eager",
        )  # fmt: skip
        own = self._under(SOURCE["DINOv2"])
        state = {
            "embeddings.cls_token": own["cls_token"],
            "embeddings.mask_token": torch.zeros(1, wide),
            "embeddings.register_tokens": own["reg_token"],
            "embeddings.position_embeddings": torch.cat((torch.zeros(1, 1, wide), own["pos_embed"]), dim=1),
            "embeddings.patch_embeddings.projection.weight": own["patch_embed.proj.weight"],
            "embeddings.patch_embeddings.projection.bias": own["patch_embed.proj.bias"],
            "layernorm.weight": own["norm.weight"],
            "layernorm.bias": own["norm.bias"],
        }
        for index in range(DINO["depth"]):
            ours, theirs = f"blocks.{index}.", f"encoder.layer.{index}."
            for kind in ("weight", "bias"):
                for part, name in zip(own[f"{ours}attn.qkv.{kind}"].chunk(3), "qkv", strict=True):
                    state[f"{theirs}attention.{name}_proj.{kind}"] = part
                for before, after in (
                    ("attn.proj", "attention.o_proj"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2"),
                    ("norm1", "norm1"), ("norm2", "norm2"),
                ):  # fmt: skip
                    state[f"{theirs}{after}.{kind}"] = own[f"{ours}{before}.{kind}"]
            state[f"{theirs}layer_scale1.lambda1"] = own[f"{ours}ls1.scale_factor"]
            state[f"{theirs}layer_scale2.lambda1"] = own[f"{ours}ls2.scale_factor"]
        return _given(Dinov2WithRegistersModel(config), state)

    def _siglip(self) -> torch.nn.Module:
        config = SiglipVisionConfig(
            hidden_size=SIGLIP["width"], intermediate_size=SIGLIP["hidden"], num_hidden_layers=SIGLIP["depth"],
            num_attention_heads=16, image_size=224, patch_size=14, layer_norm_eps=1e-6, hidden_act="gelu",
            attn_implementation="eager", vision_use_head=False,
        )  # fmt: skip
        own = self._under(SOURCE["SigLIP"])
        state = {
            "embeddings.patch_embedding.weight": own["patch_embed.proj.weight"],
            "embeddings.patch_embedding.bias": own["patch_embed.proj.bias"],
            "embeddings.position_embedding.weight": own["pos_embed"][0],
            "post_layernorm.weight": own["norm.weight"],
            "post_layernorm.bias": own["norm.bias"],
        }
        for index in range(SIGLIP["depth"]):
            ours, theirs = f"blocks.{index}.", f"encoder.layers.{index}."
            for kind in ("weight", "bias"):
                for part, name in zip(own[f"{ours}attn.qkv.{kind}"].chunk(3), "qkv", strict=True):
                    state[f"{theirs}self_attn.{name}_proj.{kind}"] = part
                for before, after in (
                    ("attn.proj", "self_attn.out_proj"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2"),
                    ("norm1", "layer_norm1"), ("norm2", "layer_norm2"),
                ):  # fmt: skip
                    state[f"{theirs}{after}.{kind}"] = own[f"{ours}{before}.{kind}"]
        return _given(SiglipVisionModel(config), state)

    def _llama(self) -> LlamaForCausalLM:
        config = LlamaConfig(
            hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=self._heads,
            num_key_value_heads=self._heads, vocab_size=VOCABULARY, rms_norm_eps=self._eps, attn_implementation="eager",
            pad_token_id=32000, tie_word_embeddings=False,
        )  # fmt: skip
        return _given(LlamaForCausalLM(config), self._under("language_model."))

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): one.float() for name, one in self.tensors.items() if name.startswith(prefix)}


def _plain_norm(x: Tensor) -> Tensor:
    return (x - x.mean(dim=1, keepdim=True)) / (x.var(dim=1, unbiased=False, keepdim=True) + 1e-6).sqrt()


def _given(module: torch.nn.Module, state: dict[str, Tensor]) -> torch.nn.Module:
    known = set(module.state_dict())
    nested = {
        next((full for full in known if full == name or full.endswith(f".{name}")), name): one
        for name, one in state.items()
    }
    module.load_state_dict(nested)
    return module.eval().requires_grad_(False)
