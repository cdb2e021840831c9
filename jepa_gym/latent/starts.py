"""Where latent episodes start: a real frame, its state, and a goal.

A start comes from the checkpoint's held-out frames, from a dataset, from a real environment, or is
given in `reset(options={"frame", "state", "goal"})`.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.start_frames import STARTS_FILE, StartFrames, read_starts
from jepa_gym.config import STATE_DIM, WorldModelConfig
from jepa_gym.states import unit_problem

GIVEN = ("frame", "state", "goal")
OPTIONS = ("index", *GIVEN, "goal_state")


@dataclass(frozen=True)
class Start:
    """One start of an episode."""

    frame: np.ndarray
    """(Y, X, 3) uint8."""
    state: np.ndarray
    """(7,) float32."""
    goal: np.ndarray
    """(Y, X, 3) uint8, or its latent (N, D) float32."""
    goal_state: np.ndarray | None
    """(7,) float32, if known."""
    source: str
    """`checkpoint`, `dataset`, `given` or the id of an environment."""
    index: int = -1
    """Place among the frames of its source, -1 where it has none."""

    @property
    def goal_is_frame(self) -> bool:
        """Whether the goal is a picture, not a latent."""
        return self.goal.dtype == np.uint8


class Source(Protocol):
    """Draws the starts of episodes."""

    @property
    def reference(self) -> StartFrames | None:
        """The real frames against which imagined latents are held."""
        ...

    def draw(self, rng: np.random.Generator, index: int | None) -> Start:
        """Return a start, drawn or the one of this index."""
        ...

    def close(self) -> None:
        """Release what was opened."""
        ...


class FrameSource:
    """Starts drawn uniformly from a collection of real frames."""

    def __init__(self, name: str, reference: StartFrames) -> None:
        self.name, self.reference = name, reference

    def draw(self, rng: np.random.Generator, index: int | None) -> Start:
        """Return a start.

        Raises:
            ValueError: If `index` is out of range.
        """
        found = self.reference
        index = int(rng.integers(len(found))) if index is None else _whole_number(index)
        if not 0 <= index < len(found):
            raise ValueError(f"`index` must be in [0, {len(found) - 1}], got {index}")
        return Start(
            found.frames[index],
            found.states[index].astype(np.float32),
            found.goal_frames[index],
            found.goal_states[index].astype(np.float32),
            self.name,
            index,
        )

    def close(self) -> None:
        """Nothing to release."""


class EnvironmentSource:
    """Starts that a real environment shows after its reset, with a seed from the episode's own."""

    def __init__(
        self,
        env_id: str,
        kwargs: Mapping[str, Any],
        config: WorldModelConfig,
        reference: StartFrames | None,
    ) -> None:
        self.name, self.config, self.reference = env_id, config, reference
        self.env = gym.make(env_id, **(config.frame.env_kwargs() | dict(kwargs)))

    def draw(self, rng: np.random.Generator, index: int | None) -> Start:
        """Reset the environment.

        Raises:
            ValueError: If an `index` is asked for.
        """
        if index is not None:
            raise ValueError(f"`index` means nothing for starts={self.name!r}; leave it out")
        observation, _ = self.env.reset(seed=int(rng.integers(2**31)))
        return given_start(start_options(observation), self.config, self.name)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


class NoSource:
    """Starts are always given in the options of `reset`."""

    def __init__(self, reference: StartFrames | None) -> None:
        self.reference = reference

    def draw(self, rng: np.random.Generator, index: int | None) -> Start:
        """Raise a ValueError: nothing can be drawn."""
        raise ValueError(
            "starts='given': call reset(options={'frame': ..., 'state': ..., 'goal': ...}) "
            "before anything else"
        )

    def close(self) -> None:
        """Nothing to release."""


