from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from jepa_gym import poses


def random_states(count=100, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.rand(count, 7, generator=generator, dtype=torch.float64) * 2 - 1
    states[:, 3:6] *= 1.5
    states[:, 6] = states[:, 6].abs()
    return states


def test_difference_then_compose_returns():
    start, end = random_states(), random_states(seed=1)
    torch.testing.assert_close(poses.compose(start, poses.difference(start, end)), end)


def test_scipy_convention():
    angles = random_states()[:, 3:6]
    expected = Rotation.from_euler("xyz", angles.numpy()).as_matrix()
    torch.testing.assert_close(poses.matrix_from_euler(angles), torch.from_numpy(expected))


def test_gripper_is_clipped_and_zero_action_keeps_the_state():
    state = torch.tensor([[0.5, 0.0, 0.2, math.pi, 0.1, -0.3, 0.8]])
    action = torch.zeros(3, 7)
    action[:, 6] = torch.tensor([-1.0, 0.0, 1.0])
    out = poses.compose(state, action)
    torch.testing.assert_close(out[:, 6], torch.tensor([0.0, 0.8, 1.0]))
    torch.testing.assert_close(poses.centred(out, state[0])[:, :6], torch.zeros(3, 6))


def test_looking_straight_up_still_gives_the_rotation():
    angles = torch.tensor([[0.3, math.pi / 2, 0.4], [0.3, -math.pi / 2, 0.4]], dtype=torch.float64)
    matrix = poses.matrix_from_euler(angles)
    again = poses.matrix_from_euler(poses.euler_from_matrix(matrix))
    torch.testing.assert_close(again, matrix, atol=1e-8, rtol=0)


def test_statistics_of_a_roll_that_flips_sign():
    states = torch.zeros(4, 7)
    states[:, 3] = torch.tensor([3.1, -3.1, 3.12, -3.12])
    mean, std = poses.statistics(states)
    assert abs(abs(float(mean[3])) - math.pi) < 1e-3
    assert float(std[3]) < 0.05
    assert poses.centred(states, mean)[:, 3].abs().max() < 0.05
    assert float(std[0]) == torch.tensor(0.01)


@pytest.mark.parametrize("name", ["compose", "difference"])
def test_autocast_does_not_reach_poses(name):
    states = torch.rand(2, 50, 7, generator=torch.Generator().manual_seed(0))
    wanted = getattr(poses, name)(*states)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(getattr(poses, name)(*states), wanted)
