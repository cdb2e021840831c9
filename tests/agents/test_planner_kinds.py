"""What one planner has and the others do not: presets, noise, weights, starts, configs."""

from __future__ import annotations

import pytest
import torch

from jepa_gym.agents.planners.base import shifted
from jepa_gym.agents.planners.bounds import Bounds, MoveLimits
from jepa_gym.agents.planners.cem import CEM, CEMConfig
from jepa_gym.agents.planners.gradient import Gradient, GradientConfig
from jepa_gym.agents.planners.hybrid import Hybrid, HybridConfig
from jepa_gym.agents.planners.icem import ICEM, ICEMConfig, colouring
from jepa_gym.agents.planners.mppi import MPPI, MPPIConfig, weights
from jepa_gym.agents.planners.shooting import ShootingConfig

BOUND = torch.tensor([0.075] * 3 + [0.3] * 3 + [1.0])
OPTIMUM = torch.tensor([0.03, -0.05, 0.06, 0.0, 0.0, 0.0, 0.5])


def quadratic(optimum: torch.Tensor):
    """Cost of the last action's squared distance to an optimum (7,), in bounds."""
    return lambda actions: (((actions[:, :, -1] - optimum) / BOUND) ** 2).sum(-1)


def bounds(**fields):
    return Bounds(MoveLimits(), **fields)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_paper_preset():
    config = CEMConfig.preset("paper")
    assert (config.samples, config.iterations, config.top_k, config.horizon) == (800, 10, 10, 1)
    plan = CEM(config).plan(quadratic(OPTIMUM), 1, seeded())
    assert plan.candidates.shape[1] == 800 * 10 + 1
    with pytest.raises(ValueError, match="Unknown preset `papers`"):
        CEMConfig.preset("papers")


def test_published_preset_plans_as_the_official_code():
    config = CEMConfig.preset("published")
    assert (config.momentum_mean, config.momentum_std) == (0.15, (0.75,) * 6 + (0.15,))
    optimum = torch.tensor([0.03, -0.05, 0.06, 0.0, 0.0, 0.0, 0.1])
    plan = CEM(config).plan(quadratic(optimum), 1, seeded())
    sampled = plan.candidates[0, :-1, 0]
    assert len(sampled) == 800 * 10
    assert not (sampled[:, :3] == 0).all(dim=1).any()  # never the mean
    changes = sampled[:, 6].abs()
    assert ((changes > 0) & (changes < 0.25)).any()  # the dead zone is for the result alone
    assert changes.max() == 0.75
    assert (changes[:800] == 0.75).float().mean() > 0.4  # std 1: 45 % beyond
    assert torch.equal(plan.actions[0, 0], plan.candidates[0, -1, 0])
    assert plan.actions[0, 0, 6] == 0
    assert torch.allclose(plan.actions[0, 0, :3], optimum[:3], atol=0.005)
    assert plan.cost == quadratic(optimum)(plan.actions[:, None])


def test_published_refit_by_hand():
    config = CEMConfig(
        samples=20, iterations=1, top_k=4, momentum_mean=0.2, momentum_std=0.6, as_published=True
    )
    plan = CEM(config).plan(quadratic(OPTIMUM), 1, seeded())
    order = plan.candidate_costs[0, :-1].argsort()[:4]
    mean = 0.8 * plan.candidates[0, order, 0].mean(dim=0)
    assert torch.allclose(plan.actions[0, 0, :3], mean[:3])


def test_noise_of_icem_is_coloured():
    assert torch.allclose(colouring(0.0, 6), torch.eye(6), atol=1e-6)
    assert torch.allclose(colouring(2.0, 1), torch.eye(1))
    covariance = colouring(2.0, 8) @ colouring(2.0, 8).T
    assert torch.allclose(covariance.diagonal(), torch.ones(8))
    assert covariance[0, 1] > 0.5 > covariance[0, 4]
    power = torch.linalg.eigvalsh(covariance)  # of the frequencies 4 3 3 2 2 1 1 and the constant
    expected = torch.tensor([1 / 16, 1 / 9, 1 / 9, 1 / 4, 1 / 4, 1, 1, 1])
    assert torch.allclose(power / power[-1], expected, atol=1e-5)


def test_samples_of_icem_decay_and_elites_are_not_evaluated_again():
    config = ICEMConfig(samples=40, decay=2.0, iterations=4, top_k=3, kept=2)
    counts = []

    def cost(actions: torch.Tensor) -> torch.Tensor:
        counts.append(actions.shape[1])
        return quadratic(OPTIMUM)(actions)

    ICEM(config).plan(cost, 1, seeded(), init=torch.zeros(1, 2, 1, 7))
    assert counts == [40 + 2, 20, 10, 6 + 1]


def test_the_next_search_of_icem_starts_from_elites():
    cost = quadratic(OPTIMUM)
    first = ICEM().plan(cost, 1, seeded())
    elites = first.cheapest(2)
    assert torch.equal(elites[0, 0], first.actions[0])
    second = ICEM(ICEMConfig(iterations=1)).plan(cost, 1, seeded(9), init=shifted(elites))
    assert second.cost <= first.cost


def test_plans_move_one_step_on():
    plan = torch.arange(3.0)[None, :, None].expand(1, 3, 7)
    assert shifted(plan)[0, :, 0].tolist() == [1.0, 2.0, 2.0]


