"""Vector environments: `gym.make_vec(id, num_envs=n)` runs one process per environment.

Gymnasium's `AsyncVectorEnv` does the work. Added here: one thread per process, scripts that need
no `if __name__ == "__main__":`, bad input that is refused before any environment sees it, and
failures that end all processes and keep their message.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState

from jepa_gym.actions import checked_actions
from jepa_gym.envs.tasks.base import COMMON_OPTIONS
from jepa_gym.envs.tasks.options import parse_options
from jepa_gym.names import check_choice

AUTORESET_MODES = {"next_step": AutoresetMode.NEXT_STEP, "same_step": AutoresetMode.SAME_STEP}
LIBRARY_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Read when NumPy is imported, so they must stand when a process starts. The renderer works in the
calling thread by itself, see `gl_context.py`."""
RESET_ERROR = "reset_error"
"""Key of the info in which a process reports that a reset failed."""
DEATH_TIMEOUT_S = 5.0
"""How long a process that closed its pipe gets to end and leave an exit code."""


def __getattr__(name: str) -> Callable[..., FrankaVectorEnv]:
    """Let `vector_entry_point="jepa_gym.envs.vector:<id>"` name the environment to be made.

    Gymnasium hands a vector entry point no id, only the arguments.
    """
    if name in gym.registry:
        return functools.partial(make_vector, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def make_vector(
    env_id: str,
    num_envs: int = 1,
    *,
    autoreset_mode: str = "next_step",
    pin_cores: bool = False,
    **kwargs: Any,
) -> FrankaVectorEnv:
    """Return `num_envs` environments `env_id`, each in a process of its own.

    Args:
        env_id: A registered id, as for `gym.make`.
        num_envs: Number of processes, at least 1; as many as there are cores is fastest.
        autoreset_mode: What follows the end of an episode. `"next_step"`: the next `step` ignores
            the action and returns the reset's observation with reward 0. `"same_step"`: the same
            `step` returns it, and `info` carries `final_obs` and `final_info`.
        pin_cores: Keep process i on core i of those this process may use. Faster where nothing
            else runs, because Linux likes to wake a process on the core of the one that wakes it,
            where another may be at work; slower where the cores are shared. Linux only.
        kwargs: Arguments of every environment, `max_episode_steps` among them.

    Raises:
        ValueError: An argument outside the allowed values, which the message names.
        RuntimeError: A process ended before it answered.
    """
    if not isinstance(num_envs, int) or num_envs < 1:
        raise ValueError(f"`num_envs` must be an int, 1 or more, got {num_envs!r}")
    check_choice("autoreset_mode", autoreset_mode, AUTORESET_MODES)
    if pin_cores and not hasattr(os, "sched_setaffinity"):
        raise ValueError("`pin_cores` needs Linux; leave it out on this system")
    make = functools.partial(_make, gym.spec(env_id), **kwargs)
    env = FrankaVectorEnv([make] * num_envs, AUTORESET_MODES[autoreset_mode])
    if pin_cores:
        cores = itertools.cycle(sorted(os.sched_getaffinity(0)))
        for process, core in zip(env.processes, cores, strict=False):
            assert process.pid is not None  # it has been started
            os.sched_setaffinity(process.pid, {core})
    return env


def _make(spec: EnvSpec, **kwargs: Any) -> gym.Env:
    """Make one environment in its process."""
    return _KeepsErrors(gym.make(spec, **kwargs))


class _KeepsErrors(gym.Wrapper):
    """Give the error of a reset to the parent in the info; raised, it would end the process."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Reset the environment, or return anything and the error."""
        try:
            return self.env.reset(seed=seed, options=options)
        except (ValueError, RuntimeError) as error:
            return self.observation_space.sample(), {RESET_ERROR: error}  # nobody will see it


def _checked_seeds(seed: Any, num_envs: int) -> list[int | None]:
    """Return one seed per environment; ValueError if one is no int of 0 or more, or None."""
    seeds = [seed] * num_envs if seed is None else seed
    if isinstance(seed, (int, np.integer)):
        seeds = [seed + index for index in range(num_envs)]
    if isinstance(seeds, (list, tuple, np.ndarray)):
        seeds = [int(one) if isinstance(one, np.integer) else one for one in seeds]
    else:
        seeds = []
    good = [one is None or (type(one) is int and one >= 0) for one in seeds]
    if len(seeds) != num_envs or not all(good):
        raise ValueError(
            f"`seed` must be an int of 0 or more, or a list of {num_envs} of them or None, "
            f"got {seed!r}"
        )
    return seeds


@contextlib.contextmanager
def _clean_start() -> Iterator[None]:
    """Start processes with one thread per library and without running the user's script again.

    A new process imports the main module, which in a script without a guard would make the
    environments once more, and in any script loads what no environment needs (torch, say). What the
    processes do need from it travels inside the pickle. Environment and main module are put back.
    """
    before, main = dict(os.environ), sys.modules["__main__"]
    os.environ.update(LIBRARY_THREADS)
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name in LIBRARY_THREADS:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


class FrankaVectorEnv(AsyncVectorEnv):
    """Environments in processes, their observations in shared memory; made by `gym.make_vec`.

    `reset(seed=s)` seeds environment i with s + i, `reset(seed=[...])` each with its own. Seeds,
    options and actions are checked before anything is sent. A reset that fails in one environment
    leaves the others ready for the next `reset`; any other error in one is raised here with the
    worker's traceback as a note, after all processes were closed.

    Args:
        env_fns: One function per environment that makes it.
        autoreset_mode: Gymnasium's mode.

    Raises:
        RuntimeError: A process ended before it answered, when made and in every later call.
    """

    def __init__(
        self, env_fns: Sequence[Callable[[], gym.Env]], autoreset_mode: AutoresetMode
    ) -> None:
        # "spawn": OpenGL contexts do not survive a fork, and every platform has it
        with _clean_start(), self._deaths_reported():
            super().__init__(env_fns, context="spawn", autoreset_mode=autoreset_mode)
            self._known_options = (*COMMON_OPTIONS, *self.get_attr("OPTIONS")[0])
            self._clip = self.get_attr("clip_actions")[0]
        self._over: np.ndarray | None = None
        """(num_envs,) which episodes ended with the last step; None before there are any."""

    def reset(self, *, seed: int | list[int | None] | None = None, options=None):
        """Start all episodes; `seed` is one int, or a list of one int or None per environment.

        Raises:
            ValueError: A seed or an option is not allowed (nothing has happened), or asks one
                environment for what is impossible (the others have been reset).
            RuntimeError: One environment found no start or goal.
        """
        self._assert_is_running()
        seeds = _checked_seeds(seed, self.num_envs)
        given = {name: value for name, value in (options or {}).items() if name != "reset_mask"}
        parse_options(given, self._known_options)
        self._over = None
        with self._deaths_reported():
            observation, infos = super().reset(seed=seeds, options=options)
        self._raise_failed_resets(infos)
        self._over = np.zeros(self.num_envs, bool)
        return observation, infos

    def step(self, actions: np.ndarray):
        """Step all environments with `actions` (num_envs, 7).

        Raises:
            ValueError: `actions` are no real numbers, have a wrong shape, are not finite or out of
                bounds; nothing has happened.
            gymnasium.error.ResetNeeded: Before the first reset, or after one that failed.
        """
        self._assert_is_running()
        if self._over is None:
            raise gym.error.ResetNeeded("Call `reset()` before `step()`.")
        ignored = (
            np.zeros(7) if self.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP else None
        )
        if ignored is not None and np.shape(actions) == self.action_space.shape:
            actions = np.where(self._over[:, None], ignored, actions)
        assert isinstance(self.single_action_space, gym.spaces.Box)
        checked_actions(actions, self.single_action_space, self.num_envs, clip=self._clip)
        with self._deaths_reported():
            result = super().step(np.asarray(actions))
        self._raise_failed_resets(result[-1])
        self._over = result[2] | result[3]
        return result

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return the method's result, or the attribute, `name` of every environment."""
        with self._deaths_reported():
            return super().call(name, *args, **kwargs)

    def call_one(self, index: int, name: str, *args: Any, **kwargs: Any) -> Any:
        """Return the method's result, or the attribute, `name` of environment `index` alone.

        Raises:
            gymnasium.error.ClosedEnvironmentError: After `close`.
            RuntimeError: The process ended before it answered; all were closed.
            Exception: What the method raised, with the process's traceback; all were closed.
        """
        self._assert_is_running()
        pipe = self.parent_pipes[index]
        with self._deaths_reported():
            pipe.send(("_call", (name, args, kwargs)))
            result, success = pipe.recv()
            self._raise_if_errors([success])
        return result

    @contextlib.contextmanager
    def _deaths_reported(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            ended = wait([process.sentinel for process in self.processes], timeout=DEATH_TIMEOUT_S)
            codes = {}
            for index, process in enumerate(self.processes):
                if process.sentinel in ended:
                    process.join(DEATH_TIMEOUT_S)
                    codes[index] = process.exitcode
            self._state = AsyncState.DEFAULT  # else `close` waits for answers that never come
            self.close(terminate=True)
            raise RuntimeError(
                f"A process of the vector environment ended without an answer (exit codes by "
                f"environment: {codes}), and all were closed. Its last words are on stderr; -9 is "
                "most often a lack of memory: take fewer environments."
            ) from error

    def _raise_failed_resets(self, infos: dict[str, Any]) -> None:
        for index, error in enumerate(infos.pop(RESET_ERROR, ())):
            if error is not None:
                self._over = None
                error.add_note(f"Raised by the reset of environment {index}; call `reset()` again.")
                raise error

    def _raise_if_errors(self, successes) -> None:
        failures = [self.error_queue.get() for success in successes if not success]
        if not failures:
            return
        for index, *_ in failures:
            self.parent_pipes[index].close()
        self._state = AsyncState.DEFAULT
        self.close()
        index, _, error, trace = min(failures, key=lambda failure: failure[0])
        error.add_note(f"Raised in environment {index}, all were closed. Its traceback:\n{trace}")
        raise error
