"""Model-predictive control: encode, imagine, choose the first action of the cheapest plan.

Works on a real environment (`pixels`, `goal_pixels`) and on `JEPALatent-v0`, where the latents are
the observation's `achieved_goal` and `desired_goal`. The cost is the energy of the last imagined
latent, mean |z - goal|; the proprioceptive goal term on the gripper is off unless asked for, and an
agent that uses it calls its goal "image+gripper".

Reference: V-JEPA 2 (arXiv 2506.09985), section 4. Deviations:

* The context is up to the model's `context_frames` real frames (officially the current one).
* Plans are offset-free, as in model-predictive control: holding still must give the observed
  frame, so what the model gets wrong about it is known and is taken off every imagined latent.
  Imagined frames are else never as near to a goal as real ones, and the hand wanders around a goal
  that it has reached.
* A plan must promise 0.01 less cost than holding still, else the agent holds still.
* Changes of the gripper are imagined up to its stops only.

The gripper acts by the sign of the planned change, fully open or fully closed, as the maintainers
of V-JEPA 2 advise (their issue 54): closing just as far as a goal image shows would touch the
object without squeezing it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_gym.agents.base import ACTION_DIM, GRIPPER, Agent
from jepa_gym.agents.planners import make_planner

NO_CHANGE = 0.05
"""Changes of the gripper below this are not carried out by an agent that opens and closes fully."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The latest frames of every episode in the batch; what `predict` hands from call to call."""

    latents: torch.Tensor
    """(B, T, N, D), the latest frame last."""
    states: torch.Tensor
    """(B, T, 7)."""
    lengths: torch.Tensor
    """(B,) int64, how many of the last frames belong to the running episode."""


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """What the agent imagined in its latest call, for pictures and logs (NumPy arrays)."""

    actions: np.ndarray
    """(B, M, H, 7), every candidate that was imagined."""
    energies: np.ndarray
    """(B, M), their costs; +inf where not finite."""
    action: np.ndarray
    """(B, 7), the action chosen."""
    energy: np.ndarray
    """(B,), the cost imagined for it."""
    hold_energy: np.ndarray
    """(B,), the cost imagined for holding still."""
    current_energy: np.ndarray
    """(B,), the energy of the observed frame."""


