"""Acting by an inverse model alone, and its proposals for agents that plan.

An inverse model (`jepa_gym.models.inverse`) is trained beside a world model, on its latents. It
sees the way to a goal that is many steps away, which one imagined step does not, and needs no
search; what it proposes is not checked by anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from jepa_gym.agents.base import GRIPPER, Agent
from jepa_gym.agents.planners.gripper import carried_out
from jepa_gym.checkpoint.beside import BEHAVIOUR, INVERSE, Beside
from jepa_gym.models import BehaviourTransformer, InverseModel
from jepa_gym.world_model import WorldModel

MAX_ROTATION_RAD = 0.3
"""Bound of a step's rotation about each axis, as that of the environments."""
LEAST_MOVE_M = 0.015
"""Length of a move up to which a proposal counts as none."""
Network = InverseModel | BehaviourTransformer
_READ: WeakKeyDictionary[WorldModel, dict[str, Network | None]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Proposals:
    """What is proposed for B observations."""

    actions: torch.Tensor
    """(B, 7), within the model's bounds, the gripper carried out fully and up to its stops."""
    steps: torch.Tensor
    """(B,), steps that are expected to be left."""
    moves_on: torch.Tensor
    """(B,) bool, whether the hand moves by more than `LEAST_MOVE_M` or the gripper changes. Where
    neither does, the inverse model does not know how to go on, whatever it expects."""


class Proposer:
    """The inverse model of a world model, in physical units.

    Args:
        model: Gives units and bounds.
        network: Trained beside it.
    """

    def __init__(self, model: WorldModel, network: Network) -> None:
        self.model, self.network = model, network

    @classmethod
    def of(cls, model: Any, kind: Beside[Any] = INVERSE) -> Proposer | None:
        """Return that of a world model, read once; None where there is none.

        Args:
            model: What may have one beside it.
            kind: Which of the networks.

        Raises:
            CheckpointError: If its file cannot be used.
        """
        if not isinstance(model, WorldModel):
            return None
        read = _READ.setdefault(model, {})
        if kind.file not in read:
            read[kind.file] = kind.own(model)
        network = read[kind.file]
        return None if network is None else cls(model, network.to(model.device))

    @torch.no_grad()
    def __call__(
        self, latents: torch.Tensor, states: torch.Tensor, goals: torch.Tensor
    ) -> Proposals:
        """Propose the next actions.

        Args:
            latents: (B, N, D), of what is observed.
            states: (B, 7).
            goals: (B, N, D).
        """
        guess = self.network(latents, self.model.normaliser.states(states), goals)
        actions = guess.actions(self.model.normaliser.action_scale)
        bound = self.model.config.frame.max_move_m
        actions[:, :3] = actions[:, :3].clamp(-bound, bound)
        actions[:, 3:6] = actions[:, 3:6].clamp(-MAX_ROTATION_RAD, MAX_ROTATION_RAD)
        actions = carried_out(actions, states[:, GRIPPER], "full")
        moves_on = (actions[:, :3].norm(dim=-1) > LEAST_MOVE_M) | (actions[:, GRIPPER] != 0)
        return Proposals(actions, guess.expected_steps(), moves_on)


class InverseAgent(Agent):
    """Carry out what the inverse model proposes.

    Args:
        model: A world model with an inverse model beside it, or its name or folder.

    Raises:
        ValueError: If it has none.
    """

    kind: Beside[Any] = INVERSE
    """Which network acts."""

    def __init__(self, model: WorldModel | str | Path = "default") -> None:
        if isinstance(model, str | Path):
            model = WorldModel.from_pretrained(model)
        proposer = Proposer.of(model, self.kind)
        if proposer is None:
            raise ValueError(
                f"the model {model.folder or ''} has no {self.kind.called} beside it; train one "
                f"with `{self.kind.command} --checkpoint FOLDER`"
            )
        self.model, self.proposer = model, proposer

    def act(
        self,
        observation: dict[str, np.ndarray],
        state: None,
        episode_start: np.ndarray,
        deterministic: bool,
    ) -> tuple[np.ndarray, None]:
        """Choose actions for a batch of observations, with no memory; see `Agent.act`."""
        current, goal = self.model.observe(observation)
        states = torch.as_tensor(observation["observation"], dtype=torch.float32)
        proposed = self.proposer(current, states.to(current.device), goal)
        return proposed.actions.cpu().numpy(), None


class BehaviourAgent(InverseAgent):
    """Carry out what a behaviour-cloning transformer beside a world model chooses.

    Args:
        model: A world model with a behaviour transformer beside it, or its name or folder.

    Raises:
        ValueError: If it has none.
    """

    kind = BEHAVIOUR
