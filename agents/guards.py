"""What an agent that plans refuses to act on, and of what it warns: real arms give anything.

States of a wrong unit, a hand elsewhere than the model ever was and pictures of another kind are
errors. A picture that looks unlike those of the training is a warning: the model still gives
numbers for it, and a person must judge. Only observations with `pixels` are looked at, as cameras
and the suite give them; what a model imagined has no pictures.

The test of pictures needs no training. A model that understands what it sees expects little to
change if the hand holds still, and much if it moves. The score is the first over the second, with
the largest one of the checkpoint's own start frames as 1. A state that does not fit the picture
raises it, too. A picture that is rougher or smoother than any of theirs is told by its pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from jepa_gym.checkpoint.start_frames import STARTS_FILE, read_starts
from jepa_gym.states import unit_problem
from jepa_gym.world_model import WorldModel

SPREADS = 4.5
"""Standard deviations of the training states up to which a hand is where the model was trained."""
LEAST_ANGLE_RAD = 1.0
"""A hand may be turned by so much against the training's mean in any case."""
REACH_M = 1.2
"""Farthest from the base that a hand can be, of a model that does not say where it was trained:
the Panda's flange reaches 0.86 m from its shoulder, 0.33 m above the base."""
LIMIT = 2.4
"""Score above which a picture is unlike those of the training. `benchmarks/guard_alarms.py` tells
what that is worth: of the default model no frame of any split comes above 2.3, black, white, grey
and noisy pictures are told every time, and every second episode that is upside down."""
ROUGHNESS_FACTOR = 2.0
"""How many times rougher, or smoother, than all start frames a picture may be."""
PROBE_SHARE = 2 / 3
"""Share of the model's largest move that the test of pictures imagines."""
_KNOWN: WeakKeyDictionary[WorldModel, Familiar | None] = WeakKeyDictionary()


class UnfamiliarPictureWarning(UserWarning):
    """A picture is unlike those that the model was trained on, or does not fit the state."""


@dataclass(frozen=True, slots=True)
class Familiar:
    """What pictures of the training are like, by a checkpoint's start frames."""

    surprise: float
    """The largest `surprise` of one of them."""
    roughness: tuple[float, float]
    """The smallest and the largest `roughness`."""

    @classmethod
    def of(cls, model: WorldModel) -> Familiar | None:
        """Return that of a model, read once; None if it has no start frames of its size.

        Raises:
            CheckpointError: If the file of start frames is damaged.
        """
        if model not in _KNOWN:
            _KNOWN[model] = cls._read(model)
        return _KNOWN[model]

    @classmethod
    def _read(cls, model: WorldModel) -> Familiar | None:
        if model.folder is None or not (model.folder / STARTS_FILE).is_file():
            return None
        starts = read_starts(model.folder)
        if starts.frames.shape[1:3] != (model.config.frame.height, model.config.frame.width):
            return None
        frames = np.concatenate([starts.frames, starts.goal_frames])
        states = torch.from_numpy(np.concatenate([starts.states, starts.goal_states]))
        found = surprise(model, model.encode(frames[:, None])[:, 0], states.float())
        rough = roughness(frames)
        return cls(float(found.max()), (float(rough.min()), float(rough.max())))

    def unlike(
        self, model: WorldModel, latents: torch.Tensor, states: torch.Tensor, frames: np.ndarray
    ) -> np.ndarray:
        """Return which (B,) of the pictures are unlike those of the training.

        Args:
            model: The world model.
            latents: (B, N, D) of the pictures.
            states: (B, 7), metres and radians.
            frames: (B, Y, X, 3) uint8.
        """
        rough, (low, high) = roughness(frames), self.roughness
        odd = (rough < low / ROUGHNESS_FACTOR) | (rough > high * ROUGHNESS_FACTOR)
        return odd | (surprise(model, latents, states) > LIMIT * self.surprise)


@torch.no_grad()
def surprise(model: WorldModel, latents: torch.Tensor, states: torch.Tensor) -> np.ndarray:
    """Return how much is imagined to change by holding still (B,), over what moves change.

    Args:
        model: The world model.
        latents: (B, N, D) of what is seen.
        states: (B, 7), metres and radians.
    """
    candidates = torch.zeros(4, 1, 7, device=latents.device)  # hold still, and move along x, y, z
    candidates[1:, 0, :3] = PROBE_SHARE * model.config.frame.max_move_m * torch.eye(3)
    rollout = model.prepare(latents[:, None], states[:, None].to(latents.device))
    future = rollout.latents(candidates.expand(len(latents), -1, -1, -1))[:, :, 0]
    held = (future[:, 0] - latents).abs().mean(dim=(1, 2))
    moved = (future[:, 1:] - future[:, :1]).abs().mean(dim=(1, 2, 3))
    return (held / moved.clamp(min=1e-9)).double().cpu().numpy()


def roughness(frames: np.ndarray) -> np.ndarray:
    """Return the mean step from pixel to pixel (B,) of frames (B, Y, X, 3), over their spread."""
    steps = np.abs(np.diff(frames.astype(np.int16), axis=2)).mean(axis=(1, 2, 3))
    return steps / (frames.reshape(len(frames), -1).std(axis=1) + 1)