def test_cheapest_candidates_are_finite():
    def cost(actions: torch.Tensor) -> torch.Tensor:
        return torch.where(actions[:, :, 0, 0] == 0, 1.0, torch.nan)

    with pytest.warns(RuntimeWarning, match="were not finite"):
        plan = CEM(CEMConfig(iterations=1, samples=4, top_k=2)).plan(cost, 1, seeded())
    assert (plan.cheapest(9)[0, :, 0, 0] == 0).all()
    assert plan.cheapest(9).shape == (1, 9, 1, 7)


def test_weights_of_mppi_are_safe():
    inf = torch.inf
    costs = torch.tensor(
        [[1.0, 2, inf], [3e38, -3e38, 0], [inf, inf, inf], [5, 5, 5], [0, 1e-45, 1], [7, inf, inf]]
    )
    weight = weights(costs, temperature=0.5)
    assert weight.isfinite().all()
    assert torch.allclose(weight.sum(dim=1), torch.tensor([1.0, 1, 0, 1, 1, 1]))
    # excess 0 and 1, mean 0.5: exp(0) and exp(-1 / 0.25)
    assert torch.allclose(weight[0, 1] / weight[0, 0], torch.tensor(-4.0).exp())
    assert weight[1].argmax() == 1


def test_temperature_of_mppi_fits_costs_of_any_size():
    small, large = (
        MPPI().plan(lambda a, s=scale: quadratic(OPTIMUM)(a) * s, 1, seeded())
        for scale in (1e-6, 1e6)
    )
    assert torch.allclose(small.actions, large.actions, atol=1e-3)


def test_starts_of_the_gradient_find_the_better_of_two_valleys():
    def cost(actions: torch.Tensor) -> torch.Tensor:
        x = actions[:, :, 0, 0] / 0.075
        return (x.square() - 0.25).square() - 0.2 * x  # minima near -0.5 and, lower, 0.5

    init = torch.zeros(1, 1, 7)
    init[..., 0] = -0.05
    stuck = Gradient(GradientConfig(samples=1, learning_rate=0.02))
    assert stuck.plan(cost, 1, seeded(), init=init).actions[0, 0, 0] < 0
    assert Gradient().plan(cost, 1, seeded(), init=init).actions[0, 0, 0] > 0.03


def test_the_gradient_makes_the_steps_of_adam():
    config = GradientConfig(samples=1, iterations=12, learning_rate=0.1, gripper_dead_zone=0.0)
    plan = Gradient(config).plan(quadratic(OPTIMUM), 1, seeded())
    shares = torch.zeros(7, requires_grad=True)
    adam = torch.optim.Adam([shares])
    for index, candidate in enumerate(plan.candidates[0, :, 0]):
        assert torch.allclose(shares * BOUND, candidate, atol=1e-6)
        adam.param_groups[0]["lr"] = 0.1 * (1 - index / 12)
        adam.zero_grad()
        quadratic(OPTIMUM)((shares * BOUND)[None, None, None]).sum().backward()
        adam.step()


def test_hybrid_improves_on_its_sampling():
    config = HybridConfig()
    cost = quadratic(OPTIMUM)
    sampled = CEM(config.sampling()).plan(cost, 1, seeded())
    plan = Hybrid(config).plan(cost, 1, seeded())
    count = sampled.candidates.shape[1]
    assert torch.equal(plan.candidates[:, :count], sampled.candidates)
    assert plan.cost < sampled.cost / 2


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (CEMConfig, {"samples": 0}, "`samples` must be at least 1"),
        (CEMConfig, {"top_k": 33}, r"`top_k` must be in \[2, samples=32\], got 33"),
        (CEMConfig, {"momentum_std": (0.1,) * 6 + (1.0,)}, "`momentum_std` must be in"),
        (CEMConfig, {"gripper_dead_zone": 1.0}, "`gripper_dead_zone` must be in"),
        (CEMConfig, {"max_move_m": 0.0}, "`max_move_m` must be above 0"),
        (CEMConfig, {"horizon": 0}, "`horizon` must be at least 1"),
        (CEMConfig, {"norm": "l1"}, "`norm` must be one of"),
        (CEMConfig, {"stop_every": -1}, "`stop_every` must be at least 0"),
        (CEMConfig, {"stop_gain": 1.0}, "`stop_gain` must be in"),
        (ICEMConfig, {"decay": 0.5}, "`decay` must be at least 1"),
        (ICEMConfig, {"kept": 6}, r"`kept` must be in \[0, top_k=5\]"),
        (ICEMConfig, {"noise_exponent": -1.0}, "`noise_exponent` must be at least 0"),
        (MPPIConfig, {"temperature": 0.0}, "`temperature` must be above 0"),
        (MPPIConfig, {"samples": 1}, "`samples` must be at least 2"),
        (GradientConfig, {"learning_rate": 0.0}, "`learning_rate` must be in"),
        (HybridConfig, {"gradient_starts": 0}, "`gradient_starts` must be at least 1"),
        (ShootingConfig, {"iterations": 0}, "`iterations` must be at least 1"),
        (bounds, {"workspace": ((0, 0, 0), (1, 1, 0))}, "every low below its high"),
        (bounds, {"workspace": ((0, 0, 0), (1, 1, 1))}, r"needs `position` \(B, 3\)"),
    ],
)
def test_config_refuses_bad_fields(config, fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)
