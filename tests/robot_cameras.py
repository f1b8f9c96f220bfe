"""Cameras for tests of the robot bridge."""

import time

import numpy as np


class Grey:
    """Frames of one grey level, 40 a second, each a level brighter; after some of them it may hang or fail."""

    def __init__(self, hangs_after: int = -1, fails_after: int = -1, shape: tuple[int, ...] = (48, 64, 3)) -> None:
        self.n_read, self.hangs_after, self.fails_after, self.shape = 0, hangs_after, fails_after, tuple(shape)
        self.is_open = False

    def connect(self) -> None:
        self.is_open = True

    def read(self) -> np.ndarray:
        assert self.is_open
        time.sleep(0.025)
        self.n_read += 1
        while 0 <= self.hangs_after < self.n_read and self.is_open:
            time.sleep(0.01)
        if 0 <= self.fails_after < self.n_read:
            raise TimeoutError("no frame within 1 s")
        return np.full(self.shape, self.n_read % 256, np.uint8)

    def disconnect(self) -> None:
        self.is_open = False
