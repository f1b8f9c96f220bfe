"""Small random checkpoints in the layouts in which OpenVLA, OpenVLA-OFT and CogACT are published, and a small world.

File names, keys, config fields and the split into shards are the published ones; only widths and depths are smaller.
Nothing here knows the adapters: keys and shapes are written down once more, from the projects' code.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from vla_bench.types import Task

DINO = {"width": 32, "hidden": 64, "depth": 4, "class": True, "registers": 4, "scaled": True}
SIGLIP = {"width": 48, "hidden": 96, "depth": 3, "class": False, "registers": 0, "scaled": False}
WIDTH, HIDDEN, LAYERS, HEADS, VOCABULARY = 64, 96, 4, 4, 32064
EPS = 1e-6
CAMERAS = ("agentview", "robot0_eye_in_hand")
TASK = Task("libero-spatial@1", 0, "drawer", "Open the drawer", horizon=8, n_initial_states=5, dataset="libero_spatial")
SENTENCES = ("open the drawer", "Put the bowl on the plate", "turn on the stove")

STATISTICS = {
    "libero_spatial": {
        "action": {
            "q01": [-0.75, -0.66, -0.94, -0.1, -0.16, -0.15, 0.0],
            "q99": [0.94, 0.82, 0.94, 0.13, 0.17, 0.34, 1.0],
            "mask": [True] * 6 + [False],
        },
        "proprio": {
            "q01": [-0.3, -0.3, 0.9, 2.0, -1.0, -0.9, 0.001, -0.04],
            "q99": [0.1, 0.3, 1.3, 3.3, 1.0, 0.7, 0.04, 0.0],
        },
        "num_transitions": 52970,
        "num_trajectories": 432,
    }
}


def block(prefix: str, tower: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    wide, hidden = tower["width"], tower["hidden"]
    for name, shape in (
        ("norm1", (wide,)), ("attn.qkv", (3 * wide, wide)), ("attn.proj", (wide, wide)), ("norm2", (wide,)),
        ("mlp.fc1", (hidden, wide)), ("mlp.fc2", (wide, hidden)),
    ):  # fmt: skip
        yield f"{prefix}{name}.weight", shape
        yield f"{prefix}{name}.bias", shape[:1]
    if tower["scaled"]:
        yield f"{prefix}ls1.scale_factor", (wide,)
        yield f"{prefix}ls2.scale_factor", (wide,)


def tower_shapes(prefix: str, tower: dict[str, Any], grid: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    wide = tower["width"]
    if tower["class"]:
        yield f"{prefix}cls_token", (1, 1, wide)
        yield f"{prefix}reg_token", (1, tower["registers"], wide)
    yield f"{prefix}pos_embed", (1, grid**2, wide)
    yield f"{prefix}patch_embed.proj.weight", (wide, 3, 14, 14)
    yield f"{prefix}patch_embed.proj.bias", (wide,)
    for index in range(tower["depth"]):
        yield from block(f"{prefix}blocks.{index}.", tower)
    yield f"{prefix}norm.weight", (wide,)
    yield f"{prefix}norm.bias", (wide,)
    if not tower["class"]:  # SigLIP's pooling, which is in the files and not in the forward
        for name, shape in (
            ("q", (wide, wide)),
            ("kv", (2 * wide, wide)),
            ("proj", (wide, wide)),
            ("norm", (wide,)),
            ("mlp.fc1", (tower["hidden"], wide)),
            ("mlp.fc2", (wide, tower["hidden"])),
        ):
            yield f"{prefix}attn_pool.{name}.weight", shape
            yield f"{prefix}attn_pool.{name}.bias", shape[:1]
        yield f"{prefix}attn_pool.latent", (1, 1, wide)


def shapes(grid: int = 16) -> dict[str, tuple[int, ...]]:
    """Every tensor of a small OpenVLA."""
    features = DINO["width"] + SIGLIP["width"]
    found = dict(tower_shapes("vision_backbone.featurizer.", DINO, grid))
    found |= dict(tower_shapes("vision_backbone.fused_featurizer.", SIGLIP, grid))
    for name, shape in (("fc1", (4 * features, features)), ("fc2", (WIDTH, 4 * features)), ("fc3", (WIDTH, WIDTH))):
        found[f"projector.{name}.weight"], found[f"projector.{name}.bias"] = shape, shape[:1]
    found["language_model.model.embed_tokens.weight"] = (VOCABULARY, WIDTH)
    for index in range(LAYERS):
        layer = f"language_model.model.layers.{index}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            found[f"{layer}self_attn.{name}.weight"] = (WIDTH, WIDTH)
        found[f"{layer}mlp.gate_proj.weight"] = found[f"{layer}mlp.up_proj.weight"] = (HIDDEN, WIDTH)
        found[f"{layer}mlp.down_proj.weight"] = (WIDTH, HIDDEN)
        found[f"{layer}input_layernorm.weight"] = found[f"{layer}post_attention_layernorm.weight"] = (WIDTH,)
    found["language_model.model.norm.weight"] = (WIDTH,)
    found["language_model.lm_head.weight"] = (VOCABULARY, WIDTH)
    return found


def random_tensors(wanted: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Values large enough that every weight matters: nothing hides behind a zero, a one or an even attention."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in wanted.items():
        noise = torch.randn(shape, generator=draw)
        if "norm" in name and name.endswith("weight"):
            found[name] = 1 + 0.2 * noise
        elif len(shape) == 1:
            found[name] = 0.1 * noise if name.endswith("bias") else 0.5 + 0.2 * noise
        elif name.endswith(("pos_embed", "cls_token", "reg_token", "embed_tokens.weight", "latent")):
            found[name] = noise
        else:
            found[name] = 1.5 * noise / np.prod(shape[1:]) ** 0.5
    if "language_model.lm_head.weight" in found:  # most of the likeliest tokens shall be actions, as in a trained model
        head = found["language_model.lm_head.weight"]
        head[:31744] *= 0.2
        head[32000:] *= 0.2
    return found


def write_config(folder: Path, **changes: Any) -> None:
    config = {
        "arch_specifier": "no-align+fused-gelu-mlp",
        "architectures": ["OpenVLAForActionPrediction"],
        "auto_map": {"AutoModelForVision2Seq": "modeling_prismatic.OpenVLAForActionPrediction"},
        "hf_llm_id": "meta-llama/Llama-2-7b-hf",
        "image_resize_strategy": "resize-naive",
        "image_sizes": [224, 224],
        "llm_backbone_id": "llama2-7b-pure",
        "llm_max_length": 2048,
        "model_type": "openvla",
        "n_action_bins": 256,
        "norm_stats": {"bridge_orig": STATISTICS["libero_spatial"]},
        "pad_to_multiple_of": 64,
        "pad_token_id": 32000,
        "text_config": {
            "model_type": "llama", "pad_token_id": 32000, "torch_dtype": "bfloat16", "vocab_size": VOCABULARY,
            "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        },
        "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
        "timm_override_act_layers": [None, None],
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.1",
        "use_fused_vision_backbone": True,
        "vision_backbone_id": "dinosiglip-vit-so-224px",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | changes))


def write_preprocessor(folder: Path, **changes: Any) -> None:
    """The image processor as the conversion wrote it: exact colours, and the ones that bfloat16 left of them."""
    means, stds = [[0.485, 0.456, 0.406], [0.5] * 3], [[0.229, 0.224, 0.225], [0.5] * 3]
    config = {
        "image_processor_type": "PrismaticImageProcessor",
        "processor_class": "PrismaticProcessor",
        "image_resize_strategy": "resize-naive",
        "input_sizes": [[3, 224, 224], [3, 224, 224]],
        "interpolations": ["bicubic", "bicubic"],
        "means": means,
        "stds": stds,
        "tvf_normalize_params": [
            {
                "inplace": False,
                "mean": torch.tensor(mean).bfloat16().tolist(),
                "std": torch.tensor(std).bfloat16().tolist(),
            }
            for mean, std in zip(means, stds, strict=True)
        ],
        "use_fused_vision_backbone": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config | changes))


def write_tokenizer(folder: Path) -> None:
    """Words instead of Llama's pieces; the ids that matter, 0 to 2, are Llama's."""
    text = "In : What action should the robot take to ? Out a open drawer put bowl on plate turn stove"
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {word: 300 + 7 * index for index, word in enumerate(text.split())}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))


def write_shards(folder: Path, tensors: dict[str, Tensor], n_shards: int = 3) -> None:
    """Consecutive tensors a file, with the index that `save_pretrained` writes."""
    names = list(tensors)
    parts = np.array_split(names, n_shards)
    index = {"metadata": {"total_size": sum(one.nbytes for one in tensors.values())}, "weight_map": {}}
    for number, part in enumerate(parts, start=1):
        file = f"model-{number:05}-of-{n_shards:05}.safetensors"
        save_file({str(name): tensors[str(name)].contiguous() for name in part}, folder / file, {"format": "pt"})
        index["weight_map"] |= {str(name): file for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def save_openvla(
    folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, grid: int = 16, **config: Any
) -> dict[str, Tensor]:
    """Write a small OpenVLA, fine-tuned on libero-spatial, and return its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: one.to(dtype) for name, one in random_tensors(shapes(grid), seed).items()}
    write_config(folder, image_sizes=[14 * grid] * 2, **config)
    write_preprocessor(folder)
    write_tokenizer(folder)
    (folder / "dataset_statistics.json").write_text(json.dumps(STATISTICS))
    write_shards(folder, tensors)
    return tensors