class Guards:
    """What one agent refuses and of what it warns.

    Args:
        dynamics: What the agent plans with. A world model says where it was trained and, with
            start frames in its folder, what its pictures look like.
    """

    def __init__(self, dynamics: Any) -> None:
        self.model = dynamics if isinstance(dynamics, WorldModel) else None

    def check(self, observation: Mapping[str, np.ndarray]) -> None:
        """Refuse states and pictures that cannot be what they should be.

        Args:
            observation: A batch, each entry (B, ...).

        Raises:
            TypeError: If a picture is not uint8, or a state is no real numbers.
            ValueError: If a state is not finite or not in metres, radians and closedness; if the
                hand is elsewhere than the model was trained; if a picture has another shape or
                range.
        """
        if "pixels" not in observation:
            return
        for name in ("pixels", "goal_pixels"):
            if name in observation:
                _check_picture(name, observation[name])
        for name in ("observation", "goal_state"):
            if name in observation:
                _check_state(name, observation[name], self.model)

    def warn(
        self,
        observation: Mapping[str, np.ndarray],
        current: torch.Tensor,
        goal: torch.Tensor,
        warned: np.ndarray,
        fresh: np.ndarray,
    ) -> np.ndarray:
        """Warn of pictures unlike those of the training, once an episode.

        Goals are looked at when an episode starts, where their state is known.

        Args:
            observation: A batch, each entry (B, ...).
            current: (B, N, D), latents of `pixels`.
            goal: (B, N, D), of `goal_pixels`.
            warned: (B,) bool, of which episodes it was said before.
            fresh: (B,) bool, which of them start.

        Returns:
            (B,) bool, of which episodes it was said by now.
        """
        if self.model is None or "pixels" not in observation:
            return warned
        familiar = Familiar.of(self.model)
        if familiar is None:
            return warned
        views = [("pixels", "observation", current, ~warned)]
        if "goal_state" in observation:
            views.append(("goal_pixels", "goal_state", goal, ~warned & fresh))
        warned = warned.copy()
        for picture, state, latents, wanted in views:
            rows = np.flatnonzero(wanted)
            if not len(rows):
                continue
            states = torch.as_tensor(observation[state][rows], dtype=torch.float32)
            odd = familiar.unlike(self.model, latents[rows], states, observation[picture][rows])
            if odd.any():
                warned[rows[odd]] = True
                warnings.warn(
                    f"`{picture}` of the episodes {rows[odd].tolist()} of {len(warned)} look "
                    "unlike what the model was trained on, or do not fit the state: check camera, "
                    "orientation, exposure and units. What is planned from them means little. This "
                    "is said once an episode; MPCAgent(guards=False) does not look.",
                    UnfamiliarPictureWarning,
                    stacklevel=4,
                )
        return warned


def _check_picture(name: str, frames: np.ndarray) -> None:
    expected = "(Y, X, 3) uint8, red green blue in [0, 255]"
    if frames.dtype != np.uint8:
        scaled = frames.dtype.kind == "f" and frames.size and np.nanmax(frames) <= 1
        cure = "255 * picture, rounded and " * bool(scaled) + "cast to uint8"
        raise TypeError(f"`{name}` must be {expected}, got {frames.dtype}; give it {cure}.")
    if frames.ndim != 4 or frames.shape[-1] != 3:
        first = frames.ndim == 4 and frames.shape[1] == 3
        cure = "; move the channels to the end" if first else ""
        raise ValueError(f"`{name}` must be {expected}, got shape {frames.shape[1:]}{cure}.")
    if frames.size and frames.max() <= 1:
        raise ValueError(
            f"`{name}` must be {expected}, and its largest value is {frames.max()}: either it was "
            "in [0, 1] before it became uint8 (multiply by 255 first), or the camera gives nothing."
        )


def _check_state(name: str, states: np.ndarray, model: WorldModel | None) -> None:
    expected = "x y z (m), roll pitch yaw (rad), closedness in [0, 1]"
    if states.dtype.kind not in "fiu":
        raise TypeError(f"`{name}` must be 7 real numbers, {expected}; got {states.dtype}.")
    if not np.isfinite(states).all():
        raise ValueError(f"`{name}` must be 7 finite numbers, {expected}; got {states.tolist()}.")
    problem = unit_problem(states)
    if problem is not None:
        raise ValueError(f"`{name}` must be {expected}: {problem}.")
    if model is None or not any(model.config.state_mean):  # no figures of the training
        far = np.linalg.norm(states[:, :3], axis=1)
        if far.max() > REACH_M:
            place = states[far.argmax(), :3].tolist()
            raise ValueError(
                f"`{name}` says that the hand is at {place} m, {far.max():.2f} m from the robot's "
                f"base; the arm reaches less than {REACH_M} m. {_FRAME}"
            )
        return
    mean, std = np.array(model.config.state_mean), np.array(model.config.state_std)
    room = SPREADS * std[:6]
    room[3:] = np.maximum(room[3:], LEAST_ANGLE_RAD)
    off = states[:, :6] - mean[:6]
    off[:, 3:] = (off[:, 3:] + np.pi) % (2 * np.pi) - np.pi
    rows, columns = np.nonzero(np.abs(off) > room)
    if not len(rows):
        return
    row, column = rows[0], columns[0]
    low, high = mean[column] - room[column], mean[column] + room[column]
    unit = "m" if column < 3 else "rad"
    raise ValueError(
        f"`{name}` has {_NAMES[column]} = {states[row, column]:.3g} {unit}; the model was trained "
        f"with hands between {low:.2f} and {high:.2f} {unit}. {_FRAME}"
    )


_NAMES = ("x", "y", "z", "roll", "pitch", "yaw")
_FRAME = (
    "States are in the robot's base frame, of the hand or, for DROID, of the flange "
    "(`state_convention`). MPCAgent(guards=False) plans all the same."
)
