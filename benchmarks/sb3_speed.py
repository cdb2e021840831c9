"""Speed of collecting imagined experience in Stable-Baselines3, as a ratio in one run.

`python benchmarks/sb3_speed.py` lets PPO collect rollouts (it does not learn) from the batched
`jepa_gym.integrations.sb3.make_vec_env("JEPALatent-v0")` and from as many single environments of
one shared model in Stable-Baselines3's own `DummyVecEnv`, by turns, with one thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jepa_gym.benchmarks.results import Record
from jepa_gym.benchmarks.timing import Measurement, command, comparison, print_comparison

BAR = 5.0


@dataclass(frozen=True)
class Sb3SpeedConfig(Measurement):
    """Measure how fast Stable-Baselines3 collects imagined steps, batched against single ones."""

    checkpoint: str = "default"
    """Name or folder of the model."""
    envs: int = 64
    """Imagined environments."""
    steps: int = 20
    """Steps of each in a measurement; episodes end and begin among them."""
    seed: int = 0
    """Of episodes and networks."""

    QUICK = {"envs": 8, "steps": 3, "rounds": 1}
    LEAST = {"envs": 1, "steps": 2}


def run(config: Sb3SpeedConfig) -> Record:
    """Measure both by turns, print and return the figures."""
    import gymnasium as gym
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

    from jepa_gym.integrations.sb3 import make_vec_env
    from jepa_gym.world_model import WorldModel

    class Nothing(BaseCallback):
        def _on_step(self) -> bool:
            return True

    def collector(env: VecEnv) -> Callable[[], None]:
        learner = PPO(
            *("MultiInputPolicy", env),
            n_steps=config.steps,
            batch_size=config.steps * config.envs,
            seed=config.seed,
            device="cpu",
        )
        _, callback = learner._setup_learn(sys.maxsize, Nothing())

        def collect() -> None:
            learner.collect_rollouts(env, callback, learner.rollout_buffer, config.steps)

        return collect

    model = WorldModel.from_pretrained(config.checkpoint)
    single = [lambda: gym.make("JEPALatent-v0", model=model) for _ in range(config.envs)]
    batched = make_vec_env("JEPALatent-v0", config.envs, seed=config.seed, model=model)
    collectors = {
        "single": collector(VecMonitor(DummyVecEnv(single))),
        "batched": collector(batched),
    }
    figures = comparison(collectors, config.rounds)
    count = config.envs * config.steps
    for name, row in figures["rows"].items():
        row["steps_per_s"] = count / row["wall_s"]
        print(f"{name}: {row['steps_per_s']:.0f} steps/s")
    print_comparison(f"{count} steps of {config.envs} environments", figures, f"bar {BAR:.0f}")
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return command(run, Sb3SpeedConfig, arguments, one_thread=True)


if __name__ == "__main__":
    sys.exit(main())