def head_shapes() -> dict[str, tuple[int, ...]]:
    """The action head of OpenVLA-OFT."""
    found = {"model.layer_norm1": (7 * WIDTH,), "model.layer_norm2": (WIDTH,), "model.fc1": (WIDTH, 7 * WIDTH)}
    for index in range(2):
        found[f"model.mlp_resnet_blocks.{index}.ffn.0"] = (WIDTH,)
        found[f"model.mlp_resnet_blocks.{index}.ffn.1"] = (WIDTH, WIDTH)
    return {f"{name}.weight": shape for name, shape in (found | {"model.fc2": (7, WIDTH)}).items()}


def with_biases(weights: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return weights | {name.replace("weight", "bias"): shape[:1] for name, shape in weights.items()}


def save_oft(folder: Path, seed: int = 0, grid: int = 16, film: bool = False) -> dict[str, Tensor]:
    """Write a small OpenVLA-OFT and return its tensors, those of the heads under `action_head.` and `proprio.`."""
    tensors = save_openvla(folder, seed, grid=grid)
    (folder / "dataset_statistics.json").write_text(
        json.dumps({"libero_spatial_no_noops": STATISTICS["libero_spatial"]})
    )
    head = random_tensors(with_biases(head_shapes()), seed + 1)
    head["model.fc2.weight"] *= 0.3  # within the limits of an action
    state = random_tensors(with_biases({"fc1.weight": (WIDTH, 8), "fc2.weight": (WIDTH, WIDTH)}), seed + 2)
    torch.save({f"module.{name}": one for name, one in head.items()}, folder / "action_head--150000_checkpoint.pt")
    torch.save(state, folder / "proprio_projector--150000_checkpoint.pt")
    if film:
        tensors = tensors | save_film(folder, tensors)
    return (
        tensors
        | {f"action_head.{name}": one for name, one in head.items()}
        | {f"proprio.{name}": one for name, one in state.items()}
    )


def save_film(folder: Path, tensors: dict[str, Tensor], rank: int = 32) -> dict[str, Tensor]:
    """Write towers wrapped for FiLM, matrices apart from their low-rank updates; return what they amount to."""
    draw = torch.Generator().manual_seed(9)
    saved, amount = {}, {}
    for name, one in tensors.items():
        if not name.startswith("vision_backbone."):
            continue
        parts = name.split(".")
        wrapped = [*parts[:4], "block", *parts[4:]] if parts[2] == "blocks" else parts
        if any(part in name for part in ("qkv", ".proj.", "fc1", "fc2")) and "patch_embed" not in name:
            if parts[-1] == "weight":
                down = torch.randn(rank, one.shape[1], generator=draw) / one.shape[1] ** 0.5
                up = 0.1 * torch.randn(one.shape[0], rank, generator=draw)
                stem = ".".join(wrapped[:-1])
                saved |= {f"{stem}.lora_A.default.weight": down, f"{stem}.lora_B.default.weight": up}
                amount[name] = one + up @ down * 16 / rank
            wrapped = [*wrapped[:-1], "base_layer", wrapped[-1]]
        saved[".".join(wrapped)] = one
    for tower, shape in (("featurizer", DINO), ("fused_featurizer", SIGLIP)):
        for index in range(shape["depth"]):
            for kind in ("scale", "shift"):
                name = f"vision_backbone.{tower}.blocks.{index}.{kind}"
                saved[f"{name}.weight"] = 0.3 * torch.randn(shape["width"], WIDTH, generator=draw) / WIDTH**0.5
                saved[f"{name}.bias"] = 0.1 * torch.randn(shape["width"], generator=draw)
                amount |= {f"{name}.{part}": saved[f"{name}.{part}"] for part in ("weight", "bias")}
    torch.save(saved, folder / "vision_backbone--100000_checkpoint.pt")
    return amount


def action_model_shapes(width: int = 32, blocks: int = 6) -> dict[str, tuple[int, ...]]:
    """The smallest action model of CogACT, narrower."""
    found = {
        "x_embedder.linear": (width, 7), "history_embedder.linear": (width, 7), "z_embedder.linear": (width, WIDTH),
        "t_embedder.mlp.0": (width, 256), "t_embedder.mlp.2": (width, width), "final_layer.linear": (7, width),
    }  # fmt: skip
    for index in range(blocks):
        block = f"blocks.{index}."
        found |= {f"{block}attn.qkv": (3 * width, width), f"{block}attn.proj": (width, width)}
        found |= {f"{block}mlp.fc1": (4 * width, width), f"{block}mlp.fc2": (width, 4 * width)}
    found = with_biases({f"net.{name}.weight": shape for name, shape in found.items()})
    return found | {"net.positional_embedding": (17, width), "net.z_embedder.uncondition": (1, WIDTH)}


def save_cogact(folder: Path, seed: int = 0, grid: int = 16) -> dict[str, Tensor]:
    """Write a small CogACT as training does and return its tensors under the converted names."""
    (folder / "checkpoints").mkdir(parents=True)
    tensors, action_model = random_tensors(shapes(grid), seed), random_tensors(action_model_shapes(), seed + 1)
    parts: dict[str, dict[str, Tensor]] = {"vision_backbone": {}, "projector": {}, "llm_backbone": {}}
    for name, one in tensors.items():
        part, _, rest = name.partition(".")
        if part == "vision_backbone":
            rest = rest.replace("fused_featurizer.", "siglip_featurizer.").replace("scale_factor", "gamma")
            parts[part][rest if rest.startswith("siglip") else f"dino_{rest}"] = one
        elif part == "projector":
            layer, _, kind = rest.partition(".")
            parts[part][f"projector.{2 * int(layer[2:]) - 2}.{kind}"] = one
        else:
            parts["llm_backbone"][f"llm.{rest}"] = one
    torch.save({"model": parts | {"action_model": action_model}}, folder / "checkpoints" / "CogACT-Base.pt")
    vla = {"type": "prism-dinosiglip-224px+oxe+diffusion", "base_vlm": "prism-dinosiglip-224px+7b"}
    (folder / "config.json").write_text(json.dumps({"vla": vla}))
    both = dict.fromkeys(("bridge_orig", "fractal20220817_data"), STATISTICS["libero_spatial"])
    (folder / "dataset_statistics.json").write_text(json.dumps(both))
    write_tokenizer(folder)
    return tensors | {f"action_model.{name}": one for name, one in action_model.items()}


def picture(rng: np.random.Generator, px: int = 256) -> np.ndarray:
    """Soft clouds with hard-edged boxes on them."""
    coarse = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    found = np.kron(coarse, np.ones((px // 8, px // 8, 1), np.uint8)) // 2 + rng.integers(0, 90, (px, px, 3), np.uint8)
    for _ in range(4):
        top, left = rng.integers(0, px - 40, 2)
        found[top : top + 40, left : left + 30] = rng.integers(0, 256, 3)
    return found


def observation(seed: int, px: int = 256) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    views = {camera: picture(rng, px) for camera in CAMERAS}
    state = rng.normal(0, 0.5, 8).astype(np.float32)
    return {**views, "proprio": state, "instruction": SENTENCES[seed % len(SENTENCES)]}


class PublishedEnv(gymnasium.Env):
    """Two cameras, in which boxes wander; nothing can be achieved."""

    metadata = {"render_modes": []}

    def __init__(self, px: int = 256) -> None:
        box = spaces.Box(0, 255, (px, px, 3), np.uint8)
        self.px = px
        self.observation_space = spaces.Dict(
            dict.fromkeys(CAMERAS, box)
            | {"proprio": spaces.Box(-9, 9, (8,), np.float32), "instruction": spaces.Text(40)}
        )
        self.action_space = spaces.Box(-1, 1, (7,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        rng = np.random.default_rng((options or {}).get("init_state", 0))
        self._ground = {camera: picture(rng, self.px) for camera in CAMERAS}
        self._place, self._state, self._n_steps = np.array([20.0, 20.0]), np.zeros(8, np.float32), 0
        return self._observe(), {"success": False, "init_state_sha256": 64 * "0"}

    def step(self, action):
        self._n_steps += 1
        self._state[:7] = np.clip(self._state[:7] + 0.05 * np.asarray(action, np.float32), -5, 5)
        self._place = (self._place + 9 * np.clip(action, -1, 1)[:2] + (5.3, 3.1)) % (self.px - 40)
        return self._observe(), 0.0, False, self._n_steps >= TASK.horizon, {"success": False}

    def _observe(self):
        views = {camera: ground.copy() for camera, ground in self._ground.items()}
        top, left = self._place.astype(int)
        for view in views.values():
            view[top : top + 40, left : left + 40] = (200, 30, 90)
        return {**views, "proprio": self._state.copy(), "instruction": TASK.instruction}
