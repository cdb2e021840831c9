"""Every registered planner: optimum of a quadratic, bounds, determinism, bad costs, batches."""

from __future__ import annotations

import pytest
import torch

from jepa_gym.agents.planners import PLANNERS, make_planner
from jepa_gym.agents.planners.cem import CEM, CEMConfig

BOUND = torch.tensor([0.075] * 3 + [0.3] * 3 + [1.0])
SEARCHED = [0, 1, 2, 6]
OPTIMUM = torch.tensor([0.03, -0.05, 0.06, 0.0, 0.0, 0.0, 0.5])


@pytest.fixture(params=list(PLANNERS))
def planner(request):
    return make_planner(request.param)


def quadratic(optimum: torch.Tensor):
    """Cost of the last action's squared distance to optima (7,) or (B, 7), in bounds."""

    def cost(actions: torch.Tensor) -> torch.Tensor:
        target = optimum.expand(actions.shape[0], 7)[:, None]
        return (((actions[:, :, -1] - target) / BOUND) ** 2).sum(-1)

    return cost


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_finds_optimum_of_quadratic(planner):
    plan = planner.plan(quadratic(OPTIMUM), 1, seeded())
    error = ((plan.actions[0, 0] - OPTIMUM) / BOUND).abs()
    assert error.max() < 0.1
    assert plan.cost[0] == quadratic(OPTIMUM)(plan.actions[:, None])[0, 0]


def test_mean_error_is_small_over_seeds(planner):
    optima = (torch.rand(200, 7, generator=seeded()) * 1.6 - 0.8) * BOUND
    optima[:, 3:6] = 0
    plan = planner.plan(quadratic(optima), 200, seeded(1))
    error = ((plan.actions[:, 0] - optima) / BOUND)[:, SEARCHED].abs()
    assert error.mean() < 0.03


def test_never_leaves_bounds_and_never_rotates(planner):
    plan = planner.plan(quadratic(BOUND * 9), 2, seeded())
    assert (plan.candidates.abs() <= BOUND).all()
    assert (plan.candidates[..., 3:6] == 0).all()
    assert torch.allclose(plan.actions[:, 0, :3], BOUND[:3], atol=0.01)


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


def test_only_non_finite_costs_give_an_infinite_plan_cost(planner):
    with pytest.warns(RuntimeWarning, match="were not finite"):
        plan = planner.plan(lambda actions: actions[:, :, 0, 0] * torch.nan, 2, seeded())
    assert torch.isposinf(plan.cost).all()
    assert plan.actions.isfinite().all()


def test_starts_from_init(planner):
    init = OPTIMUM.expand(1, 1, 7)
    plan = planner.plan(quadratic(OPTIMUM), 1, seeded(), init=init)
    assert plan.cost[0] < 1e-9
    with pytest.raises(ValueError, match=r"`init` must have shape \(1, 1, 7\), got \(1, 2, 7\)"):
        planner.plan(quadratic(OPTIMUM), 1, seeded(), init=init.expand(1, 2, 7))


def test_refuses_costs_of_another_shape(planner):
    with pytest.raises(ValueError, match="must return costs"):
        planner.plan(lambda actions: actions[:, :, 0], 1, seeded())


def test_longer_horizon_reaches_farther():
    reach = torch.tensor([0.2, -0.15, 0.1, 0.0, 0.0, 0.0, 0.0])

    def cost(actions: torch.Tensor) -> torch.Tensor:
        return ((actions.sum(dim=2) - reach)[..., :3] ** 2).sum(-1)

    planner = CEM(CEMConfig(horizon=3, samples=256, iterations=8, elites=16))
    plan = planner.plan(cost, 1, seeded())
    assert plan.actions.shape == (1, 3, 7)
    assert torch.allclose(plan.actions[0].sum(dim=0)[:3], reach[:3], atol=0.02)


def test_rotation_is_searched_on_request():
    optimum = torch.tensor([0.0, 0.0, 0.0, 0.2, -0.1, 0.15, 0.0])
    planner = CEM(CEMConfig(search_rotation=True, samples=256, iterations=6, elites=16))
    plan = planner.plan(quadratic(optimum), 1, seeded())
    assert torch.allclose(plan.actions[0, 0, 3:6], optimum[3:6], atol=0.03)
    assert (plan.candidates.abs() <= BOUND).all()


def test_small_gripper_changes_become_none():
    optimum = torch.tensor([0.03, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5])
    plan = CEM(CEMConfig(gripper_dead_zone=0.2)).plan(quadratic(optimum), 1, seeded())
    changes = plan.candidates[..., 6].abs()
    assert ((changes == 0) | (changes >= 0.2)).all()
    assert 0.4 < plan.actions[0, 0, 6] < 0.6


def test_paper_preset():
    config = CEMConfig.preset("paper")
    assert (config.samples, config.iterations, config.elites, config.horizon) == (800, 10, 10, 1)
    plan = CEM(config).plan(quadratic(OPTIMUM), 1, seeded())
    assert plan.candidates.shape[1] == 800 * 10 + 1
    with pytest.raises(ValueError, match="Unknown preset `papers`"):
        CEMConfig.preset("papers")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"samples": 0}, "`samples` must be at least 1"),
        ({"elites": 33}, r"`elites` must be in \[2, samples=32\], got 33"),
        ({"gripper_momentum_std": 1.0}, "`gripper_momentum_std` must be in"),
        ({"gripper_dead_zone": 1.0}, "`gripper_dead_zone` must be in"),
        ({"max_move_m": 0.0}, "`max_move_m` must be above 0"),
    ],
)
def test_config_refuses_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        CEMConfig(**fields)
