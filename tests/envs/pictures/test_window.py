"""The windows: `render_mode="human"` under SDL's dummy driver, and MuJoCo's viewer without one."""

from __future__ import annotations

from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest

from jepa_gym.envs.pictures import window

pygame = pytest.importorskip("pygame")


def test_the_window_shows_every_step(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gym.make("FrankaReach-v0", render_mode="human", camera="left+wrist", step_s=0.05)
    shown = []
    for seed in (0, 1):
        env.reset(seed=seed)
        shown.append(pygame.surfarray.array3d(pygame.display.get_surface()))
        env.step(np.array([0, 0.05, 0, 0, 0, 0, 0], np.float32))
        shown.append(pygame.surfarray.array3d(pygame.display.get_surface()))
        assert env.render() is None
    assert shown[0].shape == (2 * window.VIEW_PX, window.VIEW_PX, 3)
    assert all(picture.std() > 20 for picture in shown)
    assert all((a != b).any() for a, b in pairwise(shown))
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    env.step(np.zeros(7, np.float32))
    assert pygame.display.get_surface() is None, "whoever closes it goes on without"
    env.step(np.zeros(7, np.float32))
    env.reset(seed=2)
    env.close()


def test_without_a_display_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match=r"needs a display .*rgb_array"):
        gym.make("FrankaReach-v0", render_mode="human")
    env = gym.make("FrankaReach-v0", obs_mode="state")
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match=r"DISPLAY nor WAYLAND_DISPLAY .*ssh -X"):
        env.unwrapped.passive_viewer()
    env.close()
