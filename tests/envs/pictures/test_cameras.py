"""Where cameras stand, in the convention in which DROID records it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jepa_gym.envs.pictures.cameras import CAMERAS, droid_extrinsics


@pytest.mark.parametrize("camera", ["left", "right", "wrist"])
def test_extrinsics_find_the_object_in_the_picture(make, camera):
    """A point's depth is along z, its column along x and its row along y, as in OpenCV."""
    size = 128
    env = make("FrankaReach-v0", obj="box", camera=camera, image_size=size).unwrapped
    middle = {"object_position": (0.5, 0.0), "start_position": (0.46, 0.0, 0.2)}
    picture = env.reset(seed=0, options=middle)[0]["pixels"].astype(int)
    seen = env.data.camera(camera)
    pose = droid_extrinsics(seen.xpos, seen.xmat)
    axes = Rotation.from_euler("xyz", pose[3:]).as_matrix()
    x, y, z = axes.T @ (env.object_position() - pose[:3])
    focal = size / 2 / np.tan(np.deg2rad(env.model.camera(camera).fovy[0]) / 2)
    column, row = np.round(focal * np.array([x, y]) / z + size / 2).astype(int)
    assert z > 0.1
    red, green, blue = picture[row, column]
    assert red > 2 * max(green, blue)


@pytest.mark.parametrize("camera", ["left", "front", "droid", "wrist"])
def test_points_are_found_in_the_picture(make, camera):
    env = make("FrankaReach-v0", obj="box", camera=camera, image_size=(96, 128)).unwrapped
    middle = {"object_position": (0.5, 0.0), "start_position": (0.46, 0.0, 0.2)}
    picture = env.reset(seed=0, options=middle)[0]["pixels"].astype(int)
    red = picture[..., 0] > 2 * picture[..., 1:].max(-1)
    row, column = np.argwhere(red).mean(0)
    found = env.project(np.stack([env.object_position()] * 2), camera)
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found[0], [column, row], atol=4)
    with pytest.raises(ValueError, match="camera"):
        env.project(env.object_position(), "behind")


def test_exterior_cameras_look_at_their_target_with_the_table_below(make):
    env = make("FrankaReach-v0", image_size=32).unwrapped
    env.reset(seed=0)
    for name, spec in CAMERAS.items():
        pose = droid_extrinsics(env.data.camera(name).xpos, env.data.camera(name).xmat)
        right, down, forward = Rotation.from_euler("xyz", pose[3:]).as_matrix().T
        way = np.subtract(spec.target, spec.position)
        assert np.allclose(pose[:3], spec.position)
        assert np.allclose(forward, way / np.linalg.norm(way), atol=1e-6)
        assert abs(right[2]) < 1e-6 and down[2] < -0.5