def make_source(
    starts: str,
    data: StartFrames | Mapping[str, Any] | str | Path | None,
    config: WorldModelConfig,
    folder: Path | None,
) -> Source:
    """Open the source of starts.

    Args:
        starts: `checkpoint`, `dataset`, `given`, or the id of a registered environment that shows
            `pixels`, `goal_pixels` and `observation`.
        data: Of `dataset`: `StartFrames`, a mapping of its four arrays, or a folder with a
            `start_frames.npz`. Of an environment: its arguments, besides those that make it show
            what the model was trained on.
        config: The model's configuration.
        folder: The checkpoint's folder.

    Raises:
        ValueError: When an argument is not allowed.
        CheckpointError, FileNotFoundError: When frames are missing, damaged or of another size.
    """
    if starts == "dataset":
        return FrameSource("dataset", _checked_size(_frames_of(data), config, "`data`"))
    if data is not None and (starts not in gym.registry or not isinstance(data, Mapping)):
        raise ValueError(
            "`data` goes with starts='dataset', or holds the arguments of the environment that "
            f"`starts` names; got {type(data).__name__} with starts={starts!r}"
        )
    reference = None
    if folder is not None and (folder / STARTS_FILE).is_file():
        what = f"the start frames in {folder}"
        reference = _checked_size(read_starts(folder), config, what)
    if starts == "given":
        return NoSource(reference)
    if starts in gym.registry:
        return EnvironmentSource(starts, data or {}, config, reference)
    if starts != "checkpoint":
        raise ValueError(
            "`starts` must be 'checkpoint', 'dataset', 'given' or the id of a registered "
            f"environment, got {starts!r}"
        )
    if folder is None:
        raise ValueError(
            "`model` was not loaded from a folder, so there are no start frames; give "
            "starts='dataset' with data=..., or starts='given', or save it with save_pretrained, "
            "add them with jepa_gym.checkpoint.start_frames.write_starts, and load it again"
        )
    if reference is None:
        raise FileNotFoundError(
            f"checkpoint {folder} has no {STARTS_FILE}, from which latent episodes start; write it "
            "with jepa_gym.checkpoint.start_frames.write_starts, or give starts='dataset' with "
            "data=..., or starts='given'"
        )
    return FrameSource("checkpoint", reference)


