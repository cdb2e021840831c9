"""Episodes imagined together: what `JEPALatentEnv` and `JEPALatentVectorEnv` share.

n environments with the latents and states of their last frames, right-aligned in windows of at most
C frames. One predictor imagines the next step of all that have the same number of frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_gym import poses
from jepa_gym.config import STATE_DIM
from jepa_gym.latent.action_sets import ActionSet
from jepa_gym.latent.rewards import LatentReward, RealFrames, SuccessTest, energies
from jepa_gym.latent.spaces import observation_space
from jepa_gym.latent.starts import NoSource, Start, make_source, read_start
from jepa_gym.world_model import WorldModel

DTYPES = ("float32", "bfloat16")


def load_model(checkpoint: str | Path, model: WorldModel | None, device: str | None) -> WorldModel:
    """Load the checkpoint, or return the model that was given.

    Raises:
        ValueError: When a given model is on another device.
    """
    if model is None:
        return WorldModel.from_pretrained(checkpoint, device or "cpu")
    own = model.device
    wanted = own if device is None else torch.device(device)
    if wanted.type != own.type or wanted.index not in (None, own.index):
        raise ValueError(f"`model` is on {own}, `device` is {device!r}; move it with model.to()")
    return model


class LatentEpisodes:
    """n imagined episodes; nothing here is changed in place, so a state is a set of references."""

    def __init__(
        self,
        model: WorldModel,
        count: int,
        *,
        starts: str,
        data: Any,
        reward: str,
        clip_actions: bool,
        max_ood: float | None,
        context_frames: int | None,
        dtype: str,
        action_set: str,
        rescale_actions: bool,
    ) -> None:
        """Prepare n episodes; see `JEPALatentEnv` for the arguments.

        Raises:
            ValueError: When an argument is not allowed.
            CheckpointError, FileNotFoundError: When there are no start frames.
        """
        config = model.config
        if dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {DTYPES}, got {dtype!r}")
        if max_ood is not None and not max_ood > 0:
            raise ValueError(f"`max_ood` must be None or positive, got {max_ood!r}")
        frames = config.context_frames if context_frames is None else context_frames
        if not isinstance(frames, int) or not 1 <= frames <= config.train_frames:
            raise ValueError(
                f"`context_frames` must be an int in [1, {config.train_frames}], the frames of the "
                f"clips that the model was trained on, got {frames!r}"
            )
        self.source = make_source(starts, data, config, model.folder)
        if max_ood is not None and self.source.reference is None:
            raise ValueError(
                "`max_ood` needs real frames to compare with, and this model has none; give "
                "starts='dataset', or add them with jepa_gym.checkpoint.start_frames.write_starts"
            )
        self.model = model
        self._success_test = SuccessTest(model)
        self.reward = LatentReward(reward, self._success_test)
        self.clip_actions, self.max_ood = clip_actions, max_ood
        self.context_frames, self.narrow = frames, dtype == "bfloat16"
        self.observation_space = observation_space(config)
        self._actions = ActionSet(config.action_bounds, action_set, rescale_actions)
        self.action_space = self._actions.space
        self.device = model.device
        self._real: RealFrames | None = None
        tokens = (config.num_tokens, config.encoder.latent_dim)
        self._latents = torch.zeros(count, frames, *tokens, device=self.device)
        self._states = torch.zeros(count, frames, STATE_DIM, device=self.device)
        self._goals = np.zeros((count, *tokens), np.float32)
        self._previous = self._achieved = self._goals
        self._success = np.zeros(count, bool)
        self._steps = np.full(count, -1)
        self._ood = np.zeros(count)
        self._energies: list[tuple[float, ...]] = [()] * count
        self.starts: list[Start | None] = [None] * count

    # ---- what happens

    def start(self, row: int, options: Mapping[str, Any] | None, rng: np.random.Generator) -> Start:
        """Return where an episode is to start.

        Without options a start is drawn; one that has to be given is the last given one again.

        Raises:
            ValueError, TypeError: When an option is not as the model takes it.
        """
        last = self.starts[row]
        if not options and last is not None and isinstance(self.source, NoSource):
            return last
        return read_start(options, self.model.config, self.source, rng)

    def reset(self, rows: np.ndarray, starts: Sequence[Start]) -> None:
        """Start the episodes `rows` (k,) from k starts of `start`."""
        first, goals = self._encoded(starts)
        window = torch.zeros(len(rows), *self._latents.shape[1:], device=self.device)
        window[:, -1] = first
        states = torch.zeros(len(rows), *self._states.shape[1:], device=self.device)
        given = np.stack([start.state for start in starts])
        states[:, -1] = torch.from_numpy(given).to(self.device)
        self._goals = _replaced(self._goals, rows, goals.cpu().numpy())
        self._steps = _replaced(self._steps, rows, 0)
        self._energies, self.starts = list(self._energies), list(self.starts)
        for row, start in zip(rows, starts, strict=True):
            self._energies[row], self.starts[row] = (), start
        self._arrive(rows, window, states)
        self._previous = _replaced(self._previous, rows, self._achieved[rows])

    def step(self, rows: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Imagine one step of the episodes `rows` (k,) with actions (k, 7) of `physical`.

        Returns:
            (k,) bool, which are to be truncated because they are out of distribution.

        Raises:
            RuntimeError: When one of them was not started.
        """
        if (self._steps[rows] < 0).any():
            raise RuntimeError("call reset() first")
        moves = torch.from_numpy(actions).to(self.device)
        lengths = np.minimum(self._steps[rows] + 1, self.context_frames)
        window, states = _taken(self._latents, rows), _taken(self._states, rows)
        future = torch.empty(len(rows), *window.shape[2:], device=self.device)
        for length in np.unique(lengths).tolist():
            members = np.flatnonzero(lengths == length)
            context, poses_so_far, move = (_taken(x, members) for x in (window, states, moves))
            imagined = self._imagined(context[:, -length:], poses_so_far[:, -length:], move)
            future[torch.from_numpy(members).to(self.device)] = imagined
        state = poses.compose(states[:, -1], moves)
        self._previous = _replaced(self._previous, rows, self._achieved[rows])
        self._steps = _replaced(self._steps, rows, self._steps[rows] + 1)
        self._arrive(
            rows,
            torch.cat([window[:, 1:], future[:, None]], 1),
            torch.cat([states[:, 1:], state[:, None]], 1),
        )
        if self.max_ood is None:
            return np.zeros(len(rows), bool)
        return self._ood[rows] > self.max_ood

    def physical(self, actions: np.ndarray, count: int | None = None) -> np.ndarray:
        """Return the actions (7,) or (count, 7) float32 that a user's mean.

        Raises:
            ValueError: When the shape is another, or an action is not finite or out of bounds.
        """
        return self._actions.physical(actions, count, clip=self.clip_actions)

    # ---- what is seen

    def observation(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the observations of `rows` (k,), each entry (k, ...); copies."""
        if (self._steps[rows] < 0).any():
            raise RuntimeError("call reset() first")
        states = _taken(self._states, rows)[:, -1].cpu().numpy()
        return {
            "observation": np.array(states),
            "achieved_goal": self._achieved[rows],
            "desired_goal": self._goals[rows],
        }

    def info(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Return the info of each of `rows` (k,)."""
        infos = []
        for row in rows:
            start, energy = self.start_of(row), self._energies[row][-1]
            success = bool(self._success[row])
            info = {
                "energy": energy,
                "is_success": success,
                "success": success,
                "ood": float(self._ood[row]),
                "source": start.source,
                "index": start.index,
            }
            if start.goal_state is not None:
                info["goal_state"] = start.goal_state.copy()
            if self._steps[row]:
                info["reward_energy"] = -energy
                if self.reward.kind == "progress":
                    info["previous_achieved_goal"] = self._previous[row].copy()
            infos.append(info)
        return infos

    def rewards(self, rows: np.ndarray) -> np.ndarray:
        """Return the rewards (k,) float64 of the last step of `rows` (k,)."""
        info = {"previous_achieved_goal": self._previous[rows]}
        return np.asarray(self.reward(self._achieved[rows], self._goals[rows], info), np.float64)

    def start_of(self, row: int) -> Start:
        """Return the start of the running episode `row`; RuntimeError before the first reset."""
        start = self.starts[row]
        if start is None:
            raise RuntimeError("call reset() first")
        return start

    def steps(self, rows: np.ndarray) -> np.ndarray:
        """Return how many steps of the episodes `rows` (k,) were imagined."""
        return self._steps[rows]

    def picture(self, row: int) -> tuple[Tensor, np.ndarray, tuple[float, ...]]:
        """Return an episode's present latent (N, D), its goal's, and the energies of its frames."""
        return self._latents[row, -1], self._goals[row], self._energies[row]

    def get_state(self) -> dict[str, Any]:
        """Return everything the episodes' future depends on, but for random generators."""
        return {name: getattr(self, name) for name in _STATE}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state of `get_state`.

        Raises:
            ValueError: When it is of another number of environments or another model.
        """
        expected, got = tuple(self._latents.shape), tuple(state["_latents"].shape)
        if got != expected:
            raise ValueError(
                f"`state` holds latents (environments, context, N, D) = {got}, here they are "
                f"{expected}; it belongs to another environment"
            )
        for name in _STATE:
            setattr(self, name, state[name])

    # ---- internals

    def _imagined(self, latents: Tensor, states: Tensor, moves: Tensor) -> Tensor:
        """Return the next latents (k, N, D) of contexts (k, T, N, D)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.narrow):
            future = self.model.rollout(latents, states, moves[:, None, None])
        return future[:, 0, 0].float()

    def _arrive(self, rows: np.ndarray, window: Tensor, states: Tensor) -> None:
        """Take over the windows (k, C, ...) of `rows` with their energies."""
        self._latents = _put(self._latents, rows, window)
        self._states = _put(self._states, rows, states)
        achieved = window[:, -1].cpu().numpy()
        self._achieved = _replaced(self._achieved, rows, achieved)
        energy = energies(achieved, self._goals[rows])
        self._energies = list(self._energies)
        for row, value in zip(rows, energy.tolist(), strict=True):
            self._energies[row] = (*self._energies[row], value)
        reached = self._success_test(achieved, self._goals[rows])
        self._success = _replaced(self._success, rows, reached)
        self._ood = _replaced(self._ood, rows, self._distances(window[:, -1], states[:, -1]))

    def _encoded(self, starts: Sequence[Start]) -> tuple[Tensor, Tensor]:
        """Return the latents (k, N, D) of frames and goals."""
        goal_frames = [start.goal for start in starts if start.goal_is_frame]
        latents = self._encode(np.stack([*(start.frame for start in starts), *goal_frames]))
        first, encoded = latents[: len(starts)], iter(latents[len(starts) :])
        goals = [
            next(encoded) if start.goal_is_frame else torch.from_numpy(start.goal).to(self.device)
            for start in starts
        ]
        return first, torch.stack(goals)

    def _encode(self, frames: np.ndarray) -> Tensor:
        return self.model.encode(frames[:, None])[:, 0]

    def _distances(self, latents: Tensor, states: Tensor) -> np.ndarray:
        """Return the scores (k,) of latents (k, N, D) and states (k, 7)."""
        found = self.source.reference
        if found is None:
            return np.full(len(latents), np.nan)
        if self._real is None:
            self._real = RealFrames(found, self.model, self._encode)
        return self._real.score(latents, states)


_STATE = ("_latents", "_states", "_goals", "_previous", "_achieved", "_steps", "_ood")
_STATE += ("_energies", "_success", "starts")


def _taken(values: Tensor, rows: np.ndarray) -> Tensor:
    """Return the rows of a tensor, without a copy if they are all."""
    if len(rows) == len(values):
        return values
    return values[torch.from_numpy(rows).to(values.device)]


def _put(values: Tensor, rows: np.ndarray, new: Tensor) -> Tensor:
    """Return a tensor with other rows; the old one is not changed."""
    if len(rows) == len(values):
        return new
    values = values.clone()
    values[torch.from_numpy(rows).to(values.device)] = new
    return values


def _replaced(values: np.ndarray, rows: np.ndarray, new: Any) -> np.ndarray:
    """Return an array with other rows; the old one is not changed."""
    values = values.copy()
    values[rows] = new
    return values
