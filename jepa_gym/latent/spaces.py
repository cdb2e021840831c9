"""The observation space that `JEPALatent-v0` and the wrappers of real environments share."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from jepa_gym.config import WorldModelConfig


def observation_space(config: WorldModelConfig) -> spaces.Dict:
    """Return the observation space of `JEPALatent-v0` for a model."""
    tokens = (config.num_tokens, config.encoder.latent_dim)
    # a layer-normed vector of D numbers has no entry beyond sqrt(D)
    latent = spaces.Box(-np.sqrt(tokens[1]), np.sqrt(tokens[1]), tokens, np.float32)
    angle = np.nextafter(np.float32(np.pi), np.float32(4))
    high = np.array([2, 2, 2, angle, angle, angle, 1], np.float32)
    low = np.array([-2, -2, -2, -angle, -angle, -angle, 0], np.float32)
    return spaces.Dict(observation=spaces.Box(low, high), achieved_goal=latent, desired_goal=latent)
