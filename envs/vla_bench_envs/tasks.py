"""Finding a task by its place in a suite or by its name."""

from collections.abc import Sequence

import numpy as np

from vla_bench.errors import OptionError, UnknownNameError
from vla_bench.types import Task


def find_task(suite: str, tasks: Sequence[Task], key: int | str) -> Task:
    """Return the task at a position in the standard order, or of a name.

    Args:
        suite: Name of the suite, for messages.
        tasks: Its tasks in standard order.
        key: Position or name.

    Raises:
        OptionError: If the position is out of range.
        UnknownNameError: If no task has that name.
    """
    if isinstance(key, str):
        by_name = {task.name: task for task in tasks}
        if key not in by_name:
            raise UnknownNameError(f"task of {suite}", key, by_name)
        return by_name[key]
    if isinstance(key, bool) or not isinstance(key, (int, np.integer)) or not 0 <= key < len(tasks):
        raise OptionError("task", key, f"a name, or an index from 0 to {len(tasks) - 1} ({suite})")
    return tasks[int(key)]
