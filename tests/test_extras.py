"""What the extras of pyproject.toml are for works with the environments as they are."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest
from stable_baselines3 import SAC

import jepa_gym  # noqa: F401  (registers the environments)


@pytest.mark.parametrize("env_id", ["FrankaReach-v0", "JEPALatent-v0"])
def test_video_record_video_writes_an_episode(env_id: str, tmp_path: Path) -> None:
    env = gym.make(env_id, render_mode="rgb_array", max_episode_steps=2)
    env = gym.wrappers.RecordVideo(env, str(tmp_path / "videos"), disable_logger=True)
    env.reset(seed=0)
    for _ in range(2):
        env.step(0.1 * env.action_space.sample())
    env.close()
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert video.stat().st_size > 0


def test_sim_human_rendering_opens_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gym.wrappers.HumanRendering(gym.make("FrankaReach-v0", render_mode="rgb_array"))
    env.reset(seed=0)
    env.step(0.1 * env.action_space.sample())
    picture = env.env.render()
    assert env.window.get_size() == picture.shape[1::-1]
    env.close()


@pytest.mark.filterwarnings("ignore:rich is experimental")  # tqdm says so of its own bar
def test_rl_learners_log_to_tensorboard_and_show_a_bar(tmp_path: Path) -> None:
    env = gym.make("FrankaReach-v0", obs_mode="state", max_episode_steps=2)
    learner = SAC("MultiInputPolicy", env, tensorboard_log=str(tmp_path), learning_starts=100)
    learner.learn(8, log_interval=1, progress_bar=True)
    env.close()
    assert list(tmp_path.glob("SAC_1/events.out.tfevents.*"))
