"""Acting by an instruction in words: another agent, whose goal is what the instruction leads to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_gym.agents.base import Agent, Observation
from jepa_gym.checkpoint.beside import INSTRUCTION
from jepa_gym.instructions import BESIDE, KINDS, MOVES, word_numbers
from jepa_gym.world_model import WorldModel

INSTRUCTION_KEY = "instruction"


@dataclass(frozen=True, slots=True)
class Told:
    """What is remembered of B episodes."""

    goals: np.ndarray
    """(B, N, D), latents of the goals."""
    places: np.ndarray
    """(B, 3) metres, where the hand goes; NaN where the instruction is about something else."""
    words: np.ndarray
    """(B, L), of the instructions that they follow from."""
    inner: Any
    """The memory of the agent that acts."""


class InstructedAgent(Agent):
    """Take an observation's `instruction` as the goal, and let another agent reach it.

    An instruction about a place of the hand becomes how far the hand goes; the goal is the latent
    that the world model imagines for that move from the present frame. Moves are understood where
    an episode starts or the instruction changes, a place beside an object anew in every step. For
    all other instructions the goal is predicted in the first frame and kept: to grasp and to lift
    the nearest recorded one. Goal images, if there are some, are not looked at.

    Args:
        model: A world model with an instruction model beside it, or its name or folder.
        agent: Who acts: an agent on the model's latents, or the name of one (`mpc-cem`, `gc-idm`).

    Raises:
        ValueError: If there is no instruction model.
    """

    def __init__(
        self, model: WorldModel | str | Path = "default", agent: Agent | str = "mpc-cem"
    ) -> None:
        if isinstance(model, str | Path):
            model = WorldModel.from_pretrained(model)
        network = INSTRUCTION.own(model)
        if network is None:
            raise ValueError(
                f"the model {model.folder or ''} has no {INSTRUCTION.called} beside it; train one "
                f"with `{INSTRUCTION.command} --checkpoint FOLDER`"
            )
        if isinstance(agent, str):
            from jepa_gym.agents import make_agent

            agent = make_agent(agent, model=model)
        self.model, self.network, self.agent = model, network, agent

    def predict(
        self,
        observation: Observation,
        state: Any = None,
        episode_start: np.ndarray | bool | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """Choose actions; see `Agent.predict`.

        Args:
            observation: With `pixels`, or the latent `achieved_goal` of `JEPALatent-v0`, and
                `instruction`, one sentence or one for each of the batch.
            state: As for all agents.
            episode_start: As for all agents.
            deterministic: As for all agents.

        Raises:
            ValueError: If there is no instruction, or one with a word that is not known.
        """
        if not isinstance(observation, Mapping) or INSTRUCTION_KEY not in observation:
            raise ValueError(
                "the agent `instructed` needs the observation's entry `instruction`, a sentence "
                "such as 'put the hand above the cup'"
            )
        seen = {k: x for k, x in observation.items() if k not in (INSTRUCTION_KEY, "goal_pixels")}
        said = observation[INSTRUCTION_KEY]
        batched = np.ndim(seen["observation"]) == 2
        sentences = [str(said)] if isinstance(said, str) else [str(one) for one in said]
        if not batched and len(sentences) != 1:
            raise ValueError(f"one observation takes one instruction, got {len(sentences)}")
        words = np.stack([word_numbers(sentence) for sentence in sentences])
        if batched:
            words = words.repeat(len(seen["observation"]) // len(words), axis=0)
        seen["words"] = words if batched else words[0]
        return super().predict(seen, state, episode_start, deterministic)

    def act(
        self,
        observation: dict[str, np.ndarray],
        state: Told | None,
        episode_start: np.ndarray,
        deterministic: bool,
    ) -> tuple[np.ndarray, Told]:
        """Act for a batch; see `Agent.act`."""
        latents = self._latents(observation)
        words, states = observation["words"], observation["observation"]
        goals, places, moving = self._understand(latents, states, words)
        if state is not None:
            new = episode_start | (state.words != words).any(1)
            goals = np.where(new[:, None, None], goals, state.goals)
            places = np.where((new | ~moving)[:, None], places, state.places)
        for row in np.flatnonzero(np.isfinite(places).all(1)):
            goals[row] = self._imagined(latents[row], states[row], places[row] - states[row, :3])
        inner = {
            "observation": states,
            "achieved_goal": latents.float().cpu().numpy(),
            "desired_goal": goals,
        }
        actions, memory = self.agent.act(
            inner, None if state is None else state.inner, episode_start, deterministic
        )
        return actions, Told(goals, places, words, memory)

    @torch.no_grad()
    def _understand(
        self, latents: torch.Tensor, states: np.ndarray, words: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return goals (B, N, D), places (B, 3) and whether they are moves (B,) bool."""
        seen = torch.as_tensor(states, dtype=torch.float32).to(latents.device)
        numbers = torch.from_numpy(words).to(latents.device)
        meaning = self.network(latents, self.model.normaliser.states(seen), numbers)
        kinds = meaning.kinds.argmax(1)
        goals = self.network.nearest_recorded(meaning.goals, kinds).float().cpu().numpy()
        names = [KINDS[kind] for kind in kinds.tolist()]
        about_place = np.array([name in (*BESIDE, *MOVES) for name in names])
        places = states[:, :3] + meaning.moves.cpu().numpy()
        places[~about_place] = np.nan
        return goals, places, np.array([name in MOVES for name in names])

    @torch.no_grad()
    def _imagined(self, latents: torch.Tensor, state: np.ndarray, move: np.ndarray) -> np.ndarray:
        """Return the latent (N, D) that a move (3,) m of the hand leads to, or its first steps."""
        bound = self.model.config.frame.max_move_m
        steps = max(1, int(np.ceil(np.abs(move).max() / bound)))
        known = self.model.config.train_frames - 1  # farther is extrapolation
        actions = torch.zeros(1, 1, min(steps, known), 7)
        actions[..., :3] = torch.as_tensor(move / steps, dtype=torch.float32)
        seen = torch.as_tensor(state, dtype=torch.float32).to(latents.device)[None, None]
        imagined = self.model.rollout(latents[None, None], seen, actions.to(latents.device))
        return imagined[0, 0, -1].float().cpu().numpy()

    def _latents(self, observation: dict[str, np.ndarray]) -> torch.Tensor:
        """Return the latents (B, N, D) of what is seen."""
        pixels = observation.get("pixels")
        if pixels is not None:
            return self.model.encode(pixels[:, None])[:, 0]
        return self.model.observe(observation | {"desired_goal": observation["achieved_goal"]})[0]
