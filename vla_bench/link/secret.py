"""The token that opens a server to clients, kept in a file: what is in a command is written into results."""

from pathlib import Path

from vla_bench.errors import OptionError

SHORTEST_TOKEN = 16
"""Characters; a token that can be guessed is none."""


def read_token(path: Path | None) -> str | None:
    """Return the token in a file, whose name may be told where the token may not; None for no file.

    Raises:
        OptionError: If the file cannot be read or holds no token.
    """
    if path is None:
        return None
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as caught:
        raise OptionError("the token file", str(path), f"a file of text ({caught})") from caught
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise OptionError("the token file", str(path), f"one word of at least {SHORTEST_TOKEN} ASCII characters in it")
    return token
