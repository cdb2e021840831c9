"""Every registered planner: optimum of a quadratic, bounds, determinism, bad costs, batches, time.

What only one of them has is tested in test_planner_kinds.py.
"""

from __future__ import annotations

import time

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jepa_gym.agents.planners import PLANNERS, make_planner
from jepa_gym.agents.planners.bounds import Bounds, MoveLimits

BOUND = torch.tensor([0.075] * 3 + [0.3] * 3 + [1.0])
SEARCHED = [0, 1, 2, 6]
OPTIMUM = torch.tensor([0.03, -0.05, 0.06, 0.0, 0.0, 0.0, 0.5])
TOLERANCE = {"random": 0.6}
"""Largest error at the optimum as a share of the bounds, where it is not 0.1."""
MEAN_TOLERANCE = {"random": 0.2}
"""Mean error over many optima, where it is not 0.03."""
NEEDS_GRADIENT = ("gradient", "hybrid")


@pytest.fixture(params=list(PLANNERS))
def name(request):
    return request.param


@pytest.fixture
def planner(name):
    return make_planner(name)


@pytest.fixture
def configured(name):
    """Make the planner with fields of its config changed."""

    def make(**fields):
        return make_planner(name, type(make_planner(name).config)(**fields))

    return make


def quadratic(optimum: torch.Tensor):
    """Cost of the last action's squared distance to optima (7,) or (B, 7), in bounds."""

    def cost(actions: torch.Tensor) -> torch.Tensor:
        target = optimum.expand(actions.shape[0], 7)[:, None]
        return (((actions[:, :, -1] - target) / BOUND) ** 2).sum(-1)

    return cost


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_finds_optimum_of_quadratic(planner, name):
    plan = planner.plan(quadratic(OPTIMUM), 1, seeded())
    error = ((plan.actions[0, 0] - OPTIMUM) / BOUND).abs()
    assert error.max() < TOLERANCE.get(name, 0.1)
    assert plan.cost[0] == quadratic(OPTIMUM)(plan.actions[:, None])[0, 0]


def test_mean_error_is_small_over_seeds(planner, name):
    optima = (torch.rand(200, 7, generator=seeded()) * 1.6 - 0.8) * BOUND
    optima[:, 3:6] = 0
    plan = planner.plan(quadratic(optima), 200, seeded(1))
    error = ((plan.actions[:, 0] - optima) / BOUND)[:, SEARCHED].abs()
    assert error.mean() < MEAN_TOLERANCE.get(name, 0.03)


def test_never_leaves_bounds_and_never_rotates(planner, name):
    plan = planner.plan(quadratic(BOUND * 9), 2, seeded())
    assert (plan.candidates.abs() <= BOUND).all()
    assert (plan.candidates[..., 3:6] == 0).all()
    share = plan.actions[:, 0, :3] / BOUND[:3]
    assert (share > 1 - TOLERANCE.get(name, 0.1)).all()


def test_same_seed_same_plan(planner):
    first, second = (planner.plan(quadratic(OPTIMUM), 2, seeded(5)) for _ in range(2))
    other = planner.plan(quadratic(OPTIMUM), 2, seeded(6))
    assert torch.equal(first.candidates, second.candidates)
    assert torch.equal(first.actions, second.actions)
    assert not torch.equal(first.actions, other.actions)


def test_plan_does_not_depend_on_the_rest_of_the_batch(planner):
    optima = torch.stack([OPTIMUM, -OPTIMUM, OPTIMUM / 2])
    together = planner.plan(quadratic(optima), 3, seeded())
    alone = planner.plan(quadratic(optima[1]), 1, seeded())
    assert torch.equal(together.actions[1], alone.actions[0])
    assert torch.equal(together.candidate_costs[1], alone.candidate_costs[0])


def test_non_finite_costs_are_counted_and_never_chosen(planner):
    def cost(actions: torch.Tensor) -> torch.Tensor:
        costs = quadratic(OPTIMUM)(actions)
        return torch.where(actions[:, :, -1, 0] > 0, -torch.inf, costs)

    with pytest.warns(RuntimeWarning, match=r"\d+ of \d+ candidate costs were not finite"):
        plan = planner.plan(cost, 1, seeded())
    assert plan.cost.isfinite().all()
    assert plan.actions[0, 0, 0] <= 0
    assert (plan.candidate_costs.isinf() == (plan.candidates[:, :, 0, 0] > 0)).all()


