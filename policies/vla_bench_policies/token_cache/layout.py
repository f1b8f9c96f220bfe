"""Which rows of a prompt are what: all that an adapter must declare for every token method to work on it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class RowLayout:
    """Rows in the order of their positions: BOS, visual rows view by view, text, the prompt's last row, action.

    Only what is visual matters to the cache; the rest of the rows have names because rules look at their attention.
    """

    n_views: int

    rows_per_view: int
    """A square number: a grid in raster order."""

    n_text: int

    n_action: int
    """Rows that answer within the prompt, or places kept for tokens that are decoded after it."""

    bidirectional: bool = False
    """Whether every row sees every other, as in OpenVLA-OFT; otherwise each sees those before it."""

    n_before_text: int = 0
    """Rows between the visual ones and the text: OpenVLA-OFT has its proprioception there."""

    @property
    def grid(self) -> int:
        """Return the visual rows along one side of a view."""
        return round(self.rows_per_view**0.5)

    @property
    def n_visual(self) -> int:
        """Return the number of visual rows."""
        return self.n_views * self.rows_per_view

    @property
    def visual(self) -> slice:
        """Return the visual rows, view by view."""
        return slice(1, 1 + self.n_visual)

    @property
    def text(self) -> slice:
        """Return the instruction's rows."""
        begin = self.visual.stop + self.n_before_text
        return slice(begin, begin + self.n_text)

    @property
    def proprio(self) -> int:
        """Return the prompt's last row: the robot's own state, or the last token where that is not there."""
        return self.text.stop

    @property
    def action(self) -> slice:
        """Return the rows that answer."""
        return slice(self.proprio + 1, self.proprio + 1 + self.n_action)

    @property
    def n_rows(self) -> int:
        """Return the number of all rows."""
        return self.action.stop

    def view(self, index: int) -> slice:
        """Return the visual rows of a view, counted among the visual rows."""
        return slice(index * self.rows_per_view, (index + 1) * self.rows_per_view)

    def by_view(self, values: np.ndarray) -> np.ndarray:
        """Return values of the visual rows (visual,) as a picture of each view (views, grid, grid)."""
        return values.reshape(self.n_views, self.grid, self.grid)

    def answering(self) -> Int[np.ndarray, " rows"]:
        """Return the rows of text, proprioception and action, in order: text first."""
        return np.arange(self.text.start, self.n_rows)

    def rest(self) -> Int[np.ndarray, " rest"]:
        """Return the rows that are not visual; they are computed in every step."""
        rows = np.arange(self.n_rows)
        return np.concatenate((rows[: self.visual.start], rows[self.visual.stop :]))
