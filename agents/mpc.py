"""Model-predictive control: encode, imagine, choose the first action of the cheapest plan.

Works on a real environment (`pixels`, `goal_pixels`) and on `JEPALatent-v0`, where the latents are
the observation's `achieved_goal` and `desired_goal`. The cost is the energy of the last imagined
latent, mean |z - goal|, or its mean over the path; the proprioceptive goal term on the gripper is
off unless asked for, and an agent that uses it calls its goal "image+gripper". A world model may be
replaced by an ensemble or by the simulator, see `jepa_gym.agents.dynamics`.

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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_gym.agents.base import ACTION_DIM, GRIPPER, Agent
from jepa_gym.agents.dynamics import imagined_energies, up_to_the_stops
from jepa_gym.agents.planners import make_planner
from jepa_gym.agents.planners.base import shifted
from jepa_gym.agents.planners.bounds import Bounds, check_workspace

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
    plans: torch.Tensor
    """(B, K, H, 7), where the next search starts; K is 0 if the planner starts each anew."""


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
        model: A world model, or the name or folder of a checkpoint, or another model of
            `jepa_gym.agents.dynamics`.
        planner: A name of `jepa_gym.agents.planners.PLANNERS`.
        config: The planner's config, or None for its defaults.
        gripper_weight: Weight of |predicted - goal closedness| in the cost; 0 is image-only.
        context_frames: Real frames the model sees, or None for the model's own number.
        min_improvement: Cost that a plan must save against holding still, else hold still.
        gripper: `full` carries a planned change of the gripper out as a full opening or closing,
            `exact` as planned.
        offset_free: Correct every imagined latent by what the model gets wrong about holding
            still, which is known: the observed frame. The cost of holding still is then exact.
        cost: `last` takes the energy of the last imagined frame, `path` the mean over all.
        workspace: Lowest and highest x, y, z in metres that a plan may lead the hand to, or None.
        budget_s: Seconds for one search, see `Planner.plan`, or None.
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
        cost: str = "last",
        workspace: tuple[Sequence[float], Sequence[float]] | None = None,
        budget_s: float | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 <= gripper_weight < float("inf"):
            raise ValueError(f"`gripper_weight` must be at least 0, got {gripper_weight}.")
        if not 0 <= min_improvement < float("inf"):
            raise ValueError(f"`min_improvement` must be at least 0, got {min_improvement}.")
        if gripper not in ("full", "exact"):
            raise ValueError(f'`gripper` must be "full" or "exact", got {gripper!r}.')
        if cost not in ("last", "path"):
            raise ValueError(f'`cost` must be "last" or "path", got {cost!r}.')
        if budget_s is not None and not budget_s > 0:
            raise ValueError(f"`budget_s` must be above 0 seconds, got {budget_s}.")
        check_workspace(workspace)
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
        self.cost = cost
        self.workspace = workspace
        self.budget_s = budget_s
        self.seed = seed
        self.last_plan: PlanRecord | None = None
        self._generators: dict[torch.device, torch.Generator] = {}

    @property
    def goal(self) -> str:
        """How the goal is given: "image", or "image+gripper" with the proprioceptive term."""
        return "image+gripper" if self.gripper_weight else "image"

    @torch.no_grad()  # not inference mode: gradient planners differentiate through the memory
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
            records.append(
                (rows, self._plan(latents, poses, target, memory.plans[rows], generator))
            )
        order = torch.cat([rows for rows, _ in records]).argsort()
        parts = zip(*(fields for _, fields in records), strict=True)
        *fields, plans = (_stack(part)[order] for part in parts)
        current_energy = self.model.energy(current[:, None], goal)[:, 0]
        arrays = [field.cpu().numpy() for field in (*fields, current_energy)]
        self.last_plan = PlanRecord(*arrays)
        return self.last_plan.action, replace(memory, plans=plans)

    def _plan(
        self,
        latents: torch.Tensor,
        states: torch.Tensor,
        target: tuple[torch.Tensor, torch.Tensor | None],
        starts: torch.Tensor,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, ...]:
        """Search for problems of one context length.

        Returns:
            The first fields of `PlanRecord`, and where the next search starts (B, K, H, 7).
        """
        goal, closedness = target
        hold = torch.zeros(len(latents), 1, self.planner.config.horizon, ACTION_DIM)
        hold = hold.to(generator.device)
        held = hold if self.offset_free else None
        energies = imagined_energies(self.model, latents, states, goal, self.cost, held)

        def cost(actions: torch.Tensor) -> torch.Tensor:
            actions, predicted = up_to_the_stops(states[:, -1, GRIPPER], actions)
            energy = energies(actions)
            if closedness is None:
                return energy
            return energy + self.gripper_weight * (predicted - closedness[:, None]).abs()

        limits = self.planner.config.limits()
        bounds = Bounds(**limits, workspace=self.workspace, position=states[:, -1, :3])
        init = starts if starts.shape[1] else None
        plan = self.planner.plan(
            cost, len(latents), generator, init, bounds=bounds, budget_s=self.budget_s
        )
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
        if starts.shape[1]:
            following = shifted(plan.cheapest(starts.shape[1]))
            starts = torch.where(moves[:, None, None, None], following, 0)
        return plan.candidates, plan.candidate_costs, action, energy, hold_cost, starts

    def _latents(self, observation: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the observed and the goal's latents, each (B, N, D)."""
        if hasattr(self.model, "observe"):
            return self.model.observe(observation)
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
        config = self.planner.config
        shape = (len(latents), config.warm_start, config.horizon, ACTION_DIM)
        plans = torch.zeros(shape, device=latents.device)
        latents, states = latents[:, None], states[:, None]
        if memory is None:
            return Memory(latents, states, lengths, plans)
        if len(memory.lengths) != len(lengths):
            raise ValueError(
                f"`state` remembers {len(memory.lengths)} episodes, the observation has "
                f"{len(lengths)}; pass state=None to start anew."
            )
        latents = torch.cat([memory.latents, latents], dim=1)[:, -self.context_frames :]
        states = torch.cat([memory.states, states], dim=1)[:, -self.context_frames :]
        lengths = (memory.lengths + 1).clamp(max=self.context_frames)
        starts = torch.tensor(episode_start)
        lengths = torch.where(starts, 1, lengths)
        starts = starts[:, None, None, None].to(plans.device)
        return Memory(latents, states, lengths, torch.where(starts, plans, memory.plans))

    def _generator(self, device: torch.device, deterministic: bool) -> torch.Generator:
        """Return a freshly seeded generator, or the agent's running one."""
        if deterministic:
            return torch.Generator(device).manual_seed(self.seed)
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]


def _stack(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join batches; searches that stopped sooner get copies of their last candidate, of cost +inf.

    Args:
        parts: (B, M) costs, (B, M, H, 7) candidates, or others of one shape but for the batch.
    """
    if len({part.shape[1:] for part in parts}) == 1:
        return torch.cat(tuple(parts))
    longest = max(part.shape[1] for part in parts)
    padded = []
    for part in parts:
        more = part[:, -1:].expand(-1, longest - part.shape[1], *part.shape[2:])
        more = torch.full_like(more, torch.inf) if part.ndim == 2 else more
        padded.append(torch.cat([part, more], dim=1))
    return torch.cat(padded)
