"""LeRobot checkpoints, loaded by LeRobot itself and then checked: it goes on silently where it should stop."""

import hashlib
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from vla_bench.errors import OptionError, VlaBenchError
from vla_bench_policies.lerobot.adapter import Keys, LeRobotPolicy

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
"""Where a checkpoint keeps its normalisation since lerobot 0.4. Source: `utils/constants.py`; older checkpoints are
converted by `python -m lerobot.processor.migrate_policy_normalization`."""


class MissingLeRobotError(VlaBenchError):
    """Report that LeRobot is not installed."""

    def __init__(self, cause: ImportError) -> None:
        super().__init__(
            f"'lerobot' policies need the package lerobot, which cannot be imported ({type(cause).__name__}: {cause}): "
            f"pip install 'lerobot>=0.4,<0.5' (over 2 GB; it pins other versions of torch and transformers, so serve "
            f"it from an environment of its own with 'vla-bench serve', and play it here as remote:ws://HOST:PORT)"
        )


class LeRobotCheckpointError(VlaBenchError):
    """Refuse a checkpoint that is incomplete, or that LeRobot has not loaded as it lies on disk."""

    def __init__(self, path: Path, found: str, expected: str) -> None:
        super().__init__(f"{path} {found}; expected {expected}")


def load(
    path: str, execute: int = 0, device: str = "cpu", agentview: str = "", wrist: str = "", state: str = ""
) -> LeRobotPolicy:
    """Return a checkpoint of LeRobot as a policy: `lerobot:DIRECTORY,device=cuda`.

    Args:
        path: Directory of the checkpoint, downloaded: a name on a hub would not say which weights it was.
        execute: Actions of a chunk before the next look; 0 means the policy's own `n_action_steps`.
        device: `cpu` or `cuda`.
        agentview: What the policy calls the main camera; none means LeRobot's name for LIBERO.
        wrist: What it calls the wrist camera.
        state: What it calls the state.

    Raises:
        LeRobotCheckpointError: If something is missing, or was not loaded.
        MissingLeRobotError: If LeRobot is not installed.
        UnfitFeaturesError: If the policy reads other entries.
        OptionError: If an option is out of range.
    """
    folder = Path(str(path))
    for name in (CONFIG, WEIGHTS, *PROCESSORS):
        if not (folder / name).is_file():
            expected = f"a directory with {CONFIG}, {WEIGHTS}, {' and '.join(PROCESSORS)}, as LeRobot saves them"
            raise LeRobotCheckpointError(folder, f"has no {name}", expected)
    if device not in ("cpu", "cuda"):
        raise OptionError("device", device, "'cpu' or 'cuda'")
    if device == "cuda" and not torch.cuda.is_available():
        raise OptionError("device", device, "'cpu': torch finds no GPU")
    inner, before, after = _loaded(folder, device)
    check_weights(inner, folder / WEIGHTS)
    standard = Keys()
    (main, main_key), (hand, hand_key) = standard.images
    keys = Keys(((main, agentview or main_key), (hand, wrist or hand_key)), state or standard.state)
    return LeRobotPolicy(inner, before, after, keys, execute, fingerprint(folder))


def check_weights(inner: torch.nn.Module, path: Path) -> None:
    """Compare every tensor that a file and a loaded policy both name.

    LeRobot's pi0 catches whatever goes wrong while loading, prints it and goes on with random weights (lerobot 0.4.4,
    `policies/pi0/modeling_pi0.py`, `from_pretrained`); it also puts `model.` before names, which is allowed here.

    Raises:
        LeRobotCheckpointError: If one differs, or none has the same name.
    """
    own, n_same = inner.state_dict(), 0
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            found = own.get(name, own.get(f"model.{name}"))
            if found is None:
                continue
            stored = file.get_tensor(name)
            if stored.shape != found.shape or not torch.equal(stored.to(found.device, found.dtype), found):
                raise LeRobotCheckpointError(path, f"holds another {name!r} than LeRobot has loaded", "the same values")
            n_same += 1
    if not n_same:
        raise LeRobotCheckpointError(path, "shares no tensor's name with the policy LeRobot has made", "its weights")


def fingerprint(folder: Path) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of weights, configuration and processors."""
    digest = hashlib.sha256()
    for path in sorted((*folder.glob("*.safetensors"), *folder.glob("*.json"))):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _loaded(folder: Path, device: str) -> tuple[Any, Any, Any]:
    """Return policy, preprocessor and postprocessor, as LeRobot's own evaluation loads them."""
    try:
        factory = import_module("lerobot.policies.factory")
        config_class = import_module("lerobot.configs.policies").PreTrainedConfig
    except ImportError as caught:
        raise MissingLeRobotError(caught) from caught
    config = config_class.from_pretrained(str(folder), local_files_only=True)
    config.device = device
    config.pretrained_path = folder
    if hasattr(config, "compile_model"):
        config.compile_model = False  # its first query takes minutes; what is compiled is another method's business
    inner = factory.get_policy_class(config.type).from_pretrained(str(folder), config=config, local_files_only=True)
    inner.to(device)
    overrides = {"device_processor": {"device": device}}
    before, after = factory.make_pre_post_processors(config, str(folder), preprocessor_overrides=overrides)
    return inner, before, after
