"""The code on `docs/tasks.md`; each goes on from the one before, and a test runs them."""

SNIPPETS = {
    "start": """
import gymnasium as gym

import jepa_gym  # registers the environments

env = gym.make("FrankaPickPlace-v0", obj="cup")
observation, info = env.reset(seed=0)
truncated = False
while not truncated:
    action = env.unwrapped.expert_action()  # (7,), reads the simulator's state
    observation, reward, terminated, truncated, info = env.step(action)
print("success:", info["success_at_end"], "failure:", info["failure"])
""",
    "recorded": """
env = gym.make("FrankaReach-v0", goal_source="random", goal_schedule="progress")
env.reset(seed=0, options={"object_position": (0.5, 0.1), "goal_position": (0.45, 0.0, 0.2)})

# Start and goal of an episode that was recorded before, as simulator states.
env = gym.make("FrankaReach-v0")
env.reset(seed=1)
start = env.unwrapped.get_state()["physics"]
for _ in range(3):
    env.step(env.unwrapped.expert_action())
goal = env.unwrapped.get_state()["physics"]
observation, info = env.reset(seed=0, options={"recorded": {"start": start, "goal": goal}})
print("goal image:", observation["goal_pixels"].shape, "distance:", info["distance_m"])
""",
    "schedule": """
env = gym.make("FrankaPickPlace-v0", goal_schedule="progress")
schedule = env.unwrapped.goal_schedule
print(schedule.names, schedule.steps, schedule.mode)
observation, info = env.reset(seed=0)
print("sub-goal shown now:", schedule.names[info["subgoal"]])
""",
    "cameras": """
env = gym.make("FrankaGrasp-v0", camera="left+wrist", image_size=(96, 128), depth=True)
observation, info = env.reset(seed=0)
print(observation["pixels"].shape, observation["depth"].shape)  # (96, 256, 3), (96, 256)
""",
    "droid": """
from jepa_gym.envs.droid import make_droid

env = make_droid("FrankaReach-v0", obj="cup")
observation, info = env.reset(seed=0)
print("flange:", observation["observation"], "picture:", observation["pixels"].shape)
""",
    "variation": """
env = gym.make("FrankaGrasp-v0", obj="box")
look = {
    "table_texture": "marble",
    "camera_azimuth_deg": 15.0,
    "distractors": [{"shape": "cylinder", "rgb": (0.9, 0.7, 0.1)}],
}
observation, info = env.reset(seed=0, options={"variation": look})
print(info["variation"]["table_texture"])
""",
    "split": """
from jepa_gym.envs.splits import split_objects

print(split_objects("train"), split_objects("object"))
env = gym.make("FrankaPickPlace-v0", obj="mug", split="all")
observation, info = env.reset(seed=0)
print("light:", info["variation"]["light"])
""",
    "vector": """
envs = gym.make_vec("FrankaReach-v0", num_envs=2, obs_mode="state")
observations, infos = envs.reset(seed=0)
observations, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())
print(observations["observation"].shape)  # (2, 7)
envs.close()
""",
    "branching": """
env = gym.make("FrankaReach-v0", obs_mode="state")
env.reset(seed=0)
here = env.unwrapped.get_state()
for candidate in range(3):
    env.unwrapped.set_state(here)
    observation, reward, *_, info = env.unwrapped.step(env.action_space.sample())
    print("candidate", candidate, "ends", info["distance_m"], "m from the goal")
env.unwrapped.set_state(here)
""",
}
