"""What moved between two frames, in two channels: optical flow, or a cheaper stand-in."""

import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8

from vla_bench.errors import MissingPackageError

FlowName = Literal["dis", "difference", "raft-small", "none"]

Flow = Callable[
    [UInt8[np.ndarray, "views px px 3"], UInt8[np.ndarray, "views px px 3"]], Float32[np.ndarray, "views px px 2"]
]
"""Takes the frames of the last inference and of this one, and returns what moved [px], along columns and rows."""

GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in luma (ITU-R BT.601)."""

DIFFERENCE_SCALE = 20.0 / 128.0
"""Grey levels to the range of a flow: a change by half of the range counts like a motion by 20 pixels."""


def flow_named(name: FlowName) -> Flow:
    """Return a flow by name.

    Raises:
        MissingPackageError: If its package is not installed.
    """
    return {"dis": _dis, "difference": lambda: difference, "raft-small": _raft_small, "none": lambda: nothing}[name]()


def reduced(flow: Flow, px: int) -> Flow:
    """Return a flow that is computed on frames averaged down to a side of `px`, in pixels of the frames as they were.

    The gates see frames of 64 px, so a flow of 128 px is computed four times as dearly as it is used.
    """

    def of_reduced(reference: np.ndarray, frames: np.ndarray) -> np.ndarray:
        return np.float32(frames.shape[1] / px) * flow(averaged(reference, px), averaged(frames, px))

    return of_reduced


def averaged(frames: UInt8[np.ndarray, "views side side 3"], px: int) -> UInt8[np.ndarray, "views px px 3"]:
    """Return frames of a smaller side, by averaging to whole grey levels; as they are where the factor is not whole."""
    if frames.shape[1] == px or frames.shape[1] % px:
        return frames
    cv2 = _imported("cv2", "opencv-python-headless")
    return np.stack([cv2.resize(frame, (px, px), interpolation=cv2.INTER_AREA) for frame in frames])


def nothing(_: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return zeros: the gates see colours only."""
    return np.zeros((*frames.shape[:3], 2), dtype=np.float32)


def difference(reference: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return the change of luma, and its absolute value; no motion, but where there is any."""
    change = (frames @ GREY - reference @ GREY) * DIFFERENCE_SCALE
    return np.stack((change, np.abs(change)), axis=-1).astype(np.float32)


def _dis() -> Flow:
    """Return dense inverse search, preset `medium` (Kroeger et al. 2016, ECCV).

    Without weights, about 1.5 ms at 128 px; the faster presets under-estimate small motions by half.
    """
    import torch

    cv2 = _imported("cv2", "opencv-python-headless")
    cv2.setNumThreads(torch.get_num_threads())  # OpenCV has threads of its own, which no variable bounds
    own = threading.local()  # a search has scratch memory

    def flow(reference: np.ndarray, frames: np.ndarray) -> np.ndarray:
        if not hasattr(own, "search"):
            own.search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        grey = [[cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in views] for views in (reference, frames)]
        return np.stack([own.search.calc(before, now, None) for before, now in zip(*grey, strict=True)])

    return flow


def _raft_small() -> Flow:
    """Return RAFT, small (Teed and Deng 2020), with torchvision's weights: the paper's own flow.

    The weights are downloaded once by torchvision. RAFT needs frames of 128 px at least.
    """
    import torch

    optical = _imported("torchvision.models.optical_flow", "torchvision")
    model = optical.raft_small(weights=optical.Raft_Small_Weights.DEFAULT).eval()

    @torch.inference_mode()
    def flow(reference: np.ndarray, frames: np.ndarray) -> np.ndarray:
        one, two = (torch.from_numpy(views).permute(0, 3, 1, 2).float() / 127.5 - 1 for views in (reference, frames))
        return model(one, two)[-1].permute(0, 2, 3, 1).contiguous().numpy()

    return flow


def _imported(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as caught:
        raise MissingPackageError("the optical flow of LAC", package, caught) from caught
