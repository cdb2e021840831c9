"""Acting by a policy that was trained in a world model's imagination alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from jepa_gym.agents.base import ACTION_DIM, Agent
from jepa_gym.checkpoint.beside import POLICY
from jepa_gym.models.latent_policy import MOVEMENT_DIM
from jepa_gym.world_model import WorldModel


class ImaginedPolicyAgent(Agent):
    """Move the hand as the policy beside a world model says; hand's turn and gripper stay.

    Args:
        model: A world model, or its name or folder.
        policy: Folder of the policy, or None for the model's own.

    Raises:
        ValueError: If there is none beside the model.
        FileNotFoundError, CheckpointError: If there is none in `policy`, or it cannot be used.
    """

    def __init__(
        self, model: WorldModel | str | Path = "default", policy: str | Path | None = None
    ) -> None:
        if isinstance(model, str | Path):
            model = WorldModel.from_pretrained(model)
        network = POLICY.own(model) if policy is None else POLICY.read(policy, model)
        if network is None:
            raise ValueError(
                f"the model {model.folder or ''} has no policy beside it; train one with "
                f"`{POLICY.command} --checkpoint FOLDER`, or give its folder as `policy`"
            )
        self.model, self.network = model, network

    @torch.no_grad()
    def act(
        self,
        observation: dict[str, np.ndarray],
        state: None,
        episode_start: np.ndarray,
        deterministic: bool,
    ) -> tuple[np.ndarray, None]:
        """Choose actions for a batch of observations, with no memory; see `Agent.act`."""
        current, goal = self.model.observe(observation)
        actions = np.zeros((len(current), ACTION_DIM), np.float32)
        bound = self.model.config.frame.max_move_m
        actions[:, :MOVEMENT_DIM] = bound * self.network(current, goal).cpu().numpy()
        return actions, None
