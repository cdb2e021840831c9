"""Every Python block of the README runs by itself, and what it computes is right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
CHECKS = {
    # a line of the block -> what must hold after it
    'agent = make_agent("mpc-cem", model=model)': """
hand, goal = observation["observation"][:3], observation["goal_state"][:3]
assert abs(np.linalg.norm(hand - goal) - info["distance_m"]) < 1e-4
assert info["is_success"] and info["distance_m"] < 0.04
""",
    "candidates = torch.zeros(1, 31, 1, 7)": """
assert latents.shape[:2] == (1, 1) and future.shape == (1, 31, 1, *latents.shape[2:])
assert energy.shape == (1, 31)
ends = (future[0, :, -1] - model.encode(goal_frames)[0, 0]).abs().mean((-2, -1))
assert torch.allclose(ends, energy[0], atol=1e-6)
assert goal_dx > 0.1 and best_dx > 0.05  # far away, so nearly the longest move
""",
    "action = 0.1 * env.action_space.sample()": """
difference = following["achieved_goal"] - following["desired_goal"]
assert abs(np.abs(difference).mean() - info["energy"]) < 1e-5
moved = following["observation"][:3] - observation["observation"][:3]
assert np.allclose(moved, action[:3], atol=1e-6) and np.abs(moved).max() > 1e-3
assert not np.allclose(following["achieved_goal"], observation["achieved_goal"], atol=0.01)
""",
    '"FrankaPickPlace-v0",': """
vector.close()
assert observation["pixels"].shape == (256, 512, 3)
assert env.unwrapped.goal_schedule.mode == "progress"
first = env.step(0.1 * env.action_space.high)[0]
env.unwrapped.set_state(state)
second = env.step(0.1 * env.action_space.high)[0]
assert all(np.array_equal(first[key], second[key]) for key in first)
assert not np.array_equal(first["pixels"], observation["pixels"])
assert (vector.num_envs, latent.num_envs) == (2, 8)
""",
    'reward="progress",': """
before = observation
action = 0.1 * env.action_space.high
assert action.shape == (4,)
observation, reward, _, _, info = env.step(action)
goals = np.stack([before["desired_goal"], observation["desired_goal"]])
reached = np.stack([before["achieved_goal"], observation["achieved_goal"]])
energies = np.abs(goals - reached).mean((-2, -1))
assert abs(reward - (energies[0] - energies[1])) < 1e-5
env.unwrapped.set_state(state)
assert np.array_equal(env.step(action)[0]["achieved_goal"], observation["achieved_goal"])
height, width = env.unwrapped.model.config.frame.height, env.unwrapped.model.config.frame.width
picture = env.render()
assert picture.dtype == np.uint8 and picture.shape[1] >= 2 * width, picture.shape
assert many.reset(seed=0)[0]["achieved_goal"].shape[0] == 64
""",
    "from stable_baselines3 import PPO": """
assert learner.num_timesteps == 1_280 and len(learner.ep_info_buffer) == 100
assert isinstance(learner.policy.features_extractor, LatentExtractor)
actions, _ = learner.predict(env.reset(), deterministic=True)
assert actions.shape == (64, 3) and np.abs(actions).max() <= 1
""",
}


def test_every_block_is_checked() -> None:
    assert len(BLOCKS) == len(CHECKS)


@pytest.mark.parametrize("line", CHECKS, ids=range(1, len(CHECKS) + 1))
def test_block_runs_alone_and_its_values_are_right(line: str) -> None:
    (block,) = [block for block in BLOCKS if line in block]
    code = f"{block}\nimport numpy as np\n{CHECKS[line]}"
    result = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
