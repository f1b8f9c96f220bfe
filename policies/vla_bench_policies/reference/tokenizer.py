"""Words to numbers: a small vocabulary that ships with the package, and letters for every other word."""

import re
from functools import cache
from importlib.resources import files

PAD, BOS = 0, 1
"""What fills a batch up to its longest prompt (no row attends to it), and the first row of every prompt."""

_SPECIAL = ("<pad>", "<bos>", "<unknown>")
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz0123456789-'.,:;!?/()")
_CURLY = chr(0x2019)
"""The apostrophe of some instructions."""

_PIECES = re.compile(r"[a-z]+|[^a-z\s]")


class Tokenizer:
    """Splits a sentence into known words, and unknown words into letters.

    The vocabulary holds every word of LIBERO's and LIBERO-PRO's instructions; a token's number never changes while the
    file only grows at its end.
    """

    def __init__(self) -> None:
        """Read the vocabulary of the package."""
        words = files("vla_bench_policies.reference").joinpath("vocabulary.txt").read_text(encoding="utf-8").split()
        self.tokens: tuple[str, ...] = (*_SPECIAL, *_LETTERS, *words)
        self._index = {token: index for index, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.tokens)

    def encode(self, sentence: str) -> list[int]:
        """Return the tokens of a sentence, in lower case, without BOS; an unknown character becomes `<unknown>`."""
        pieces = _PIECES.findall(sentence.lower().replace(_CURLY, "'"))
        unknown = _SPECIAL.index("<unknown>")
        return [
            self._index.get(token, unknown)
            for piece in pieces
            for token in ((piece,) if piece in self._index else tuple(piece))
        ]

    def decode(self, tokens: list[int]) -> str:
        """Return the tokens' text, parted by spaces."""
        return " ".join(self.tokens[token] for token in tokens if token != PAD)


@cache
def tokenizer() -> Tokenizer:
    """Return the package's tokenizer."""
    return Tokenizer()
