"""What the pictures show: upright, red is red, the opening of the gripper, the hand in view."""

from __future__ import annotations

import gc
from pathlib import Path

import gymnasium as gym
import imageio.v3 as iio
import numpy as np
import pytest

from jepa_gym.envs.physics.workbench import WORKSPACE_HIGH_M, WORKSPACE_LOW_M

GOLDEN = Path(__file__).parents[2] / "fixtures" / "pictures"


def test_golden_picture(make, env_id):
    """Start and goal of seed 0, with room for another rasteriser's edges and rounding.

    `python tests/envs/test_pictures.py` writes the fixtures anew after an intended change.
    """
    picture = _golden_frame(env_id).astype(int)
    expected = iio.imread(GOLDEN / f"{env_id}.png").astype(int)
    assert picture.shape == expected.shape
    difference = np.abs(picture - expected).max(-1)
    assert difference.mean() < 3
    assert (difference > 40).mean() < 0.01


def _golden_frame(env_id: str) -> np.ndarray:
    with gym.make(env_id, obj="cup", camera="left+wrist") as env:
        observation, _ = env.reset(seed=0)
        goal = env.unwrapped.subgoals[-1].pixels
        return np.concatenate([observation["pixels"], goal])


def test_frame_is_upright_rgb(make):
    env = make("FrankaReach-v0", obj="box").unwrapped
    env.reset(seed=0)
    frame = env.frame().astype(int)
    red = (frame[..., 0] > 130) & (frame[..., 1] < 90) & (frame[..., 2] < 90)
    assert red.sum() > 20, "the red box must show in the red channel"
    rows = np.nonzero(red)[0]
    assert rows.mean() > 64, "the table, and the box on it, are in the lower half"


@pytest.mark.parametrize("camera", ["left", "right", "front", "droid"])
def test_every_camera_sees_the_hand_rise_and_the_robots_left(make, camera):
    env = make("FrankaReach-v0", obj="box", camera=camera).unwrapped
    env.reset(seed=0)

    def column_and_row(place) -> np.ndarray:
        env.place_object(np.array(place), 0.0)
        with_box = env.frame().astype(int)
        env.place_object(np.array([0, 0, -2.0]), 0.0)
        changed = np.abs(with_box - env.frame()).max(-1) > 8
        return np.argwhere(changed).mean(0)[::-1]

    env.place_arm(np.array([0.5, 0.15, 0.3]))
    low, high = column_and_row([0.5, -0.1, 0.03]), column_and_row([0.5, -0.1, 0.2])
    assert high[1] < low[1] - 5, "up is up"
    env.place_arm(np.array([0.5, 0.0, 0.33]))
    left, right = column_and_row([0.5, 0.12, 0.03]), column_and_row([0.5, -0.12, 0.03])
    assert left[0] > right[0] + 5, "cameras face the robot: its left is on their right"


def test_opening_shows_and_the_hand_stays_in_view(make):
    """Open to closed changes at least 1 % of one view, at every corner of the workspace."""
    env = make("FrankaReach-v0", camera="left+wrist").unwrapped
    env.reset(seed=0)
    corners = np.stack(np.meshgrid(*zip(WORKSPACE_LOW_M, WORKSPACE_HIGH_M, strict=True)), -1)
    camera = env.data.camera("left")
    for corner in corners.reshape(-1, 3):
        pictures = []
        for closedness in (0.0, 1.0):
            env.place_arm(corner, closedness)
            pictures.append(env.frame().astype(int))
        changed = np.abs(pictures[0] - pictures[1]).max(-1) > 8
        assert max(changed[:, :128].mean(), changed[:, 128:].mean()) >= 0.01
        seen = camera.xmat.reshape(3, 3).T @ (env.data.site("grip").xpos - camera.xpos)
        half = np.tan(np.deg2rad(env.model.camera("left").fovy[0] / 2))
        assert np.abs(seen[:2] / -seen[2]).max() < 0.95 * half


def test_depth_is_observed_in_metres(make):
    env = make("FrankaReach-v0", depth=True, camera="left+wrist", image_size=(48, 64))
    observation, _ = env.reset(seed=0)
    depth = observation["depth"]
    assert depth.shape == (48, 128) and depth.dtype == np.float32
    assert observation["pixels"].shape == (48, 128, 3)
    assert 0.3 < depth[:, :64].min() < 1.2 < depth[:, :64].max() < 4.0
    assert 0.01 < depth[:, 64:].min() < 0.2, "the fingers are near the wrist's camera"


def test_frames_survive_garbage_collection_and_other_environments(make):
    """Stock robosuite hands out stale or random frames here; see `robosuite_assets`."""
    env = make("FrankaGrasp-v0")
    env.reset(seed=0)
    for _ in range(3):
        other = gym.make("FrankaReach-v0", obj="cup")
        other.reset(seed=1)
        other.close()
        del other
        gc.collect()
        poison = [np.full((128, 256, 3), 7, np.uint8) for _ in range(50)]
        del poison
        observation, *_ = env.step(np.array([0.03, 0, 0.02, 0, 0, 0, 0], np.float32))
        fresh = env.unwrapped.frame()
        assert np.array_equal(observation["pixels"], fresh)
        assert fresh.std() > 20


def test_missing_gl_names_the_packages():
    """Without a GL library the message says what to install."""
    import subprocess
    import sys

    code = "import gymnasium as gym, jepa_gym; gym.make('FrankaReach-v0')"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "", "MUJOCO_GL": "disabled", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert "libegl1" in result.stderr


if __name__ == "__main__":
    import jepa_gym  # noqa: F401  (registers the environments)

    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in ("Reach", "Grasp", "ReachWithObject", "PickPlace"):
        iio.imwrite(GOLDEN / f"Franka{name}-v0.png", _golden_frame(f"Franka{name}-v0"))
