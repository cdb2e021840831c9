"""JEPALatent-v0: the learned dynamics as a goal environment."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from jepa_gym import checkpoints, poses
from jepa_gym.world_model import WorldModel

_BAR_ROWS = 32
_BAR_COLOUR = (230, 120, 30)


class JEPALatentEnv(gym.Env):
    """An episode imagined by a world model, from a real start frame to a real goal frame.

    ## Action space
    `Box(7,)` float32 in physical units: translation (m), extrinsic-xyz rotation (rad), change of
    gripper closedness. Actions out of bounds raise, unless made with `clip_actions=True`.

    ## Observation space
    `Dict`: `observation` (7,) the state by composition of the actions; `achieved_goal` (N, D) the
    imagined latent; `desired_goal` (N, D) the latent of the goal frame.

    ## Rewards
    Minus the energy: the mean absolute difference of achieved and desired latent.

    ## Starting state
    A held-out real frame of the checkpoint with its goal, drawn from the seed, or
    `options={"index": i}`.

    ## Episode end
    Truncation after 10 steps. It never terminates. `info` holds `energy`, `success` and
    `is_success` (energy below the configuration's `success_energy`; False when that is unset),
    and `goal_state`.

    ## Arguments
    `checkpoint`: ``default`` or a folder; `model`: a loaded `WorldModel` to use instead (it brings
    its folder's start frames); `reward`: ``energy``; `clip_actions`; `render_mode`: None or
    ``rgb_array`` (start frame, goal frame, and below them the energy over the steps).

    ## Version history
    * v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        checkpoint: str = "default",
        model: WorldModel | None = None,
        reward: str = "energy",
        clip_actions: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if reward != "energy":
            raise ValueError(f"`reward` must be 'energy', got {reward!r}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"`render_mode` must be None or 'rgb_array', got {render_mode!r}")
        self.model = WorldModel.from_pretrained(checkpoint) if model is None else model
        if self.model.folder is None:
            raise ValueError(
                "`model` was not loaded from a folder, so there are no start frames; save it with "
                "save_pretrained, add them with checkpoints.write_starts, and load it again"
            )
        self._starts = _starts_for(self.model, self.model.folder)
        self.clip_actions, self.render_mode = clip_actions, render_mode
        config = self.model.config
        tokens = (config.num_tokens, config.encoder.latent_dim)
        # a layer-normed vector of D numbers has no entry beyond sqrt(D)
        latent = spaces.Box(-np.sqrt(tokens[1]), np.sqrt(tokens[1]), tokens, np.float32)
        angle = np.nextafter(np.float32(np.pi), np.float32(4))
        high = np.array([2, 2, 2, angle, angle, angle, 1], np.float32)
        low = np.array([-2, -2, -2, -angle, -angle, -angle, 0], np.float32)
        self.observation_space = spaces.Dict(
            observation=spaces.Box(low, high), achieved_goal=latent, desired_goal=latent
        )
        bounds = np.array(config.action_bounds, np.float32)
        self.action_space = spaces.Box(-bounds, bounds)
        self._latents: torch.Tensor | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start from a real frame.

        Args:
            seed: Decides everything that follows.
            options: `index` chooses the start.

        Raises:
            ValueError: When `options` has another key or the index is out of range.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        index = options.pop("index", None)
        if options:
            raise ValueError(f"`options` may hold 'index' only, got also {sorted(options)}")
        if index is None:
            index = int(self.np_random.integers(len(self._starts)))
        if not 0 <= index < len(self._starts):
            raise ValueError(f"`index` must be in [0, {len(self._starts) - 1}], got {index}")
        starts = self._starts
        frames = np.stack([starts.frames[index], starts.goal_frames[index]])
        start, goal = self.model.encode(torch.from_numpy(frames)[None])[0]
        self._index = index
        self._latents = start[None, None]  # (1, T, N, D), the last frames
        self._states = torch.from_numpy(starts.states[index]).to(start)[None, None]  # (1, T, 7)
        self._goal = goal
        self._goal_array = goal.cpu().numpy()
        self._energies = [float(self.model.energy(self._latents[:, -1], goal[None]))]
        return self._observation(), self._info()

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Imagine one step.

        Args:
            action: (7,) physical units.

        Raises:
            ValueError: When the action has the wrong shape, is not finite, or is out of bounds.
        """
        latents, states = self._current()
        move = torch.from_numpy(self._checked(action)).to(states)
        future = self.model.rollout(latents, states, move[None, None, None])[:, :, 0]
        kept = self.model.config.context_frames
        self._latents = torch.cat([latents, future], 1)[:, -kept:]
        state = poses.compose(states[:, -1:], move)
        self._states = torch.cat([states, state], 1)[:, -kept:]
        self._energies.append(float(self.model.energy(future[:, 0], self._goal[None])))
        observation, info = self._observation(), self._info()
        reward = self.compute_reward(
            observation["achieved_goal"], observation["desired_goal"], info
        )
        info["reward_energy"] = reward
        return observation, float(reward), False, False, info

    def compute_reward(
        self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any
    ) -> np.ndarray | float:
        """Return minus the energy.

        Args:
            achieved_goal: (..., N, D).
            desired_goal: (..., N, D).
            info: Not used.

        Returns:
            (...,), a float for a single pair.
        """
        reward = -np.abs(np.asarray(achieved_goal) - desired_goal).mean((-2, -1))
        return float(reward) if reward.ndim == 0 else reward

    def get_state(self) -> dict[str, Any]:
        """Return everything the episode's future depends on; `set_state` takes it back."""
        self._current()
        return {
            "index": self._index,
            "latents": self._latents,
            "states": self._states,
            "goal": self._goal,
            "energies": list(self._energies),
            "random": copy.deepcopy(self.np_random.bit_generator.state),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state of `get_state`."""
        self._index = state["index"]
        self._latents, self._states, self._goal = state["latents"], state["states"], state["goal"]
        self._goal_array = self._goal.cpu().numpy()
        self._energies = list(state["energies"])
        self.np_random.bit_generator.state = copy.deepcopy(state["random"])

    def render(self) -> np.ndarray | None:
        """Return start and goal frame with a bar per step for the energy, (Y + 32, 2 X, 3) uint8.

        The bars are relative to the largest energy of the episode; there is no picture of the
        imagined frame.
        """
        if self.render_mode is None:
            return None
        self._current()
        start, goal = self._starts.frames[self._index], self._starts.goal_frames[self._index]
        picture = np.concatenate([start, goal], axis=1)
        strip = np.zeros((_BAR_ROWS, picture.shape[1], 3), np.uint8)
        width = max(1, picture.shape[1] // max(len(self._energies), 11))
        for number, energy in enumerate(self._energies):
            rows = round((_BAR_ROWS - 2) * energy / max(*self._energies, 1e-9))
            strip[_BAR_ROWS - rows :, number * width : (number + 1) * width - 1] = _BAR_COLOUR
        return np.concatenate([picture, strip])

    def _current(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._latents is None:
            raise RuntimeError("call reset() first")
        return self._latents, self._states

    def _checked(self, action: np.ndarray) -> np.ndarray:
        """Return a valid float32 action or say what is wrong with it."""
        action = np.asarray(action, np.float32)
        low, high = self.action_space.low, self.action_space.high
        if action.shape != low.shape:
            raise ValueError(f"`action` must have shape {low.shape}, got {action.shape}")
        if not np.isfinite(action).all():
            raise ValueError(f"`action` must be finite, got {action}")
        if self.clip_actions:
            return np.clip(action, low, high)
        if (action < low).any() or (action > high).any():
            raise ValueError(
                f"`action` must be within +-{high.tolist()}, got {action.tolist()}; "
                "make the environment with clip_actions=True to clip instead"
            )
        return action

    def _observation(self) -> dict[str, np.ndarray]:
        latents, states = self._current()
        return {
            "observation": states[0, -1].cpu().numpy().copy(),
            "achieved_goal": latents[0, -1].cpu().numpy().copy(),
            "desired_goal": self._goal_array.copy(),
        }

    def _info(self) -> dict[str, Any]:
        threshold = self.model.config.success_energy
        success = threshold is not None and self._energies[-1] < threshold
        return {
            "energy": self._energies[-1],
            "is_success": success,
            "success": success,
            "goal_state": self._starts.goal_states[self._index].copy(),
        }


def _starts_for(model: WorldModel, folder: Path) -> checkpoints.StartFrames:
    """Read a model's start frames and check their size."""
    starts = checkpoints.read_starts(folder)
    frame = model.config.frame
    if starts.frames.shape[1:] != (frame.height, frame.width, 3):
        raise checkpoints.CheckpointError(
            f"the start frames in {folder} are {starts.frames.shape[1:]}, "
            f"the model takes {(frame.height, frame.width, 3)}"
        )
    return starts
