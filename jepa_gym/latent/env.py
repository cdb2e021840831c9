"""JEPALatent-v0: the learned dynamics as a goal environment."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ClosedEnvironmentError

from jepa_gym.checkpoint.beside import DECODER
from jepa_gym.checkpoint.start_frames import StartFrames
from jepa_gym.latent.episodes import LatentEpisodes, load_model
from jepa_gym.latent.rendering import Decoder, draw
from jepa_gym.world_model import WorldModel

_ROW = np.array([0])


class JEPALatentEnv(gym.Env):
    """An episode imagined by a world model, from a real start frame to a real goal frame.

    ## Action space
    `Box(7,)` float32 in physical units: translation (m), extrinsic-xyz rotation (rad), change of
    gripper closedness. Actions out of bounds raise, unless made with `clip_actions=True`. An action
    is the change that happens, nothing stops it: a full closing means an empty hand, a grasp closes
    as far as the object would let it. With `action_set="xyz"` or `"xyz+gripper"` it is `Box(3,)` or
    `Box(4,)` and the rest stays still: random moves in all seven dimensions leave the data of the
    default model after one step (`ood` 2.7 against .6 to .8 without rotation). With
    `rescale_actions=True` the numbers are in [-1, 1], 1 being the bound.

    ## Observation space
    `Dict`: `observation` (7,) the state by composition of the actions; `achieved_goal` (N, D) the
    imagined latent; `desired_goal` (N, D) the latent of the goal frame.

    ## Rewards
    `energy`: minus the energy, the mean absolute difference of achieved and desired latent.
    `progress`: energy before the step minus energy after it (potential-based). `sparse`: 0 at the
    goal, else -1. `compute_reward` is vectorised. At the goal means a hand within 4 cm of where it
    is there and a gripper as far open, as the success detector beside the model judges from both
    latents (`jepa-gym success-detector` trains one; its card has the figures), or without one an
    energy below the model's calibrated `success_energy`, which misses a third of such frames.

    ## Starting state
    A held-out real frame of the checkpoint with its goal, drawn from the seed (see `starts`).
    Options of `reset`: `index`, the frame to start from; or a start of one's own: `frame` (Y, X, 3)
    uint8, `state` (7,), `goal` (Y, X, 3) uint8 or its latent (N, D), and, if known, `goal_state`
    (7,). `latent_starts.start_options(observation)` makes these of what a real environment shows.

    ## Episode end
    Truncation after 10 steps, and by `max_ood`. It never terminates. Errors add up: of the default
    model, the energy between imagined and real frames is .12 after one step, .17 after four and .24
    after ten, where real frames one step apart have .47.

    ## Info
    `energy`; `success` and `is_success` (at the goal, see above; False where nothing tells it);
    `ood`, the out-of-distribution score: distance (root mean square) of the latent to the nearest
    of the real start and goal frames, over the largest that one of these has to its own nearest
    neighbour; or the same of the standardised state, if that is larger. 1: as far as real frames
    are from each other. NaN without such frames. An imagined latent can look real and be wrong: the
    score does not see that.
    `source` and `index` of the start; `goal_state` if known; after a step `reward_energy`, and with
    `progress` the `previous_achieved_goal` that `compute_reward` needs.

    ## Context
    The model sees the last `context_frames` frames; their keys and values are computed anew in
    each step, because each has another place in the window than before. A window is never longer
    than the clips that the model was trained on (`train_frames`).

    ## Arguments
    * `checkpoint`: ``default``, or what `WorldModel.from_pretrained` takes; `model`: a loaded
      `WorldModel` to use instead (it brings its folder's start frames).
    * `reward`, `clip_actions`, `action_set`, `rescale_actions`: see above.
    * `render_mode`: None or ``rgb_array``: the present frame beside the goal, framed green while
      real and red once imagined, as the `decoder` draws it (a module from latents (B, N, D) to
      pictures (B, Y, X, 3) in [0, 1]). By default that is the decoder in the checkpoint's folder
      (`jepa-gym decode` trains one), read at the first `render`. Without one: start frame, goal
      frame, and below them the energy over the steps.
    * `starts`: ``checkpoint``, ``dataset``, ``given`` (in the options of `reset`; without them the
      last given one again) or the id of a registered environment, which is reset with a seed drawn
      from the episode's own for each start; `data`: what ``dataset`` or the environment needs (see
      `latent_starts.make_source`).
    * `max_ood`: the score above which an episode is truncated.
    * `context_frames`: None for the model's own number, at most its `train_frames`.
    * `dtype`: ``float32``, or ``bfloat16`` for the predictor's matrix products; encoding, states
      and energies stay in float32.
    * `device`: where to load the checkpoint, ``cpu`` by default; a given model stays where it is.

    ## Version history
    * v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        checkpoint: str | Path = "default",
        model: WorldModel | None = None,
        reward: str = "energy",
        clip_actions: bool = False,
        render_mode: str | None = None,
        starts: str = "checkpoint",
        data: StartFrames | Mapping[str, Any] | str | Path | None = None,
        max_ood: float | None = None,
        context_frames: int | None = None,
        dtype: str = "float32",
        device: str | None = None,
        decoder: Decoder | None = None,
        action_set: str = "all",
        rescale_actions: bool = False,
    ) -> None:
        check_render_mode(render_mode)
        self.model = load_model(checkpoint, model, device)
        self._episodes = LatentEpisodes(
            self.model,
            1,
            starts=starts,
            data=data,
            reward=reward,
            clip_actions=clip_actions,
            max_ood=max_ood,
            context_frames=context_frames,
            dtype=dtype,
            action_set=action_set,
            rescale_actions=rescale_actions,
        )
        self._closed = False
        self.render_mode, self.decoder = render_mode, decoder
        self.observation_space = self._episodes.observation_space
        self.action_space = self._episodes.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start from a real frame.

        Args:
            seed: Decides everything that follows.
            options: `index`, or `frame`, `state`, `goal` and `goal_state` (see the class).

        Raises:
            ValueError, TypeError: When an option is unknown, out of range, or of another shape or
                kind than the model takes.
        """
        self._check_open()
        super().reset(seed=seed)
        episodes = self._episodes
        episodes.reset(_ROW, [episodes.start(0, options, self.np_random)])
        return self._observation(), episodes.info(_ROW)[0]

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Imagine one step.

        Args:
            action: (7,) physical units, or as `action_set` and `rescale_actions` say.

        Raises:
            ValueError: When the action has the wrong shape, is not finite, or is out of bounds;
                nothing has happened then.
            RuntimeError: Before the first reset.
            ClosedEnvironmentError: After `close`.
        """
        self._check_open()
        episodes = self._episodes
        action = episodes.physical(action)
        truncated = bool(episodes.step(_ROW, action[None])[0])
        reward = float(episodes.rewards(_ROW)[0])
        return self._observation(), reward, False, truncated, episodes.info(_ROW)[0]

    def compute_reward(
        self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any
    ) -> np.ndarray | float:
        """Return the reward of a pair of latents, or of many.

        Args:
            achieved_goal: (..., N, D), after the step.
            desired_goal: (..., N, D).
            info: Of `progress`: that of the step, or a list of them; else not used.

        Returns:
            (...,), a float for a single pair.

        Raises:
            ValueError: When `progress` finds no `previous_achieved_goal`.
        """
        return self._episodes.reward(achieved_goal, desired_goal, info)

    def get_state(self) -> dict[str, Any]:
        """Return everything the episode's future depends on; `set_state` takes it back."""
        random = copy.deepcopy(self.np_random.bit_generator.state)
        return {"episodes": self._episodes.get_state(), "random": random}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state of `get_state`.

        Raises:
            ValueError: If it is another environment's.
        """
        self._episodes.set_state(state["episodes"])
        self.np_random.bit_generator.state = copy.deepcopy(state["random"])

    def render(self) -> np.ndarray | None:
        """Return the picture that the class describes, uint8; None without a `render_mode`.

        Raises:
            RuntimeError: Before the first reset.
            CheckpointError: When the checkpoint's decoder cannot be used.
        """
        if self.render_mode is None:
            return None
        self.decoder = self.decoder or DECODER.own(self.model)
        return draw(self._episodes, [0], self.decoder)[0]

    def close(self) -> None:
        """Close the environment that starts come from, if there is one; it takes no more steps."""
        self._closed = True
        self._episodes.source.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedEnvironmentError("This environment is closed; make a new one.")

    def _observation(self) -> dict[str, np.ndarray]:
        return {key: value[0] for key, value in self._episodes.observation(_ROW).items()}


def check_render_mode(render_mode: str | None) -> None:
    """Raise a ValueError unless the mode is None or ``rgb_array``."""
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"`render_mode` must be None or 'rgb_array', got {render_mode!r}")
