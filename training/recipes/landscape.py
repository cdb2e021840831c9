"""What a planner sees: where the energy over actions has its minimum, on episodes not trained on.

A lower prediction loss does not plan better, so checkpoints are chosen by these figures. For a
pair of frames, candidate actions are imagined from the first and compared with the second.

* near: the frames are one step apart; the best translation (7.5 cm box, three rounds of a grid
  that shrinks around the best point) against the true one, in cm per axis.
* gripper: same frames; the best change of closedness against the true one. Half of the pairs open
  or close by more than 0.3, half do not.
* far: the goal is 10 to 20 cm away; the share of goals that the best single action comes closer to.

A kind that the data has too few of (a gripper that rests, moves that are slow) is left out, and
named in `Landscape.left_out`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jepa_gym import poses
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.world_model import WorldModel

FAR_M = (0.10, 0.20)
GRIPPER_MOVED = 0.3
SUCCESS_DISTANCE_M = 0.04
SAME_OPENING = 0.25
"""Difference of closedness up to which two grippers are equally open."""
FALSE_SUCCESS_RATE = 0.05
ROUNDS = 3
POINTS = 5
FEWEST = 4
"""Pairs of a kind below which its figures say nothing."""


@dataclass(frozen=True)
class Pairs:
    """P pairs of frames, each with the context before it."""

    latents: Tensor
    """(P, C, N, D), the last is the frame to act from."""
    states: Tensor
    """(P, C, 7)."""
    goals: Tensor
    """(P, N, D)."""
    goal_states: Tensor
    """(P, 7)."""
    cameras: Tensor | None = None
    """(P, 6) poses of the camera, for a predictor that uses them."""

    def energies(self, model: WorldModel, actions: Tensor) -> Tensor:
        """Return the energies (P, S) of candidate actions (P, S, 7) after one imagined step."""
        device = self.latents.device
        states, actions = self.states.to(device), actions.to(device)
        actions = actions[:, :, None]
        if self.cameras is None:
            return model.rollout_energy(self.latents, states, actions, self.goals).cpu()
        rollout = model.prepare(self.latents, states, extrinsics=self.cameras)
        return rollout.energy(actions, self.goals).cpu()


class Landscape:
    """A fixed set of pairs to measure models on."""

    def __init__(
        self, arrays: ClipArrays, pairs: int = 24, context: int = 2, seed: int = 0
    ) -> None:
        """Choose the pairs.

        Args:
            arrays: A split that is not trained on.
            pairs: Most pairs per kind.
            context: Real frames C that the imagination starts from.
            seed: Decides the pairs.

        Raises:
            ValueError: If the split has hardly any frame with `context` - 1 frames before it and
                one after it.
        """
        self.arrays, self.context = arrays, context
        rng = np.random.default_rng((seed, 77))
        moved = np.abs(arrays.actions[..., 6]) > GRIPPER_MOVED
        moved[:, : context - 1] = False
        still = ~moved
        still[:, : context - 1] = False
        self.near = _choose(rng, [(e, t, t + 1) for e, t in np.argwhere(moved | still)], pairs)
        if len(self.near) < FEWEST:
            raise ValueError(
                f"{len(arrays.rows)} episodes of {arrays.states.shape[1]} frames hold "
                f"{len(self.near)} pairs of successive frames to measure a model on, {FEWEST} are "
                "needed: collect more episodes"
            )
        opened = [(e, t, t + 1) for e, t in np.argwhere(moved)]
        resting = [(e, t, t + 1) for e, t in np.argwhere(still)]
        half = min(pairs // 2, len(opened), len(resting))
        self.gripper = _choose(rng, opened, half) + _choose(rng, resting, half)
        self.far = _choose(rng, _far_pairs(arrays.states, context), pairs)
        self.left_out: dict[str, str] = {}
        if len(self.gripper) < FEWEST:
            self.gripper, self.left_out["gripper"] = [], f"the gripper moves {len(opened)} times"
        if len(self.far) < FEWEST:
            self.left_out["far"] = f"{len(self.far)} goals are 10 to 20 cm away"
            self.far = []

    @torch.no_grad()
    def evaluate(self, model: WorldModel) -> dict[str, float]:
        """Measure a model in evaluation mode.

        Args:
            model: The world model.

        Returns:
            `x_cm`, `y_cm`, `z_cm` (mean absolute error of the minimum), `gripper_error` (mean
            absolute error of the closedness), `gripper_right` (share below 0.25), `far_closer`
            (share), `far_progress` (mean share of the possible approach), `one_step_over_copy`
            (L1 of the prediction over that of the unchanged frame) and `landscape_error`: the mean
            of the errors along x, y, z and of the gripper, each over its action bound. What was
            left out is missing.
        """
        errors, over_copy = self._near(model)
        relative = errors.mean(0) / model.config.frame.max_move_m
        figures = {f"{axis}_cm": 100 * errors[:, i].mean().item() for i, axis in enumerate("xyz")}
        if self.gripper:
            gripper = self._gripper(model)
            relative = torch.cat([relative, gripper.mean()[None]])
            figures["gripper_error"] = gripper.mean().item()
            figures["gripper_right"] = (gripper < SAME_OPENING).float().mean().item()
        if self.far:
            figures["far_closer"], figures["far_progress"] = self._far(model)
        return figures | {
            "one_step_over_copy": over_copy,
            "landscape_error": relative.mean().item(),
        }

    def load(self, model: WorldModel, pairs: list[tuple[int, int, int]]) -> Pairs:
        """Encode (episode, frame, goal frame) triples.

        Args:
            model: The world model.
            pairs: Indices into the split.
        """
        arrays, first = self.arrays, 1 - self.context
        clips = np.stack([arrays.clip(e, t + first, t + 1) for e, t, _ in pairs])
        goals = np.stack([arrays.clip(e, g, g + 1) for e, _, g in pairs])
        states = np.stack([arrays.states[e, t + first : t + 1] for e, t, _ in pairs])
        goal_states = np.stack([arrays.states[e, g] for e, _, g in pairs])
        cameras = None
        if model.config.predictor.use_extrinsics and arrays.extrinsics is not None:
            cameras = torch.from_numpy(np.stack([arrays.extrinsics[e, t, 0] for e, t, _ in pairs]))
        return Pairs(
            cameras=cameras,
            latents=model.encode(clips),
            states=torch.from_numpy(states),
            goals=model.encode(goals)[:, 0],
            goal_states=torch.from_numpy(goal_states),
        )

    def _near(self, model: WorldModel) -> tuple[Tensor, float]:
        pairs = self.load(model, self.near)
        truth = poses.difference(pairs.states[:, -1], pairs.goal_states)  # (P, 7)
        best = truth.clone()
        best[:, :3] = 0
        spacing = 2 * model.config.frame.max_move_m / (POINTS - 1)
        for _ in range(ROUNDS):
            best = _best_of_box(model, pairs, best, spacing)
            spacing /= POINTS - 1
        copied = model.energy(pairs.latents[:, -1], pairs.goals)
        predicted = pairs.energies(model, truth[:, None])[:, 0]
        return (best - truth)[:, :3].abs(), (predicted.mean() / copied.mean()).item()

    def _gripper(self, model: WorldModel) -> Tensor:
        pairs = self.load(model, self.gripper)
        truth = poses.difference(pairs.states[:, -1], pairs.goal_states)
        closedness = torch.linspace(0, 1, 9)
        actions = truth[:, None].repeat(1, len(closedness), 1)
        actions[..., 6] = closedness - pairs.states[:, -1:, 6]
        best = pairs.energies(model, actions).argmin(1)
        return (closedness[best] - pairs.goal_states[:, 6]).abs()

    def _far(self, model: WorldModel) -> tuple[float, float]:
        pairs = self.load(model, self.far)
        start = torch.zeros(len(self.far), 7)
        bound = model.config.frame.max_move_m
        best = _best_of_box(model, pairs, start, 2 * bound / (POINTS - 1))[:, :3]
        offset = (pairs.goal_states - pairs.states[:, -1])[:, :3]
        before, after = offset.norm(dim=1), (offset - best).norm(dim=1)
        possible = before - (offset - offset.clamp(-bound, bound)).norm(dim=1)
        closer = (after < before).float().mean().item()
        return closer, ((before - after) / possible).mean().item()


@dataclass(frozen=True)
class SuccessThreshold:
    """An energy below which a frame counts as a success, and how far that can be trusted."""

    energy: float
    """The threshold."""
    auc: float
    """Chance that a frame at the goal has a lower energy than another."""
    false_success_rate: float
    """Share of the frames that are not at the goal and count as success."""
    missed_success_rate: float
    """Share of the frames at the goal that do not."""


def success_threshold(
    model: WorldModel, chosen: ClipArrays, reported: ClipArrays, episodes: int = 200
) -> SuccessThreshold | None:
    """Find the energy below which at most 5 % of the frames that are not at a goal are.

    Success is meant to be strict: a policy that is rewarded for false ones learns to seek them.

    The goal is the middle frame of an episode, the frames are the others of that episode. At the
    goal the hand is within 4 cm of where it is there, and the gripper as far open (0.25 of its
    range): a closed gripper in the right place is not what the picture of an open one asks for.
    Figures for which there are no frames are NaN.

    Args:
        model: The world model.
        chosen: The episodes that decide the threshold.
        reported: Other episodes, for its figures.
        episodes: Most episodes of each to look at.

    Returns:
        The threshold and its figures; None where hand and gripper rest in all that was chosen.
    """
    energy, there = _energies_to_middle(model, chosen, episodes)
    others = energy[~there].sort().values
    if not len(others):
        return None
    threshold = others[int(FALSE_SUCCESS_RATE * len(others))].item()
    energy, there = _energies_to_middle(model, reported, episodes)
    near, far = energy[there], energy[~there]
    return SuccessThreshold(
        energy=threshold,
        auc=area_under_curve(far, near),
        false_success_rate=(far < threshold).double().mean().item(),
        missed_success_rate=(near >= threshold).double().mean().item(),
    )


def _energies_to_middle(
    model: WorldModel, arrays: ClipArrays, episodes: int
) -> tuple[Tensor, Tensor]:
    """Return energies (P,) to the middle frame of each episode, and whether it is reached (P,)."""
    energies, at_goal = [torch.zeros(0)], [torch.zeros(0, dtype=torch.bool)]
    for episode in range(min(episodes, len(arrays.rows))):
        length = arrays.states.shape[1]
        latents = model.encode(arrays.clip(episode, 0, length)[None])[0]
        middle = length // 2
        others = torch.arange(length) != middle
        energies.append(model.energy(latents[None], latents[middle][None])[0].cpu()[others])
        states = torch.from_numpy(arrays.states[episode])
        at_goal.append(reached(states, states[middle])[others])
    return torch.cat(energies), torch.cat(at_goal)


def reached(states: Tensor, goals: Tensor) -> Tensor:
    """Return whether states (..., 7) are at goals (..., 7): hand and opening of the gripper."""
    near = (states[..., :3] - goals[..., :3]).norm(dim=-1) < SUCCESS_DISTANCE_M
    return near & ((states[..., 6] - goals[..., 6]).abs() < SAME_OPENING)


def area_under_curve(upper: Tensor, lower: Tensor) -> float:
    """Return the chance that one of `upper` (P,) is above one of `lower` (Q,), ties by half.

    NaN where there are none.
    """
    if not len(upper) or not len(lower):
        return float("nan")
    values = lower.double().sort().values
    below = torch.searchsorted(values, upper.double(), side="left")
    up_to = torch.searchsorted(values, upper.double(), side="right")
    return ((below + up_to).double() / 2 / len(lower)).mean().item()


def _best_of_box(model: WorldModel, pairs: Pairs, centre: Tensor, spacing: float) -> Tensor:
    """Return the best (P, 7) of a cubic grid of translations around `centre` (P, 7)."""
    return best_of_grid(lambda actions: pairs.energies(model, actions), centre, spacing, POINTS)


def best_of_grid(
    cost: Callable[[Tensor], Tensor],
    centre: Tensor,
    spacing_m: float,
    points: int,
    axes: int = 3,
    bound_m: float = float("inf"),
) -> Tensor:
    """Return the cheapest actions (P, 7) of a grid of translations around given ones.

    Args:
        cost: Maps actions (P, S, 7) to costs (P, S).
        centre: (P, 7).
        spacing_m: Distance of neighbouring points, metres.
        points: Grid points per axis, odd.
        axes: How many of x, y, z to search.
        bound_m: Translations are clipped to it, per axis.
    """
    offsets = (torch.arange(points) - points // 2) * spacing_m
    grid = torch.cartesian_prod(*[offsets] * axes)  # (S, axes)
    actions = centre[:, None].repeat(1, len(grid), 1)
    actions[..., :axes] = (actions[..., :axes] + grid).clamp(-bound_m, bound_m)
    return actions[torch.arange(len(centre)), cost(actions).argmin(1)]


def _far_pairs(states: np.ndarray, context: int) -> list[tuple[int, int, int]]:
    length = states.shape[1]
    found = []
    for start in range(context - 1, length):
        moved = states[:, :, :3] - states[:, start : start + 1, :3]  # (E, T, 3)
        distance = np.linalg.norm(moved, axis=-1)
        fits = (distance > FAR_M[0]) & (distance < FAR_M[1])
        found += [(e, start, goal) for e, goal in np.argwhere(fits)]
    return found


def _choose(
    rng: np.random.Generator, found: list[tuple[int, int, int]], most: int
) -> list[tuple[int, int, int]]:
    size = min(most, len(found))
    chosen = [found[index] for index in rng.choice(len(found) or 1, size=size, replace=False)]
    return [(int(episode), int(frame), int(goal)) for episode, frame, goal in chosen]
