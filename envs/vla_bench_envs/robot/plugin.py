"""What an operator's own package offers, by its place."""

import importlib
from typing import Any

from vla_bench.errors import OptionError


def imported(path: str) -> Any:
    """Return what `package.module:name` names.

    Raises:
        OptionError: If it names nothing that can be imported.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as caught:
        raise OptionError("make", path, f"package.module:name of something that can be imported ({caught})") from caught