class MPCAgent(Agent):
    """Plan with a world model at every step and carry out the first action.

    `last_plan` holds the candidates and energies of the latest call.

    Args:
        model: A world model, or the name or folder of a checkpoint.
        planner: A name of `jepa_gym.agents.planners.PLANNERS`.
        config: The planner's config, or None for its defaults.
        gripper_weight: Weight of |predicted - goal closedness| in the cost; 0 is image-only.
        context_frames: Real frames the model sees, or None for the model's own number.
        min_improvement: Cost that a plan must save against holding still, else hold still.
        gripper: `full` carries a planned change of the gripper out as a full opening or closing,
            `exact` as planned.
        offset_free: Correct every imagined latent by what the model gets wrong about holding
            still, which is known: the observed frame. The cost of holding still is then exact.
        seed: Seed of the search, used afresh in every deterministic call.

    Raises:
        ValueError: If a number is out of its range or the planner is unknown.
    """

    def __init__(
        self,
        model: Any = "default",
        planner: str = "cem",
        config: Any = None,
        gripper_weight: float = 0.0,
        context_frames: int | None = None,
        min_improvement: float = 0.01,
        gripper: str = "full",
        offset_free: bool = True,
        seed: int = 0,
    ) -> None:
        if not 0 <= gripper_weight < float("inf"):
            raise ValueError(f"`gripper_weight` must be at least 0, got {gripper_weight}.")
        if not 0 <= min_improvement < float("inf"):
            raise ValueError(f"`min_improvement` must be at least 0, got {min_improvement}.")
        if gripper not in ("full", "exact"):
            raise ValueError(f'`gripper` must be "full" or "exact", got {gripper!r}.')
        if isinstance(model, str | Path):
            from jepa_gym.world_model import WorldModel

            model = WorldModel.from_pretrained(model)
        if context_frames is None:
            context_frames = model.config.context_frames
        if context_frames < 1:
            raise ValueError(f"`context_frames` must be at least 1, got {context_frames}.")
        self.model = model
        self.planner = make_planner(planner, config)
        self.gripper_weight = gripper_weight
        self.context_frames = context_frames
        self.min_improvement = min_improvement
        self.gripper = gripper
        self.offset_free = offset_free
        self.seed = seed
        self.last_plan: PlanRecord | None = None
        self._generators: dict[torch.device, torch.Generator] = {}

    @property
    def goal(self) -> str:
        """How the goal is given: "image", or "image+gripper" with the proprioceptive term."""
        return "image+gripper" if self.gripper_weight else "image"

    @torch.inference_mode()
    def act(
        self,
        observation: dict[str, np.ndarray],
        state: Memory | None,
        episode_start: np.ndarray,
        deterministic: bool,
    ) -> tuple[np.ndarray, Memory]:
        """Plan for a batch of observations; see `Agent.act`.

        Raises:
            ValueError: If entries are missing, memory does not fit, or every cost is non-finite.
        """
        current, goal = self._latents(observation)
        closedness = self._goal_closedness(observation, current.device)
        states = torch.as_tensor(observation["observation"], dtype=torch.float32)
        memory = self._remember(state, current, states.to(current.device), episode_start)
        generator = self._generator(current.device, deterministic)
        random_state = generator.get_state()
        records: list[tuple[torch.Tensor, tuple[torch.Tensor, ...]]] = []
        for length in memory.lengths.unique().tolist():
            rows = (memory.lengths == length).nonzero()[:, 0]
            latents, poses = memory.latents[rows, -length:], memory.states[rows, -length:]
            generator.set_state(random_state)  # a plan does not depend on the other episodes
            target = (goal[rows], None if closedness is None else closedness[rows])
            records.append((rows, self._plan(latents, poses, target, generator)))
        order = torch.cat([rows for rows, _ in records]).argsort()
        fields = (torch.cat(parts)[order] for parts in zip(*(r for _, r in records), strict=True))
        current_energy = self.model.energy(current[:, None], goal)[:, 0]
        arrays = [field.cpu().numpy() for field in (*fields, current_energy)]
        self.last_plan = PlanRecord(*arrays)
        return self.last_plan.action, memory

    def _plan(
        self,
        latents: torch.Tensor,
        states: torch.Tensor,
        target: tuple[torch.Tensor, torch.Tensor | None],
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, ...]:
        """Search for problems of one context length; the first fields of `PlanRecord`."""
        goal, closedness = target
        hold = torch.zeros(len(latents), 1, self.planner.config.horizon, ACTION_DIM)
        hold = hold.to(generator.device)
        offset = torch.zeros_like(latents[:, -1:])
        if self.offset_free:
            offset = latents[:, -1:] - self.model.rollout(latents, states, hold)[:, :, -1]

        def cost(actions: torch.Tensor) -> torch.Tensor:
            actions, predicted = up_to_the_stops(states[:, -1, GRIPPER], actions)
            future = self.model.rollout(latents, states, actions)  # (B, S, H, N, D)
            last = future[:, :, -1]
            energy = self.model.energy(last + offset, goal.to(last.device)).to(actions.device)
            if closedness is None:
                return energy
            return energy + self.gripper_weight * (predicted - closedness[:, None]).abs()

        plan = self.planner.plan(cost, len(latents), generator)
        hold_cost = cost(hold)[:, 0]
        if not bool((plan.cost.isfinite() & hold_cost.isfinite()).all()):
            raise ValueError(
                "The world model gave no finite energy to plan with; check that checkpoint and "
                "observation are sound."
            )
        moves = plan.cost < hold_cost - self.min_improvement
        action = torch.where(moves[:, None], plan.actions[:, 0], 0)
        action = up_to_the_stops(states[:, -1, GRIPPER], action[:, None, None])[0][:, 0, 0]
        if self.gripper == "full":
            change = action[:, GRIPPER]
            action[:, GRIPPER] = torch.where(change.abs() < NO_CHANGE, 0, change.sign())
        energy = torch.where(moves, plan.cost, hold_cost)
        return plan.candidates, plan.candidate_costs, action, energy, hold_cost

    def _latents(self, observation: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the observed and the goal's latents, each (B, N, D)."""
        if "pixels" in observation and "goal_pixels" in observation:
            frames = np.stack([observation["pixels"], observation["goal_pixels"]], axis=1)
            latents = self.model.encode(torch.from_numpy(frames))  # (B, 2, N, D)
            return latents[:, 0], latents[:, 1]
        current, goal = observation.get("achieved_goal"), observation.get("desired_goal")
        if current is None or goal is None or current.ndim != 3:
            raise ValueError(
                "Planning needs `pixels` and `goal_pixels` (make the environment with "
                'obs_mode="both") or the latents of JEPALatent-v0, got the entries '
                f"{ {key: value.shape for key, value in observation.items()} }."
            )
        current, goal = torch.from_numpy(current), torch.from_numpy(goal)
        return current, goal

    def _goal_closedness(
        self, observation: dict[str, np.ndarray], device: torch.device
    ) -> torch.Tensor | None:
        """Return the goal's closedness (B,) if the cost uses it."""
        if not self.gripper_weight:
            return None
        if "goal_state" not in observation:
            raise ValueError(
                f"`gripper_weight` is {self.gripper_weight}, which needs the observation's "
                f"`goal_state`; it has {', '.join(observation)}."
            )
        states = torch.as_tensor(observation["goal_state"], dtype=torch.float32)
        return states[:, GRIPPER].to(device)

    def _remember(
        self,
        memory: Memory | None,
        latents: torch.Tensor,
        states: torch.Tensor,
        episode_start: np.ndarray,
    ) -> Memory:
        """Add the observed latents (B, N, D) and states (B, 7) to the memory."""
        lengths = torch.ones(len(latents), dtype=torch.int64)
        latents, states = latents[:, None], states[:, None]
        if memory is None:
            return Memory(latents, states, lengths)
        if len(memory.lengths) != len(lengths):
            raise ValueError(
                f"`state` remembers {len(memory.lengths)} episodes, the observation has "
                f"{len(lengths)}; pass state=None to start anew."
            )
        latents = torch.cat([memory.latents, latents], dim=1)[:, -self.context_frames :]
        states = torch.cat([memory.states, states], dim=1)[:, -self.context_frames :]
        lengths = (memory.lengths + 1).clamp(max=self.context_frames)
        lengths = torch.where(torch.tensor(episode_start), 1, lengths)
        return Memory(latents, states, lengths)

    def _generator(self, device: torch.device, deterministic: bool) -> torch.Generator:
        """Return a freshly seeded generator, or the agent's running one."""
        if deterministic:
            return torch.Generator(device).manual_seed(self.seed)
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]


def up_to_the_stops(
    closedness: torch.Tensor, actions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Integrate the gripper's closedness, and shorten changes that go beyond its stops.

    Args:
        closedness: (B,) in [0, 1], now.
        actions: (B, S, H, 7).

    Returns:
        The actions with the changes that can be carried out, and the closedness (B, S) in [0, 1]
        after the last one.
    """
    if actions.shape[-1] != ACTION_DIM:
        raise ValueError(f"`actions` must end in {ACTION_DIM}, got {tuple(actions.shape)}.")
    actions = actions.clone()
    predicted = closedness[:, None].expand(actions.shape[:2])
    for step in range(actions.shape[2]):
        after = (predicted + actions[:, :, step, GRIPPER]).clamp(0, 1)
        actions[:, :, step, GRIPPER] = after - predicted
        predicted = after
    return actions, predicted
