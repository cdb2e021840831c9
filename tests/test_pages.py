"""The blocks of README and docs run by themselves, and what they compute is right."""

from __future__ import annotations

import functools
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jepa_gym.agents import AGENTS
from jepa_gym.agents.mpc import MPCAgent
from jepa_gym.agents.planners import PLANNERS
from jepa_gym.latent.env import JEPALatentEnv

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
TESTED_ELSEWHERE = {"tasks.md", "collect.md", "data.md"}
"""Pages whose blocks have tests of their own."""


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the pages' blocks of a language, each with the name of its page."""
    return [
        (page.name, block)
        for page in PAGES
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)
    ]


BLOCKS = [block for page, block in blocks("python") if page not in TESTED_ELSEWHERE]
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
    "class Arm:": """
assert arm.info["distance_m"] < 0.04
""",
    "from stable_baselines3 import PPO": """
assert learner.num_timesteps == 1_280 and len(learner.ep_info_buffer) == 100
assert isinstance(learner.policy.features_extractor, LatentExtractor)
actions, _ = learner.predict(env.reset(), deterministic=True)
assert actions.shape == (64, 3) and np.abs(actions).max() <= 1
""",
}


def test_every_block_is_checked() -> None:
    assert all(sum(line in block for line in CHECKS) == 1 for block in BLOCKS)
    copies = {line: {block for block in BLOCKS if line in block} for line in CHECKS}
    assert all(len(found) == 1 for found in copies.values()), "README and docs show the same"


@pytest.mark.parametrize("line", CHECKS, ids=range(1, len(CHECKS) + 1))
def test_block_runs_alone_and_its_values_are_right(line: str) -> None:
    (block,) = {block for block in BLOCKS if line in block}
    code = f"{block}\nimport numpy as np\n{CHECKS[line]}"
    result = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@functools.cache
def flags_of(command: str) -> set[str]:
    """Return the flags that `COMMAND --help` lists."""
    words = command.split()
    program = [sys.executable, "-m", "jepa_gym.cli"] if words[0] == "jepa-gym" else [sys.executable]
    result = subprocess.run(
        [*program, *words[1:], "--help"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return set(re.findall(r"--[a-z][\w.-]*", result.stdout))


def command_lines() -> Iterator[str]:
    """Yield the lines of all blocks that call a command of the package or a benchmark."""
    for _, block in blocks("(?:bash)?"):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"jepa-gym [a-z]|python (benchmarks|tools)/", line):
                yield line.partition("#")[0].strip()


COMMANDS = sorted({" ".join(line.split()[:2]) for line in command_lines()})


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_of_command_lines_exist(command: str) -> None:
    lines = [line for line in command_lines() if line.split()[:2] == command.split()]
    used = {flag for line in lines for flag in re.findall(r"(?<=\s)--[a-z][\w.-]*", line)}
    assert not used - flags_of(command)


def names_of(page: str) -> set[str]:
    """Return what a page of docs/ names in the first cells of its tables."""
    text = (REPOSITORY / "docs" / page).read_text()
    cells = re.findall(r"^\| ([^|]+) \|", text, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([\w-]+)`", cell)}


def test_pages_name_every_agent_and_argument() -> None:
    listed = names_of("agents.md")
    assert set(AGENTS) <= listed
    agents = (REPOSITORY / "docs" / "agents.md").read_text()
    assert set(PLANNERS) <= set(re.findall(r"`([\w-]+)`", agents))
    assert set(inspect.signature(MPCAgent.__init__).parameters) - {"self"} <= listed
    arguments = set(inspect.signature(JEPALatentEnv.__init__).parameters) - {"self"}
    assert arguments <= names_of("latent-env.md")
