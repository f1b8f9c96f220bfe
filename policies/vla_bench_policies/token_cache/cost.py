"""What decoder layers cost: operations, a multiply-add counted as two, every pair of row and key; and bytes read.

Left out, as torch's counter leaves them out: norms, activations, softmax, rotation; under 1 % here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs, by the rows that it computes and the keys that they look at."""

    weights: int
    """Entries of the layer's matrices."""

    projections: int
    """Entries of those that make queries and keys for a gate, and what is fused with them."""

    width: int
    """Query heads times the width of one."""

    weight_bytes: int = 0
    """Of the matrices, as they lie in memory; a pass reads them once, however many rows there are."""

    row_bytes: int = 0
    """Of the key and the value of one row."""

    trims: bool = False
    """Whether rows whose state nobody wants cost no more than `projections`."""

    def layer(self, n_rows: int, n_keys: int, n_wanted: int | None = None) -> int:
        """Return the operations of the layer; all rows are wanted if nobody says how many."""
        n_after = n_wanted if n_wanted is not None and self.trims else n_rows
        products = n_rows * self.projections + n_after * (self.weights - self.projections)
        return 2 * products + 2 * self.scores(n_after, n_keys)

    def scores(self, n_rows: int, n_keys: int) -> int:
        """Return the operations of the products of queries and keys, which are those of weights and values too."""
        return 2 * n_rows * n_keys * self.width

    def bytes_read(self, n_keys: int) -> int:
        """Return what one pass reads of the layer's weights, and of the keys and values that its rows look at."""
        return self.weight_bytes + n_keys * self.row_bytes

    def projection(self, n_rows: int) -> int:
        """Return the operations of `DecoderStack.project`."""
        return 2 * n_rows * self.projections