def test_without_a_finite_cost_every_planner_holds_still(planner):
    def cost(actions: torch.Tensor) -> torch.Tensor:
        costs = quadratic(OPTIMUM)(actions)
        return costs * torch.tensor([[1.0], [torch.nan]])

    init = OPTIMUM.expand(2, 1, 7)
    with pytest.warns(RuntimeWarning, match="were not finite"):
        plan = planner.plan(cost, 2, seeded(), init=init)
    assert plan.cost[0].isfinite() and torch.isposinf(plan.cost[1])
    assert (plan.actions[1] == 0).all()
    assert (plan.actions[0] != 0).any()


def test_starts_from_init(planner):
    init = OPTIMUM.expand(1, 1, 7)
    plan = planner.plan(quadratic(OPTIMUM), 1, seeded(), init=init)
    assert plan.cost[0] < 1e-9
    with pytest.raises(ValueError, match=r"`init` must have shape \(1, 1, 7\), .* got \(1, 2, 7\)"):
        planner.plan(quadratic(OPTIMUM), 1, seeded(), init=init.expand(1, 2, 7))
    with pytest.raises(ValueError, match="`init` must be finite"):
        planner.plan(quadratic(OPTIMUM), 1, seeded(), init=init * torch.nan)


def test_refuses_costs_of_another_shape(planner):
    with pytest.raises(ValueError, match="must return costs"):
        planner.plan(lambda actions: actions[:, :, 0], 1, seeded())


def test_starts_from_the_best_of_several(planner):
    init = torch.stack([OPTIMUM, OPTIMUM * 0])[None, :, None]
    assert planner.plan(quadratic(OPTIMUM), 1, seeded(), init=init).cost[0] < 1e-9


def test_longer_horizon_reaches_farther(configured, name):
    reach = torch.tensor([0.2, -0.15, 0.1])

    def cost(actions: torch.Tensor) -> torch.Tensor:
        return ((actions.sum(dim=2)[..., :3] - reach) ** 2).sum(-1)

    plan = configured(horizon=4, iterations=10).plan(cost, 1, seeded())
    assert plan.actions.shape == (1, 4, 7)
    error = (plan.actions[0].sum(dim=0)[:3] - reach).abs().max()
    assert error < (0.12 if name == "random" else 0.02)


def test_rotation_is_searched_on_request(configured, name):
    optimum = torch.tensor([0.0, 0.0, 0.0, 0.2, -0.1, 0.15, 0.0])
    plan = configured(search_rotation=True, iterations=24).plan(quadratic(optimum), 1, seeded())
    error = (plan.actions[0, 0, 3:6] - optimum[3:6]).abs().max()
    assert error < (0.2 if name == "random" else 0.05)
    assert (plan.candidates.abs() <= BOUND).all()


def test_a_ball_bounds_the_length(configured, name):
    plan = configured(norm="ball").plan(quadratic(BOUND * 9), 2, seeded())
    length = plan.candidates[..., :3].norm(dim=-1)
    assert length.max() <= 0.075
    along = plan.actions[:, 0, :3].sum(-1) / 3**0.5  # towards the corner
    assert (along > 0.075 * (1 - TOLERANCE.get(name, 0.1))).all()


def test_no_plan_leaves_the_workspace(configured):
    position = torch.tensor([[0.5, 0.0, 0.2], [0.59, 0.0, 0.31]])  # the second starts 1 cm above
    low, high = (0.4, -0.1, 0.1), (0.6, 0.1, 0.3)
    bounds = Bounds(MoveLimits(), (low, high), position)
    planner = configured(horizon=3, iterations=12)
    plan = planner.plan(lambda a: -a[..., :3].sum(dim=(2, 3)), 2, seeded(), bounds=bounds)
    places = position[:, None, None] + plan.candidates[..., :3].cumsum(dim=2)
    slack = 1e-6
    assert (places >= torch.tensor(low) - slack).all()
    assert (places[0] <= torch.tensor(high) + slack).all()
    assert places[1, ..., 2].max() <= 0.31 + slack
    assert (plan.candidates.abs() <= BOUND).all()
    reached = position + plan.actions[..., :3].sum(dim=1)
    assert (reached[:, :2] > torch.tensor(high[:2]) - 0.06).all()


