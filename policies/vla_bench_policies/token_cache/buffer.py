"""Keys and values at fixed places, one a row, and how many steps ago each was computed."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

NEVER = -1
"""Age of what was not computed since the last reset."""


class KeyValueBuffer:
    """Keys and values of all layers for a batch of prompts.

    One place more than there are rows takes what the padding of a ragged batch writes; nobody sees it.
    """

    def __init__(self, keys: Tensor, values: Tensor, whole: "KeyValueBuffer | None" = None) -> None:
        """Take tensors (layers, batch, heads, rows + 1, head_width); `whole` is the buffer of which they are a part."""
        self.keys, self.values, self._whole = keys, values, whole
        self.n_rows = keys.shape[3] - 1

    @classmethod
    def empty(cls, n_layers: int, heads: int, n_rows: int, head_width: int, like: Tensor) -> "KeyValueBuffer":
        """Return zeros for one prompt, in the type and on the device of `like`."""
        keys = like.new_zeros(n_layers, 1, heads, n_rows + 1, head_width)
        return cls(keys, torch.zeros_like(keys))

    @staticmethod
    def joined(parts: "Sequence[KeyValueBuffer]") -> "KeyValueBuffer":
        """Return a buffer for all prompts; parts of one that was joined in this order are not copied again."""
        whole = parts[0]._whole
        if len(parts) == 1:
            return parts[0]
        if whole is not None and whole.keys.shape[1] == len(parts):
            starts = [part.keys.data_ptr() for part in parts]
            if starts == [whole.keys[:, index].data_ptr() for index in range(len(parts))]:
                return whole
        keys, values = ([part.keys for part in parts], [part.values for part in parts])
        return KeyValueBuffer(torch.cat(keys, 1), torch.cat(values, 1))

    def parts(self) -> "list[KeyValueBuffer]":
        """Return a view of each prompt's."""
        if self.keys.shape[1] == 1:
            return [self]
        pairs = zip(self.keys.split(1, 1), self.values.split(1, 1), strict=True)
        return [KeyValueBuffer(keys, values, self) for keys, values in pairs]

    @property
    def spare(self) -> int:
        """Return the place for padding."""
        return self.n_rows

    def write(self, layer: int, rows: Int[Tensor, "#b q"], key: Tensor, value: Tensor, whole: bool = False) -> None:
        """Put keys and values (b, heads, q, head_width) where `rows` says.

        Args:
            layer: Of the decoder.
            rows: Places, one list for all environments or one for each.
            key: Rotated.
            value: As projected.
            whole: Whether `rows` are the first ones in order: a plain copy then, four times as fast.
        """
        if whole:
            self.keys[layer, :, :, : key.shape[2]] = key
            self.values[layer, :, :, : key.shape[2]] = value
            return
        if len(rows) == 1:
            self.keys[layer].index_copy_(2, rows[0], key)
            self.values[layer].index_copy_(2, rows[0], value)
            return
        place = rows[:, None, :, None].expand(key.shape)
        self.keys[layer].scatter_(2, place, key)
        self.values[layer].scatter_(2, place, value)

    def all_rows(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return keys and values of a layer (b, heads, n_rows, head_width), the spare place left out."""
        return self.keys[layer, :, :, : self.n_rows], self.values[layer, :, :, : self.n_rows]


class Ledger:
    """Age of each visual row at each layer, in steps (a step here is an inference)."""

    def __init__(self, n_layers: int, n_rows: int) -> None:
        self.ages: Int[np.ndarray, "layers rows"] = np.full((n_layers, n_rows), NEVER)
        """0 for what this step computed; `NEVER` for what was not computed since the reset."""

    def reset(self) -> None:
        """Forget everything: nothing may be reused before it is computed again."""
        self.ages[:] = NEVER

    def advance(self, active_until: Int[np.ndarray, " rows"]) -> None:
        """Count a step in which each row was computed in the layers below `active_until`."""
        computed = np.arange(len(self.ages))[:, None] < active_until
        self.ages = np.where(computed, 0, np.where(self.ages == NEVER, NEVER, self.ages + 1))

    @property
    def oldest(self) -> Int[np.ndarray, " rows"]:
        """Return each row's age where it is oldest, that is in its last layers; `NEVER` if a layer has none."""
        return np.where((self.ages == NEVER).any(axis=0), NEVER, self.ages.max(axis=0))
