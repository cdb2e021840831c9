"""Least-squares calibration, and the moves that a model of known energy sees."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jepa_gym.benchmarks.calibration import fit_actions, infer_actions

BOUND_M = 0.075


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s], [s, c]])


def moves(width: int = 2, count: int = 200) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.05, 0.05, (count, width))


@pytest.mark.parametrize("degrees", [-120.0, 0.0, 35.0, 179.0])
def test_recovers_rotation_and_scale(degrees):
    real = moves()
    fit = fit_actions(real @ np.linalg.inv(1.2 * rotation(degrees)).T, real)
    np.testing.assert_allclose(fit.matrix, 1.2 * rotation(degrees), atol=1e-9)
    assert fit.rotation_deg == pytest.approx(degrees)
    assert fit.condition_number == pytest.approx(1)
    assert fit.error_after_m < 1e-9 and fit.explained == pytest.approx(1) and fit.n == 200


def test_noise_moves_the_fit_a_little_and_shows_as_error():
    real = moves()
    noise = np.random.default_rng(1).normal(0, 0.002, real.shape)
    fit = fit_actions(real @ rotation(-35) + noise, real)
    assert fit.rotation_deg == pytest.approx(-35, abs=1)
    assert 0.001 < fit.error_after_m < 0.004 < fit.error_before_m
    assert fit.condition_number < 1.05


def test_a_stretch_shows_as_condition_number_and_not_as_rotation():
    real = moves()
    fit = fit_actions(real / [1.0, 3.0], real)
    assert fit.condition_number == pytest.approx(3)
    assert fit.rotation_deg == pytest.approx(0)


def test_a_blind_model_explains_nothing():
    real = moves()
    fit = fit_actions(np.random.default_rng(1).permutation(real), real)
    assert fit.explained < 0.05
    assert fit.error_after_m == pytest.approx(np.linalg.norm(real, axis=1).mean(), rel=0.05)


def test_three_axes():
    real, turned = moves(3), np.eye(3)
    turned[:2, :2] = rotation(-40)
    fit = fit_actions(real @ turned, real)  # inferred = turned.T @ real
    np.testing.assert_allclose(fit.matrix, turned, atol=1e-9)
    assert fit.rotation_deg == pytest.approx(40)


def test_apply_corrects_moves_and_leaves_the_rest_of_an_action():
    real = moves()
    inferred = real @ rotation(30)
    fit = fit_actions(inferred, real)
    np.testing.assert_allclose(fit.apply(inferred), real, atol=1e-9)
    np.testing.assert_allclose(fit.apply(inferred[0]), real[0], atol=1e-9)
    actions = np.full((4, 5, 7), 0.5, np.float32)
    applied = fit.apply(actions)
    assert (applied[..., 2:] == 0.5).all() and (actions == 0.5).all()
    np.testing.assert_allclose(applied[0, 0, :2], rotation(30) @ [0.5, 0.5])


@pytest.mark.parametrize("wrong", [np.zeros((3, 4)), np.float64(1), np.array([np.nan, 0])])
def test_apply_refuses(wrong):
    with pytest.raises(ValueError, match="`actions` must be"):
        fit_actions(moves(), moves()).apply(wrong)


@pytest.mark.parametrize(
    ("inferred", "real", "message"),
    [
        (moves(), moves(3), r"must both be \(N, 2\)"),
        (moves(4), moves(4), r"must both be \(N, 2\)"),
        (moves()[:, 0], moves()[:, 0], r"must both be \(N, 2\)"),
        (moves(count=2), moves(count=2), "give at least 3"),
        (np.where(np.arange(200)[:, None] == 7, np.nan, moves()), moves(), "`inferred` has 1"),
        (moves(), moves() * [1, np.inf], "`real` has 200"),
        (moves() * [1, 0], moves(), "`inferred` moves span 1 of 2"),
        (moves(), moves() * 0, "`real` moves span 0 of 2"),
    ],
)
def test_refuses_what_determines_no_matrix(inferred, real, message):
    with pytest.raises(ValueError, match=message):
        fit_actions(inferred, real)


class TurnedModel:
    """Latents are positions as a turned camera shows them; frames hold the index of a state.

    What it imagines is off by `bias_m`, whatever the action.
    """

    config = SimpleNamespace(frame=SimpleNamespace(max_move_m=BOUND_M))

    def __init__(self, positions: np.ndarray, degrees: float, bias_m: float = 0.0):
        self.turn = torch.eye(3)
        self.turn[:2, :2] = torch.from_numpy(rotation(degrees))
        self.positions = torch.from_numpy(positions).float()
        self.bias_m = bias_m
        self.broken = False

    def encode(self, frames):
        index = frames[..., 0, 0, 0].long()
        return (self.positions[index] @ self.turn.T)[..., None, :]  # (B, T, 1, 3)

    def prepare(self, latents, states, *, grad=False):
        assert states.shape == (*latents.shape[:2], 7)

        def imagined(actions):
            assert not actions[..., 3:].any()
            future = latents[:, -1, None, None] + actions[..., None, :3] + self.bias_m
            return future * (torch.nan if self.broken else 1)

        def energy(actions, goal):
            return self.energy(imagined(actions)[:, :, -1], goal)

        return SimpleNamespace(latents=imagined, energy=energy)

    def energy(self, latents, goal):
        return (latents - goal[:, None]).square().sum((-2, -1)).sqrt()


@pytest.fixture
def walk():
    """Return positions (80, 3) one step apart, and the arguments of `infer_actions`."""
    positions = moves(3, 80).cumsum(axis=0)
    images = np.zeros((80, 2, 2, 3), np.uint8)
    images[..., 0] = np.arange(80)[:, None, None]
    states = np.zeros((80, 7), np.float32)
    seen = np.arange(1, 79)[:, None] + [-1, 0]
    return positions, (images[seen], states[seen], images[2:])


@pytest.mark.parametrize("bias_m", [0.0, 0.03])
def test_inferred_moves_are_those_of_least_energy(walk, bias_m):
    positions, arguments = walk
    inferred = infer_actions(TurnedModel(positions, 0.0, bias_m), *arguments, axes=3)
    assert inferred.shape == (78, 3)
    assert np.abs(inferred - np.diff(positions[1:], axis=0)).max() < 5e-4


def test_a_turned_camera_is_found_and_corrected(walk):
    positions, arguments = walk
    positions[:, 2] = 0.2
    inferred = infer_actions(TurnedModel(positions, -25.0), *arguments)
    real = np.diff(positions[1:, :2], axis=0)
    fit = fit_actions(inferred, real)
    assert fit.rotation_deg == pytest.approx(25, abs=0.5)
    assert fit.condition_number == pytest.approx(1, abs=0.02)
    assert np.linalg.norm(fit.apply(inferred) - real, axis=1).max() < 1e-3


def test_moves_stay_within_the_bound_and_offset_free_can_be_off(walk):
    positions, arguments = walk
    model = TurnedModel(3 * positions, 0.0, bias_m=0.02)
    inferred = infer_actions(model, *arguments, axes=3, offset_free=False)
    assert np.abs(inferred).max() == pytest.approx(BOUND_M)
    model = TurnedModel(positions, 0.0, bias_m=0.02)
    inferred = infer_actions(model, *arguments, axes=3, offset_free=False)
    biased = np.diff(positions[1:], axis=0) - 0.02
    assert np.abs(inferred - biased.clip(-BOUND_M, BOUND_M)).max() < 5e-4


def test_infer_refuses(walk):
    positions, (frames, states, next_frames) = walk
    model = TurnedModel(positions, 0.0)
    with pytest.raises(ValueError, match="`axes` must be 2 or 3"):
        infer_actions(model, frames, states, next_frames, axes=1)
    with pytest.raises(ValueError, match="`frames` must be"):
        infer_actions(model, frames, states, next_frames[:-1])
    with pytest.raises(ValueError, match="`states` must be"):
        infer_actions(model, frames, states[..., :6], next_frames)
    with pytest.raises(ValueError, match="`states` must be"):
        infer_actions(model, frames, states * np.nan, next_frames)
    model.broken = True
    with pytest.raises(ValueError, match="energy that is not finite"):
        infer_actions(model, frames, states, next_frames)