def test_bounds_take_the_place_of_the_limits_of_the_config(planner):
    bounds = Bounds(MoveLimits(max_move_m=0.02, max_gripper=0.5))
    plan = planner.plan(quadratic(OPTIMUM), 1, seeded(), bounds=bounds)
    assert plan.candidates[..., :3].abs().max() <= 0.02
    assert plan.candidates[..., 6].abs().max() <= 0.5


def test_a_budget_returns_the_best_so_far(planner):
    def slow(actions: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return quadratic(OPTIMUM)(actions)

    whole = planner.plan(quadratic(OPTIMUM), 1, seeded())
    cut = planner.plan(slow, 1, seeded(), budget_s=0.05)
    count = cut.candidates.shape[1]
    assert 0 < count < whole.candidates.shape[1]
    assert torch.equal(cut.candidates, whole.candidates[:, :count])
    assert cut.cost == cut.candidate_costs.min()
    first = planner.plan(slow, 1, seeded(), budget_s=1e-6)
    assert first.cost.isfinite().all()
    with pytest.raises(ValueError, match="`budget_s` must be above 0"):
        planner.plan(slow, 1, seeded(), budget_s=0)


def test_stops_early_when_no_cost_falls(configured):
    planner = configured(stop_every=1, iterations=8)
    calls = []

    def cost(actions: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return actions.sum(dim=(2, 3)) * 0 + 1

    planner.plan(cost, 1, seeded())
    assert len(calls) <= 6  # of at least 8; the hybrid stops twice


def test_stopping_early_keeps_problems_apart(configured):
    optima = torch.stack([OPTIMUM, OPTIMUM * 0])  # the second has its optimum at the start
    planner = configured(stop_every=2, stop_gain=0.05, iterations=9)
    together = planner.plan(quadratic(optima), 2, seeded())
    for row in range(2):
        alone = planner.plan(quadratic(optima[row]), 1, seeded())
        assert torch.equal(together.actions[row], alone.actions[0])
        assert torch.equal(together.cost[row], alone.cost[0])


class Waits(TorchDispatchMode):
    """Count the operations for which the host would wait for a GPU: reads, and copies to it."""

    WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "_to_copy", "lift_fresh")
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.count += name in self.WAITING and args[0].dtype != torch.bool
        return function(*args, **(kwargs or {}))


def test_iterations_do_not_wait_for_the_device(configured):
    bounds = Bounds(MoveLimits(norm="ball"), ((-1, -1, -1), (1, 1, 1)), torch.zeros(2, 3))
    waits = []
    for iterations in (2, 9):
        with Waits() as counted:
            planner = configured(iterations=iterations)
            planner.plan(quadratic(OPTIMUM), 2, seeded(), bounds=bounds)
        waits.append(counted.count)
    assert waits[0] == waits[1] > 0


def test_plans_in_inference_mode(planner):
    with torch.inference_mode():
        inside = planner.plan(quadratic(OPTIMUM), 1, seeded())
    outside = planner.plan(quadratic(OPTIMUM), 1, seeded())
    assert torch.equal(inside.actions, outside.actions)
    assert not outside.cost.requires_grad


def test_a_cost_without_gradient_is_an_error_where_one_is_needed(planner, name):
    def cost(actions: torch.Tensor) -> torch.Tensor:
        return quadratic(OPTIMUM)(actions.detach())

    if name in NEEDS_GRADIENT:
        with pytest.raises(ValueError, match="the cost has none"):
            planner.plan(cost, 1, seeded())
    else:
        assert planner.plan(cost, 1, seeded()).cost.isfinite().all()


def test_small_gripper_changes_become_none(configured, name):
    optimum = torch.tensor([0.03, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5])
    plan = configured(gripper_dead_zone=0.2).plan(quadratic(optimum), 1, seeded())
    changes = plan.candidates[..., 6].abs()
    assert ((changes == 0) | (changes >= 0.2)).all()
    assert (plan.actions[0, 0, 6] - 0.5).abs() < TOLERANCE.get(name, 0.1)


def test_a_position_for_each_problem(planner):
    bounds = Bounds(MoveLimits(), ((0, 0, 0), (1, 1, 1)), torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"`position` must be \(2, 3\), one for each problem"):
        planner.plan(quadratic(OPTIMUM), 2, seeded(), bounds=bounds)
