"""Model-predictive control: encode, imagine, choose the first action of the cheapest plan.

Works on a real environment (`pixels`, `goal_pixels`) and on `JEPALatent-v0`, where the latents are
the observation's `achieved_goal` and `desired_goal`. The cost is the energy of the imagined
latents, mean |z - goal|, as a mean over the path or of the last one; the proprioceptive goal term
on the gripper is off unless asked for, and an agent that uses it calls its goal "image+gripper". A
world model may be replaced by an ensemble or by the simulator, see `jepa_gym.agents.dynamics`.

Reference: V-JEPA 2 (arXiv 2506.09985), section 4. Deviations:

* The context is up to the model's `context_frames` real frames (officially the current one).
* Plans are offset-free, as in model-predictive control: holding still must give the observed
  frame, so what the model gets wrong about it is known and is taken off every imagined latent.
  Imagined frames are else never as near to a goal as real ones, and the hand wanders around a goal
  that it has reached.
* A plan must promise 0.01 less cost than holding still, else the agent holds still.
* The gripper acts by the sign of the planned change, and is imagined up to its stops only, see
  `jepa_gym.agents.planners.gripper`.
* A goal that is more than a few steps away is approached as an inverse model beside the world model
  proposes, where there is one: the energy of one imagined step tells only the straight way.

`MPCAgent.from_preset("published")` has none of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_gym.agents.base import ACTION_DIM, GRIPPER, Agent
from jepa_gym.agents.cost import CostSettings, PlanCost
from jepa_gym.agents.dynamics import Dynamics
from jepa_gym.agents.guards import Guards
from jepa_gym.agents.inverse_agent import Proposals, Proposer
from jepa_gym.agents.planners import make_planner
from jepa_gym.agents.planners.base import shifted
from jepa_gym.agents.planners.bounds import INFINITE, Bounds, Workspace, check_workspace
from jepa_gym.agents.planners.cem import CEMConfig
from jepa_gym.agents.planners.gripper import MODES, Gripper, carried_out
from jepa_gym.world_model import WorldModel

COSTS = ("last", "path")
PUBLISHED: dict[str, Any] = {
    "context_frames": 1,
    "cost": "last",
    "min_improvement": None,
    "gripper": "published",
    "offset_free": False,
    "readout_weight": 0.0,
    "proposals": False,
}
"""The arguments of `MPCAgent` that make it act as the official code, with its search."""


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
    warned: np.ndarray
    """(B,) bool, of which episodes it was said that a picture is unfamiliar."""


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
    """(B,), the cost imagined for it; +inf where there was nothing finite to choose by."""
    hold_energy: np.ndarray
    """(B,), the cost imagined for holding still."""
    current_energy: np.ndarray
    """(B,), the energy of the observed frame."""


@dataclass(frozen=True, slots=True)
class _Decision:
    """What was decided for some problems of a batch: `PlanRecord` as tensors, and more."""

    rows: torch.Tensor
    """(B,) int64, which problems."""
    actions: torch.Tensor
    energies: torch.Tensor
    action: torch.Tensor
    energy: torch.Tensor
    hold_energy: torch.Tensor
    plans: torch.Tensor
    """(B, K, H, 7), where the next search starts."""

    @staticmethod
    def joined(parts: Sequence[_Decision]) -> _Decision:
        """Join decisions, in the order of the batch.

        Searches that stopped sooner get copies of their last candidate, of cost +inf.
        """
        longest = max(part.energies.shape[1] for part in parts)
        order = torch.cat([part.rows for part in parts]).argsort()
        columns = {}
        for field in fields(_Decision):
            values = [getattr(part, field.name) for part in parts]
            if field.name in ("actions", "energies"):
                values = [_padded(value, longest) for value in values]
            columns[field.name] = torch.cat(values)[order]
        return _Decision(**columns)


def _padded(candidates: torch.Tensor, length: int) -> torch.Tensor:
    """Lengthen costs (B, M) by +inf, or candidates (B, M, H, 7) by copies of their last one."""
    more = candidates[:, -1:].expand(-1, length - candidates.shape[1], *candidates.shape[2:])
    more = torch.full_like(more, INFINITE) if candidates.ndim == 2 else more
    return torch.cat([candidates, more], dim=1)


class MPCAgent(Agent):
    """Plan with a world model at every step and carry out the first action.

    `last_plan` holds the candidates and energies of the latest call.

    Args:
        model: A world model, or the name or folder of a checkpoint, or other dynamics of
            `jepa_gym.agents.dynamics`.
        planner: A name of `jepa_gym.agents.planners.PLANNERS`.
        config: The planner's config, or None for its defaults.
        gripper_weight: Weight of |predicted - goal closedness| in the cost; 0 is image-only.
        context_frames: Real frames the model sees, or None for the model's own number.
        min_improvement: Cost that a plan must save against holding still, else hold still; None
            carries every plan out.
        gripper: How a planned change of the gripper is carried out, see
            `jepa_gym.agents.planners.gripper.Gripper`.
        offset_free: Correct every imagined latent by what the model gets wrong about holding
            still, which is known: the observed frame. The cost of holding still is then exact.
        cost: `path` takes the mean energy of all imagined frames, `last` that of the last one,
            which does not care how soon a plan arrives; the same where the horizon is 1.
        readout_weight: Weight in the cost of the difference between what the model's readout tells
            of the imagined and of the goal's latent (image-only); None for the model's own.
        proposals: Follow an inverse model's proposals (`jepa_gym.agents.inverse_agent`) while it
            expects the goal to be more than `near_steps` away and knows how to go on, and let its
            proposal be a start of the search else. None: if the model has one beside it.
        near_steps: Expected steps to the goal up to which the search decides.
        workspace: Lowest and highest x, y, z in metres that a plan may lead the hand to, or None.
        budget_s: Seconds for one search, see `Planner.plan`, or None.
        seed: Seed of the search, used afresh in every deterministic call.
        guards: Refuse states of wrong units, hands outside of where the model was trained and
            pictures of another kind, and warn once an episode, by `UnfamiliarPictureWarning`, of
            pictures that look unlike those of the training; see `jepa_gym.agents.guards`.

    Raises:
        ValueError: If a number is out of its range or the planner is unknown.
    """

    def __init__(
        self,
        model: Dynamics | str | Path = "default",
        planner: str = "cem",
        config: Any = None,
        gripper_weight: float = 0.0,
        context_frames: int | None = None,
        min_improvement: float | None = 0.01,
        gripper: Gripper = "full",
        offset_free: bool = True,
        cost: str = "path",
        readout_weight: float | None = None,
        proposals: bool | None = None,
        near_steps: float = 2.0,
        workspace: Workspace | None = None,
        budget_s: float | None = None,
        seed: int = 0,
        guards: bool = True,
    ) -> None:
        if not 0 <= gripper_weight < INFINITE:
            raise ValueError(f"`gripper_weight` must be at least 0, got {gripper_weight}.")
        if min_improvement is not None and not 0 <= min_improvement < INFINITE:
            raise ValueError(f"`min_improvement` must be at least 0, got {min_improvement}.")
        for name, value, allowed in (("gripper", gripper, MODES), ("cost", cost, COSTS)):
            if value not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {value!r}.")
        if budget_s is not None and not budget_s > 0:
            raise ValueError(f"`budget_s` must be above 0 seconds, got {budget_s}.")
        if readout_weight is not None and not 0 <= readout_weight < INFINITE:
            raise ValueError(f"`readout_weight` must be at least 0, got {readout_weight}.")
        if not 0 <= near_steps < INFINITE:
            raise ValueError(f"`near_steps` must be at least 0, got {near_steps}.")
        check_workspace(workspace)
        if isinstance(model, str | Path):
            model = WorldModel.from_pretrained(model)
        if context_frames is None:
            context_frames = model.context_frames
        if context_frames < 1:
            raise ValueError(f"`context_frames` must be at least 1, got {context_frames}.")
        self.model: Dynamics = model
        self.planner = make_planner(planner, config)
        self.gripper_weight = gripper_weight
        self.context_frames = context_frames
        self.min_improvement = min_improvement
        self.gripper: Gripper = gripper
        self.workspace = workspace
        self.budget_s = budget_s
        self.seed = seed
        self.guards = Guards(model) if guards else None
        self.near_steps = near_steps
        self.proposer = None if proposals is False else Proposer.of(model)
        if proposals and self.proposer is None:
            raise ValueError(
                "`proposals` is True, and the model has no inverse model beside it; train one with "
                "`jepa-gym amortise`."
            )
        self.last_plan: PlanRecord | None = None
        stops = gripper != "published"
        weight = model.readout_weight if readout_weight is None else readout_weight
        whole_path = cost == "path" and self.planner.config.horizon > 1
        self._settings = CostSettings(whole_path, offset_free, stops, gripper_weight, weight)
        self._generators: dict[torch.device, torch.Generator] = {}

    @classmethod
    def from_preset(cls, preset: str, planner: str = "cem", **changes: Any) -> MPCAgent:
        """Make an agent by name.

        Args:
            preset: `published`, search and agent of the official code (no offset correction, no
                rule for holding still, no warm start, the gripper as planned, one frame of context,
                800 samples and 10 iterations); `paper`, that budget with the search and the agent
                of this package; `default`.
            planner: `cem`, which the presets are of.
            **changes: Arguments of the constructor, in place of the preset's.

        Returns:
            The agent.

        Raises:
            ValueError: If the preset is unknown, or the planner another.
        """
        config = CEMConfig.preset(preset)
        if planner != "cem":
            raise ValueError(f"The preset `{preset}` is one of the planner `cem`, not `{planner}`.")
        arguments = {"config": config, **(PUBLISHED if preset == "published" else {}), **changes}
        return cls(planner=planner, **arguments)

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

        Episodes for which every cost is non-finite hold still, with a warning.

        Raises:
            ValueError: If entries are missing, memory does not fit, every cost of every episode is
                non-finite, or a guard refuses what was observed.
            TypeError: If a guard refuses the type of a picture or state.
        """
        if self.guards is not None:
            self.guards.check(observation)
        current, goal = self.model.observe(observation)
        closedness = self._goal_closedness(observation, current.device)
        states = torch.as_tensor(observation["observation"], dtype=torch.float32)
        memory = self._remember(state, current, states.to(current.device), episode_start)
        if self.guards is not None:
            fresh = (memory.lengths == 1).numpy()
            warned = self.guards.warn(observation, current, goal, memory.warned, fresh)
            memory = replace(memory, warned=warned)
        proposed = None
        if self.proposer is not None:
            proposed = self.proposer(current, memory.states[:, -1], goal)
        generator = self._generator(current.device, deterministic)
        random_state = generator.get_state()
        parts = []
        for length in memory.lengths.unique().tolist():
            rows = (memory.lengths == length).nonzero()[:, 0]
            generator.set_state(random_state)  # a plan does not depend on the other episodes
            cost = PlanCost(
                self.model,
                memory.latents[rows, -length:],
                memory.states[rows, -length:],
                goal[rows],
                None if closedness is None else closedness[rows],
                self.planner.config.horizon,
                self._settings,
            )
            parts.append(self._decide(rows, cost, memory, generator, proposed))
        decision = _Decision.joined(parts)
        _check_energies(decision.energy)
        self.last_plan = PlanRecord(
            actions=decision.actions.cpu().numpy(),
            energies=decision.energies.cpu().numpy(),
            action=decision.action.cpu().numpy(),
            energy=decision.energy.cpu().numpy(),
            hold_energy=decision.hold_energy.cpu().numpy(),
            current_energy=self.model.energy(current[:, None], goal)[:, 0].cpu().numpy(),
        )
        return self.last_plan.action, replace(memory, plans=decision.plans)

    def _decide(
        self,
        rows: torch.Tensor,
        cost: PlanCost,
        memory: Memory,
        generator: torch.Generator,
        proposed: Proposals | None,
    ) -> _Decision:
        """Search for the problems `rows` of the memory, which are of one context length."""
        states, starts = memory.states[rows, -1], memory.plans[rows]
        bounds = Bounds(self.planner.config, self.workspace, states[:, :3], generator.device)
        init = starts
        if proposed is not None:
            first = torch.zeros_like(cost.hold)
            first[:, 0, 0] = proposed.actions[rows]
            init = torch.cat([first, starts], dim=1)
        init = init if init.shape[1] else None
        plan = self.planner.plan(
            cost, len(rows), generator, init, bounds=bounds, budget_s=self.budget_s
        )
        hold_cost = cost(cost.hold)[:, 0]
        moves = plan.cost.isfinite()
        sound = moves & hold_cost.isfinite()
        if self.min_improvement is not None:
            moves = sound & (plan.cost < hold_cost - self.min_improvement)
        action = torch.where(moves[:, None], plan.actions[:, 0], 0)
        energy = torch.where(moves, plan.cost, torch.where(sound, hold_cost, INFINITE))
        action = carried_out(action, states[:, GRIPPER], self.gripper)
        if proposed is not None:
            followed = bounds.clip(first)
            followed_cost = cost(followed)[:, 0]
            far = (proposed.steps[rows] > self.near_steps) & proposed.moves_on[rows]
            far &= sound & followed_cost.isfinite()
            action = torch.where(far[:, None], followed[:, 0, 0], action)
            energy = torch.where(far, followed_cost, energy)
            moves &= ~far  # the next search does not start from a plan that was not followed
        if starts.shape[1]:
            following = shifted(plan.cheapest(starts.shape[1]))
            starts = torch.where(moves[:, None, None, None], following, 0)
        return _Decision(
            rows=rows,
            actions=plan.candidates,
            energies=plan.candidate_costs,
            action=action,
            energy=energy,
            hold_energy=hold_cost,
            plans=starts,
        )

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
            return Memory(latents, states, lengths, plans, np.zeros(len(lengths), bool))
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
        plans = torch.where(starts, plans, memory.plans)
        return Memory(latents, states, lengths, plans, memory.warned & ~episode_start)

    def _generator(self, device: torch.device, deterministic: bool) -> torch.Generator:
        """Return a freshly seeded generator, or the agent's running one."""
        if deterministic:
            return torch.Generator(device).manual_seed(self.seed)
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]


def _check_energies(energies: torch.Tensor) -> None:
    """Warn if some of the energies (B,) are not finite, refuse if all are."""
    broken = (~energies.isfinite()).nonzero()[:, 0].tolist()
    if not broken:
        return
    told = "no finite energy to plan with; check that checkpoint and observation are sound."
    if len(broken) == len(energies):
        raise ValueError(f"The world model gave {told}")
    warnings.warn(
        f"Episodes {broken} of {len(energies)} hold still: the world model gave {told}",
        RuntimeWarning,
        stacklevel=4,
    )