def start_options(observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the options of `reset` that start from what a real environment shows now.

    Args:
        observation: With `pixels`, `goal_pixels`, `observation` and, if known, `goal_state`; of one
            environment, or of a vector environment.

    Raises:
        ValueError: When an entry is missing.
    """
    names = {"pixels": "frame", "observation": "state", "goal_pixels": "goal"}
    missing = sorted(names.keys() - observation.keys())
    if missing:
        raise ValueError(
            f"the observation lacks {missing}, it has {sorted(observation)}; make the Franka "
            "environments with obs_mode='both'"
        )
    options = {names[key]: observation[key] for key in names}
    if "goal_state" in observation:
        options["goal_state"] = observation["goal_state"]
    return options


def read_start(
    options: Mapping[str, Any] | None,
    config: WorldModelConfig,
    source: Source,
    rng: np.random.Generator,
) -> Start:
    """Return the start that the options of a reset ask for.

    Args:
        options: None, `index`, or `frame`, `state` and `goal` with an optional `goal_state`.
        config: The model's configuration.
        source: Draws the start if none is given.
        rng: The episode's.

    Raises:
        ValueError, TypeError: When the options are not of this kind; the message says how.
    """
    options = dict(options or {})
    unknown = sorted(options.keys() - set(OPTIONS))
    if unknown:
        raise ValueError(f"`options` may hold only {OPTIONS}, got also {unknown}")
    if not options.keys() & {*GIVEN, "goal_state"}:
        return source.draw(rng, options.get("index"))
    if "index" in options:
        raise ValueError("`options` must hold `index` or a start of your own, not both")
    return given_start(options, config, "given")


def given_start(options: Mapping[str, Any], config: WorldModelConfig, source: str) -> Start:
    """Check a start that was given and return it; its arrays are copied.

    Raises:
        ValueError, TypeError: When an entry is missing or of the wrong shape or kind.
    """
    missing = [key for key in GIVEN if key not in options]
    if missing:
        raise ValueError(f"a start needs {GIVEN}, `options` lacks {missing}")
    goal = np.asarray(options["goal"])
    latent = (config.num_tokens, config.encoder.latent_dim)
    if np.issubdtype(goal.dtype, np.floating) and goal.ndim == 2:
        if goal.shape != latent or not np.isfinite(goal).all():
            raise ValueError(
                f"a latent `goal` must be finite numbers (N, D) = {latent} of model.encode, "
                f"got shape {goal.shape}"
            )
        goal = goal.astype(np.float32)
    else:
        goal = _checked_frame(goal, "goal", config, f", or its latent {latent} float32")
    state = options.get("goal_state")
    return Start(
        _checked_frame(options["frame"], "frame", config),
        _checked_state(options["state"], "state"),
        goal,
        None if state is None else _checked_state(state, "goal_state"),
        source,
    )


def split_options(options: Mapping[str, Any] | None, count: int) -> list[dict[str, Any]]:
    """Return the options of each of `count` environments.

    Args:
        options: Entries for one environment are given to all; those with one dimension more are
            split along it.
        count: Number of environments.

    Raises:
        ValueError: When that dimension is not `count`.
    """
    split: list[dict[str, Any]] = [{} for _ in range(count)]
    for key, value in (options or {}).items():
        values: Any = [value] * count
        if key in OPTIONS and value is not None:
            array = np.asarray(value)
            frames = key == "frame" or (key == "goal" and array.dtype == np.uint8)
            single = 0 if key == "index" else 3 if frames else 2 if key == "goal" else 1
            values = array if array.ndim == single + 1 else values
        if len(values) != count:
            raise ValueError(
                f"option `{key}` must be for one environment or for all {count}, "
                f"got shape {values.shape}"
            )
        for own, one in zip(split, values, strict=True):
            own[key] = one
    return split


def _frames_of(data: Any) -> StartFrames:
    names = [item.name for item in fields(StartFrames)]
    if isinstance(data, StartFrames):
        return data
    if isinstance(data, Mapping):
        if set(data) != set(names):
            raise ValueError(f"`data` must hold the arrays {names}, got {sorted(data)}")
        return StartFrames(**{name: np.asarray(data[name]) for name in names})
    maker = "jepa_gym.training.data.starts.dataset_starts"
    if isinstance(data, str | Path):
        if not (Path(data) / STARTS_FILE).is_file():
            raise FileNotFoundError(
                f"`data` names {data}, which has no {STARTS_FILE}. If it is a folder of recorded "
                f"episodes, choose the starts first: data={maker}({str(data)!r})"
            )
        return read_starts(Path(data))
    raise ValueError(
        f"starts='dataset' needs `data`: a StartFrames ({maker} makes one of a dataset's test "
        f"split), a mapping of the arrays {names}, or a folder that holds {STARTS_FILE}; got "
        f"{type(data).__name__}"
    )


def _checked_size(starts: StartFrames, config: WorldModelConfig, what: str) -> StartFrames:
    frame = (config.frame.height, config.frame.width, 3)
    if starts.frames.shape[1:] != frame:
        raise CheckpointError(
            f"the frames of {what} are {starts.frames.shape[1:]}, the model takes {frame}"
        )
    return starts


def _checked_frame(
    value: Any, name: str, config: WorldModelConfig, otherwise: str = ""
) -> np.ndarray:
    value = np.array(value)
    shape = (config.frame.height, config.frame.width, 3)
    allowed = f"`{name}` must be (Y, X, 3) = {shape} uint8{otherwise}"
    if value.dtype != np.uint8:
        raise TypeError(f"{allowed}, got {value.dtype} of shape {value.shape}")
    if value.shape != shape:
        raise ValueError(
            f"{allowed}, got shape {value.shape}; gym.make(..., **model.config.frame.env_kwargs()) "
            "shows frames of this kind"
        )
    return value


def _checked_state(value: Any, name: str) -> np.ndarray:
    given = np.asarray(value)
    numbers = given.dtype.kind in "fiu" and np.isfinite(given).all()
    if given.shape != (STATE_DIM,) or not numbers:
        raise ValueError(
            f"`{name}` must be 7 finite numbers: x y z (m), roll pitch yaw (rad), closedness; "
            f"got {given.dtype} of shape {given.shape}, {given}"
        )
    problem = unit_problem(given)
    if problem is not None:
        raise ValueError(f"`{name}` is no state: {problem}")
    return given.astype(np.float32)


def _whole_number(index: Any) -> int:
    try:
        return operator.index(index)
    except TypeError as error:
        raise ValueError(f"`index` must be a whole number, got {index!r}") from error
