"""The sentence that the published models were trained on, as tokens."""

from pathlib import Path

from tokenizers import Tokenizer

from vla_bench_policies.openvla.errors import PublishedCheckpointError

BOS, EOS = 1, 2
"""Tokens of Llama-2 that begin and end a text."""

EMPTY = 29871
"""Token of Llama-2 for an empty word. In training it stood between `Out:` and the answer, so it is added where the
tokenizer leaves it out (openvla/openvla, `OpenVLAForActionPrediction.predict_action`)."""

FILE = "tokenizer.json"


def sentence(instruction: str) -> str:
    """Return what a model is asked; source: openvla/openvla, `experiments/robot/openvla_utils.py`."""
    return f"In: What action should the robot take to {instruction.lower()}?\nOut:"


class Prompter:
    """Turns instructions into tokens."""

    def __init__(self, folder: Path, behind: tuple[int, ...] = ()) -> None:
        """Read the tokenizer of a checkpoint.

        Args:
            folder: Has `tokenizer.json`.
            behind: Tokens that follow the empty one, always: CogACT's `(EOS,)`.

        Raises:
            PublishedCheckpointError: If there is none, or one that does not begin a text as Llama-2 does.
        """
        path = folder / FILE
        if not path.exists():
            expected = "Llama-2's tokenizer, which every OpenVLA checkpoint has"
            raise PublishedCheckpointError(folder, f"there is no {FILE}", expected)
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(path))
        self._behind = behind
        if self._tokenizer.encode("a").ids[:1] != [BOS]:
            raise PublishedCheckpointError(path, "a tokenizer that begins no text with token 1", "Llama-2's")

    def tokens(self, instruction: str) -> list[int]:
        """Return the tokens of a prompt, from BOS to the empty word, and what is always behind it."""
        found = self._tokenizer.encode(sentence(instruction)).ids
        if found[-1] != EMPTY or self._behind:
            found = [*found, EMPTY]
        return [*found, *self._behind]
