"""Several LIBERO environments, each in a process of its own."""

from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from vla_bench.errors import OptionError
from vla_bench_envs.libero.environment import LiberoEnv
from vla_bench_envs.libero.startup import prepare_process


class LiberoVectorEnv(AsyncVectorEnv):
    """A Gymnasium vector environment of LIBERO environments; each needs 1.5 to 1.9 GB.

    Processes are spawned, not forked: an OpenGL context does not survive a fork. `reset` takes a list for `task` and
    `init_state`, with one value for each environment: `reset(options={"task": [0, 1], "init_state": 0})`. An
    environment that resets itself after an episode keeps its task and draws an initial state.
    """

    def __init__(
        self, num_envs: int = 1, autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP, **kwargs: Any
    ) -> None:
        """Start `num_envs` processes; `kwargs` are `LiberoEnv`'s.

        Raises:
            OptionError: If `images` is 'lazy': what crosses a process boundary must have been drawn.
        """
        if kwargs.get("images", "eager") != "eager":
            raise OptionError("images", kwargs["images"], "'eager' in a vector environment, which copies every image")
        prepare_process()  # children inherit what is set here
        makers = [partial(_OneOfMany, index, **kwargs) for index in range(num_envs)]
        super().__init__(
            makers,
            shared_memory=False,  # Gymnasium 1.4 reads the text in shared memory once, before the first reset
            context="spawn",
            autoreset_mode=autoreset_mode,
        )

    def reset_async(self, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None) -> None:
        """Start an episode in every environment.

        Raises:
            OptionError: If a list has another length than there are environments.
        """
        for name, value in (options or {}).items():
            if isinstance(value, list | tuple) and len(value) != self.num_envs:
                raise OptionError(name, value, f"one value, or a list of {self.num_envs}, one for each environment")
        super().reset_async(seed=seed, options=options)


class _OneOfMany(gymnasium.Wrapper):
    """An environment that takes its own entry of every option that is a list."""

    def __init__(self, index: int, **kwargs: Any) -> None:
        super().__init__(LiberoEnv(**kwargs))
        self._index = index

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        own = {
            name: value[self._index] if isinstance(value, list | tuple) else value
            for name, value in (options or {}).items()
        }
        return self.env.reset(seed=seed, options=own)
