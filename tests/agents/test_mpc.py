"""MPC on a world model whose best action is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_gym.agents import PLANNERS, make_agent
from jepa_gym.agents.inverse_agent import Proposals
from jepa_gym.agents.planners.cem import CEM, CEMConfig
from jepa_gym.agents.planners.gripper import up_to_the_stops
from jepa_gym.agents.planners.icem import ICEMConfig

START = np.array([0.4, 0.5, 0.3, 0.0, 0.0, 0.0, 0.2])
GOAL = np.array([0.44, 0.45, 0.36, 0.0, 0.0, 0.0, 0.6])
FAR = np.array([0.2, -0.2, 0.15, 0, 0, 0, 0.5])
NEAR = np.array([0.02, 0, 0, 0, 0, 0, 0])
MEASURED = [0.041231419891119, -0.05444925278425217, 0.04970994591712952, 0, 0, 0, 0.400044322]
PUBLISHED = CEMConfig.preset("published")
FINE = CEMConfig(samples=256, iterations=6, top_k=16)


def latent_observation(state: np.ndarray, goal: np.ndarray) -> dict[str, np.ndarray]:
    state, goal = state.astype(np.float32), goal.astype(np.float32)
    return {
        "observation": state,
        "achieved_goal": state[..., None],
        "desired_goal": goal[..., None],
    }


def test_moves_to_the_goal_image(model, observe):
    agent = make_agent("mpc-cem", model=model, config=FINE, gripper="exact")
    action, _ = agent.predict(observe(START, GOAL))
    assert action.shape == (7,)
    assert action.dtype == np.float32
    np.testing.assert_allclose(START + action, GOAL, atol=0.01)


def test_plans_in_latents_alike(model):
    agent = make_agent("mpc-cem", model=model, config=FINE, gripper="exact")
    action, _ = agent.predict(latent_observation(START, GOAL))
    np.testing.assert_allclose(START + action, GOAL, atol=0.01)


def test_reaches_a_far_goal_step_by_step(model, observe):
    agent = make_agent("mpc-cem", model=model, gripper="exact")
    state, goal, memory = START.copy(), START + FAR, None
    for _ in range(8):
        action, memory = agent.predict(observe(state, goal), memory)
        state = state + action
    np.testing.assert_allclose(state[:3], goal[:3], atol=0.005)


def test_holds_still_at_the_goal(model, observe):
    agent = make_agent("mpc-cem", model=model)
    action, _ = agent.predict(observe(START, START))
    assert (action == 0).all()
    record = agent.last_plan
    assert record.energy == record.hold_energy


def test_min_improvement_holds_still_sooner(model, observe):
    near = START + NEAR
    patient = make_agent("mpc-cem", model=model, min_improvement=0.5)
    assert (patient.predict(observe(START, near))[0] == 0).all()
    eager = make_agent("mpc-cem", model=model, min_improvement=0.0)
    assert (eager.predict(observe(START, near))[0] != 0).any()


def test_a_constant_error_of_the_model_is_taken_off(model, observe):
    model.bias = 0.05
    settings = {"config": FINE, "gripper": "exact", "min_improvement": 0.0}
    corrected = make_agent("mpc-cem", model=model, **settings)
    misled = make_agent("mpc-cem", model=model, offset_free=False, **settings)
    near = START + NEAR
    np.testing.assert_allclose(corrected.predict(observe(START, near))[0][0], 0.02, atol=0.005)
    assert misled.predict(observe(START, near))[0][0] < 0
    assert (corrected.predict(observe(START, START))[0] == 0).all()


def test_batch_gives_the_actions_of_single_calls(model, observe):
    agent = make_agent("mpc-cem", model=model)
    states, goals = np.stack([START, GOAL, START]), np.stack([GOAL, START, START])
    together, _ = agent.predict(observe(states, goals))
    alone = [agent.predict(observe(s, g))[0] for s, g in zip(states, goals, strict=True)]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_deterministic_repeats_and_sampling_does_not(model, observe):
    agent = make_agent("mpc-cem", model=model)
    observation = observe(START, GOAL)
    first, second = (agent.predict(observation)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    sampled = [agent.predict(observation, deterministic=False)[0] for _ in range(2)]
    assert (sampled[0] != sampled[1]).any()


def test_context_grows_to_its_limit_and_restarts(model, observe):
    agent = make_agent("mpc-cem", model=model, context_frames=3)
    memory, longest = None, []
    for start in (True, False, False, False, True, False):
        model.context_lengths.clear()
        _, memory = agent.predict(observe(START, GOAL), memory, start)
        longest.append(max(model.context_lengths))
    assert longest == [1, 2, 3, 3, 1, 2]


def test_episodes_of_different_age_share_a_batch(model, observe):
    agent = make_agent("mpc-cem", model=model)
    states, goals = np.stack([START, GOAL]), np.stack([GOAL, START])
    _, memory = agent.predict(observe(states, goals))
    model.context_lengths.clear()
    actions, memory = agent.predict(observe(states, goals), memory, np.array([False, True]))
    assert set(model.context_lengths) == {1, 2}
    np.testing.assert_array_equal(actions, agent.predict(observe(states, goals))[0])
    with pytest.raises(ValueError, match="remembers 2 episodes, the observation has 3"):
        agent.predict(observe(np.stack([START] * 3), np.stack([GOAL] * 3)), memory)


def test_gripper_term_is_off_by_default_and_labelled(model, observe):
    blind = observe(START, START)
    blind["goal_state"] = GOAL.astype(np.float32)  # only the goal state asks for a closed gripper
    image = make_agent("mpc-cem", model=model)
    gripper = make_agent("mpc-cem", model=model, config=FINE, gripper_weight=1.0, gripper="exact")
    assert (image.goal, gripper.goal) == ("image", "image+gripper")
    assert image.predict(blind)[0][6] == 0
    np.testing.assert_allclose(gripper.predict(blind)[0][6], 0.4, atol=0.02)
    with pytest.raises(ValueError, match="needs the observation's `goal_state`"):
        gripper.predict(latent_observation(START, GOAL))


def test_the_gripper_acts_by_the_sign_of_the_plan(model, observe):
    agent = make_agent("mpc-cem", model=model, config=FINE, min_improvement=0.0)
    assert agent.predict(observe(START, GOAL))[0][6] == 1
    assert agent.predict(observe(GOAL, START))[0][6] == -1
    action, _ = agent.predict(observe(START, START + NEAR))
    assert action[6] == 0 and action[0] > 0


def test_changes_are_imagined_up_to_the_stops():
    actions = torch.zeros(1, 3, 2, 7)
    actions[0, :, :, 6] = torch.tensor([[0.9, 0.5], [-0.5, 0.3], [0.1, 0.1]])
    possible, closedness = up_to_the_stops(torch.tensor([0.3]), actions)
    expected = torch.tensor([[0.7, 0.0], [-0.3, 0.3], [0.1, 0.1]])
    torch.testing.assert_close(possible[0, :, :, 6], expected)
    torch.testing.assert_close(closedness, torch.tensor([[1.0, 0.3, 0.5]]))


@pytest.mark.parametrize("name", PLANNERS)
def test_every_planner_reaches_a_far_goal(model, observe, name):
    agent = make_agent(f"mpc-{name}", model=model, gripper="exact", min_improvement=0.0)
    state, goal, memory = START.copy(), START + FAR, None
    for _ in range(8):
        action, memory = agent.predict(observe(state, goal), memory)
        state = state + action
    np.testing.assert_allclose(state[:3], goal[:3], atol=0.05 if name == "random" else 0.01)


def test_the_default_agent_acts_as_a_plain_search_does(model, observe):
    """The figures in the README were measured with these actions: CEM, written down once more."""
    agent = make_agent("mpc-cem", model=model, gripper="exact")
    observation = observe(START[None], GOAL[None])
    action = agent.predict(observation)[0][0]
    np.testing.assert_allclose(action, plain_cem(*model.observe(observation)), atol=1e-5)
    np.testing.assert_allclose(action, MEASURED, atol=2e-3)  # the noise of another torch may differ


def plain_cem(current: torch.Tensor, goal: torch.Tensor) -> np.ndarray:
    """The default search from latents (1, 7, 1), one candidate after the other, in NumPy."""
    current, goal = (x.numpy().astype(np.float64).ravel() for x in (current, goal))
    generator = torch.Generator().manual_seed(0)
    limit = np.array([0.075] * 3 + [0] * 3 + [1.0])
    mean, std, best = np.zeros(7), limit, (np.inf, np.zeros(7))
    for iteration in range(7):
        noise = torch.randn(1, 32 if iteration < 6 else 1, 1, 7, generator=generator)[0, :, 0]
        noise[0] = 0
        scored = []
        for candidate in np.clip(mean + std * noise.numpy(), -limit, limit):
            candidate[6] *= abs(candidate[6]) >= 0.25
            possible = candidate.copy()
            possible[6] = np.clip(0.2 + candidate[6], 0, 1) - 0.2
            scored.append((np.abs(current + possible - goal).mean(), candidate, possible))
        scored.sort(key=lambda row: row[0])
        if scored[0][0] < best[0]:
            best = scored[0][0], scored[0][2]
        chosen = np.stack([candidate for _, candidate, _ in scored[:5]])
        mean = 0.15 * mean + 0.85 * chosen.mean(axis=0)
        std = 0.15 * std + 0.85 * chosen.std(axis=0, ddof=1) if len(chosen) > 1 else std
    return best[1]


def test_the_published_preset_is_the_published_agent(model, observe):
    """No offset correction, no rule for holding still, no warm start, the gripper as planned."""
    model.bias = 0.02
    agent = make_agent("mpc-cem", model=model, preset="published")
    assert agent.planner.config == PUBLISHED
    action, memory = agent.predict(observe(START, GOAL))
    plain = CEM(PUBLISHED).plan(
        lambda a: (torch.tensor(START + 0.02 - GOAL) + a.sum(2)).abs().mean(-1).float(),
        1,
        torch.Generator().manual_seed(0),
    )
    np.testing.assert_allclose(action, plain.actions[0, 0], atol=0.004)  # pictures have 8 bits
    assert 0.25 <= action[6] <= 0.75  # neither full nor nothing
    assert memory.plans.shape[1] == 0
    # at the goal it moves: it does not know that holding still would be better
    still, _ = agent.predict(observe(START, START))
    assert (still[:3] != 0).all()
    model.context_lengths.clear()
    agent.predict(observe(START, GOAL), memory)
    assert set(model.context_lengths) == {1}


def test_the_published_gripper_knows_no_stops(model, observe):
    closed = START.copy()
    closed[6] = 0.9
    more = closed.copy()
    more[6] = 1.0
    seen = []
    model.energy = lambda latents, goal: (seen.append(latents), -latents[..., 6, 0])[1]
    observation = observe(closed, more)
    action, _ = make_agent("mpc-cem", model=model, preset="published").predict(observation)
    assert max(latents[..., 6, 0].max() for latents in seen) > 1.5
    assert action[6] > 0.7
    stopping = make_agent("mpc-cem", model=model, preset="paper", gripper="exact")
    stopped, _ = stopping.predict(observation)
    assert stopped[6] <= 0.1 + 1e-6


def test_presets_are_of_cem(model):
    assert make_agent("mpc-cem", model=model, preset="paper").gripper == "full"
    changed = make_agent("mpc-cem", model=model, preset="published", gripper_weight=1.0)
    assert changed.goal == "image+gripper" and changed.planner.config == PUBLISHED
    with pytest.raises(ValueError, match="is one of the planner `cem`, not `icem`"):
        make_agent("mpc-icem", model=model, preset="published")
    with pytest.raises(ValueError, match=r"Unknown preset `publishd`\. Did you mean `published`"):
        make_agent("mpc-cem", model=model, preset="publishd")


def test_a_warm_start_goes_on_from_the_last_plan(model, observe):
    config = ICEMConfig(horizon=3, samples=12, iterations=1, kept=2)
    agent = make_agent("mpc-icem", model=model, config=config, gripper="exact")
    states, goals = np.stack([START, START]), np.stack([START + FAR] * 2)
    _, memory = agent.predict(observe(states, goals))
    assert memory.plans.shape == (2, 2, 3, 7)
    best = agent.last_plan.energies[0].argmin()
    planned = agent.last_plan.actions[0, best]
    np.testing.assert_array_equal(memory.plans[0, 0], planned[[1, 2, 2]])
    actions, memory = agent.predict(observe(states, goals), memory, np.array([False, True]))
    candidates = agent.last_plan.actions
    assert (candidates[0, :-1] == planned[[1, 2, 2]]).all(axis=(1, 2)).any()
    fresh, _ = agent.predict(observe(states, goals))
    np.testing.assert_array_equal(actions[1], fresh[1])
    assert (actions[0] != actions[1]).any()


def test_a_plan_that_is_not_carried_out_is_forgotten(model, observe):
    agent = make_agent("mpc-icem", model=model)
    _, memory = agent.predict(observe(START, START))
    assert (memory.plans == 0).all()


def test_the_whole_path_counts(model, observe):
    config = CEMConfig(horizon=3, samples=128, iterations=8, top_k=8)
    settings = {"config": config, "gripper": "exact", "min_improvement": 0.0}
    agent = make_agent("mpc-cem", model=model, **settings)
    near = START + np.array([0.05, 0, 0, 0, 0, 0, 0])
    action, _ = agent.predict(observe(START, near))
    np.testing.assert_allclose(action[0], 0.05, atol=0.01)  # at once, not by and by
    record = agent.last_plan
    path = (START + np.cumsum(record.actions[0], axis=1) - near)[:, :, :6]
    expected = np.abs(path).sum(axis=-1).mean(axis=1) / 7
    closed = np.abs(np.cumsum(record.actions[0, :, :, 6], axis=1)).max(axis=1) == 0
    assert closed.any()
    np.testing.assert_allclose(record.energies[0, closed], expected[closed], atol=1e-3)
    agent = make_agent("mpc-cem", model=model, cost="last", **settings)
    agent.predict(observe(START, near))
    record = agent.last_plan
    ends = START + record.actions[0].sum(axis=1) - near
    expected = np.abs(ends[:, :6]).sum(axis=-1) / 7
    closed = np.abs(np.cumsum(record.actions[0, :, :, 6], axis=1)).max(axis=1) == 0
    np.testing.assert_allclose(record.energies[0, closed], expected[closed], atol=1e-3)


def test_one_step_costs_the_same_by_last_and_path(model, observe):
    agents = [make_agent("mpc-cem", model=model, cost=cost) for cost in ("last", "path")]
    actions = [agent.predict(observe(START, GOAL))[0] for agent in agents]
    np.testing.assert_array_equal(*actions)


def proposing(model, action: np.ndarray, steps: float, **arguments):
    """Return an agent whose inverse model proposes the same at every call."""
    agent = make_agent("mpc-cem", model=model, **arguments)

    def propose(latents, states, goals):
        count = len(latents)
        actions = torch.tensor(action, dtype=torch.float32).expand(count, -1)
        return Proposals(actions, torch.full((count,), steps), torch.ones(count, dtype=torch.bool))

    agent.proposer = propose
    return agent


def test_a_proposal_is_followed_far_from_the_goal_alone(model, observe):
    proposed = np.array([-0.05, 0.02, 0.01, 0, 0, 0, 0])  # away from the goal: no search finds it
    far, memory = proposing(model, proposed, 6.0).predict(observe(START, GOAL))
    np.testing.assert_allclose(far, proposed, atol=1e-6)
    assert (memory.plans == 0).all()  # the plan was not followed
    near, _ = proposing(model, proposed, 2.0).predict(observe(START, GOAL))
    searched, _ = make_agent("mpc-cem", model=model).predict(observe(START, GOAL))
    np.testing.assert_allclose(near, searched, atol=0.02)
    agent = proposing(model, proposed, 2.0, near_steps=1.0)
    np.testing.assert_allclose(agent.predict(observe(START, GOAL))[0], proposed, atol=1e-6)


def test_a_proposal_is_not_followed_where_no_energy_is_finite(model, observe):
    agent = proposing(model, np.array([0.05, 0, 0, 0, 0, 0, 0]), 6.0)
    model.broken = True
    with (
        pytest.warns(RuntimeWarning, match="were not finite"),
        pytest.raises(ValueError, match="no finite energy"),
    ):
        agent.predict(observe(START, GOAL))


@pytest.mark.parametrize("near_steps", [-1.0, float("nan"), float("inf")])
def test_near_steps_is_a_finite_number(model, near_steps):
    with pytest.raises(ValueError, match="near_steps"):
        make_agent("mpc-cem", model=model, near_steps=near_steps)


def test_plans_stay_in_the_workspace(model, observe):
    low, high = (0.0, 0.0, 0.0), (0.42, 1.0, 1.0)
    agent = make_agent(
        "mpc-cem", model=model, workspace=(low, high), min_improvement=0.0, guards=False
    )
    state, memory = START.copy(), None
    for _ in range(4):
        action, memory = agent.predict(observe(state, START + FAR), memory)
        state = state + action
        assert state[0] <= 0.42 + 1e-6
    assert state[0] > 0.41
    free = make_agent("mpc-cem", model=model, min_improvement=0.0)
    assert free.predict(observe(START, START + FAR))[0][0] > 0.02


def test_a_budget_cuts_the_search_of_every_context_length_alike(model, observe):
    agent = make_agent("mpc-cem", model=model, config=CEMConfig(iterations=500), budget_s=0.02)
    states, goals = np.stack([START, GOAL]), np.stack([GOAL, START])
    _, memory = agent.predict(observe(states, goals))
    agent.predict(observe(states, goals), memory, np.array([False, True]))
    record = agent.last_plan
    assert record.actions.shape[:2] == record.energies.shape
    assert record.energies.shape[1] < 32 * 500


def test_record_holds_what_was_imagined(model, observe):
    agent = make_agent("mpc-cem", model=model, gripper="exact")
    action, _ = agent.predict(observe(START, GOAL))
    record = agent.last_plan
    assert record.actions.shape == (1, 32 * 6 + 1, 1, 7)
    assert record.energies.shape == (1, 32 * 6 + 1)
    best = record.energies[0].argmin()
    np.testing.assert_allclose(record.actions[0, best, 0], action, rtol=1e-6)
    assert record.energy[0] < record.hold_energy[0] == pytest.approx(record.current_energy[0])


@pytest.mark.parametrize("name", PLANNERS)
def test_broken_model_is_an_error(model, observe, name):
    model.broken = True
    agent = make_agent(f"mpc-{name}", model=model)
    with (
        pytest.warns(RuntimeWarning, match="were not finite"),
        pytest.raises(ValueError, match="no finite energy"),
    ):
        agent.predict(observe(START, GOAL))


@pytest.mark.parametrize("name", PLANNERS)
def test_one_broken_episode_holds_still_and_disturbs_no_other(model, name):
    agent = make_agent(f"mpc-{name}", model=model)
    states, goals = np.stack([START, GOAL, GOAL]), np.stack([GOAL, START, START])
    sound = latent_observation(states, goals)
    broken = {key: value.copy() for key, value in sound.items()}
    broken["achieved_goal"][1, 3] = np.nan
    expected_memory = memory = None
    for _ in range(2):  # what is remembered disturbs no other either
        expected, expected_memory = agent.predict(sound, expected_memory)
        with pytest.warns(RuntimeWarning) as told:
            actions, memory = agent.predict(broken, memory)
        assert any("Episodes [1] of 3 hold still" in str(warning.message) for warning in told)
        assert (actions[1] == 0).all()
        np.testing.assert_array_equal(actions[[0, 2]], expected[[0, 2]])
    assert agent.last_plan.energy[1] == np.inf


@pytest.mark.parametrize(
    "fields",
    [
        {"gripper_weight": -1.0},
        {"min_improvement": -1.0},
        {"context_frames": 0},
        {"gripper": "half"},
        {"cost": "first"},
        {"workspace": ((0, 0, 0), (1, 1, -1))},
        {"budget_s": 0.0},
    ],
)
def test_refuses_bad_arguments(model, fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must be"):
        make_agent("mpc-cem", model=model, **fields)
