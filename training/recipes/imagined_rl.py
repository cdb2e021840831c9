"""`train-rl --env-id JEPALatent-v0 --algo ppo`: learn in imagination, measured in the simulator.

All episodes are imagined by one batched predictor; the reward is the energy that a step saves. The
policy reads latents, and its actions are in [-1, 1] and of an action set: unscaled ones saturate,
and random turns of the hand leave what the model was trained on. An interrupted training goes on
with the weights, the moments of the optimiser and the evaluations that it had, in new episodes.

Reference: proximal policy optimisation (arXiv 1707.06347), of Stable-Baselines3.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from jepa_gym import make_env
from jepa_gym.agents.policy import write_policy
from jepa_gym.checkpoint.beside import encoder_hash
from jepa_gym.integrations.sb3 import make_vec_env
from jepa_gym.latent.wrappers import LatentObservation
from jepa_gym.logs import progress_bar
from jepa_gym.training.data.starts import dataset_starts
from jepa_gym.training.recipes.rl_episodes import History, dimensions
from jepa_gym.training.recipes.rl_storage import (
    measure,
    progress_of,
    read_training,
    write_training,
)
from jepa_gym.world_model import WorldModel

_LOG = logging.getLogger(__name__)

if TYPE_CHECKING:
    from jepa_gym.training.recipes.train_rl import TrainRLConfig

MOST_STARTS = 4000
EPISODE_STEPS = 10
NETWORK = [256, 256]


class _Measures(BaseCallback):
    """Evaluate now and then, keep what the training goes on from, and show a bar."""

    def __init__(
        self, config: TrainRLConfig, world: WorldModel, test_env: gym.Env, history: History
    ) -> None:
        super().__init__()
        self.config, self.world, self.test_env, self.history = config, world, test_env, history
        self._every = max(1, (config.steps or 0) // config.evaluations)
        self._bar: tqdm[Any] | None = None

    def _on_training_start(self) -> None:
        total, done = self.config.steps, self.model.num_timesteps
        self._bar = progress_bar(
            total=total, initial=done, unit="step", desc="ppo", unit_scale=True
        )

    def _on_rollout_start(self) -> None:
        last = self.history.curve[-1].step if self.history.curve else 0
        if self.model.num_timesteps // self._every > last // self._every:
            self.measure()

    def _on_step(self) -> bool:
        if self._bar is not None:
            self._bar.update(self.model.n_envs)
        return True

    def measure(self) -> None:
        """Evaluate the policy on the real environment and save."""
        found = measure(self.config, self.model, self.test_env, self.history)
        if self._bar is not None:
            self._bar.set_postfix(success=f"{found.success_at_end:.0%}")
        self.save()

    def save(self) -> None:
        """Write what the training goes on from, then the best policy."""
        config, model, history = self.config, self.model, self.history
        told = progress_of(config, model, history)
        optimizers = {"policy": model.policy.optimizer}
        write_training(config.training_file, model, history, optimizers, told)
        bounds = np.float32(self.world.config.action_bounds)[dimensions(config.chosen_set)]
        observed: Any = model.observation_space
        sizes = told | {
            "observation": {key: list(box.shape) for key, box in observed.spaces.items()},
            "action_low": (-bounds).tolist(),
            "action_high": bounds.tolist(),
            "dimensions": dimensions(config.chosen_set),
            "activation": "tanh",
            "squash": False,
            "encoder": encoder_hash(self.world),
        }
        write_policy(config.output, history.actor, sizes)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def train_imagined(config: TrainRLConfig) -> Path:
    """Train, or go on with a training, and write the policy that was best in the simulator.

    Args:
        config: What to train.

    Returns:
        The policy's file.

    Raises:
        ValueError: If the training that lies there is damaged or has other settings.
    """
    world = WorldModel.from_pretrained(config.checkpoint)
    given = {} if config.data is None else {
        "starts": "dataset", "data": dataset_starts(config.data, MOST_STARTS, "train"),
    }  # fmt: skip
    env = make_vec_env(
        "JEPALatent-v0", config.n_envs, seed=config.seed, model=world, reward="progress",
        action_set=config.chosen_set, rescale_actions=True, **given,
    )  # fmt: skip
    real = make_env(world, config.real_env, obj=config.obj, protocol="one", obs_mode="both")
    test_env = LatentObservation(real, world, action_set=config.chosen_set, rescale_actions=True)
    model = PPO(
        "MultiInputPolicy",
        env,
        n_steps=2 * EPISODE_STEPS,
        batch_size=5 * config.n_envs,
        n_epochs=10,
        gamma=0.9,
        learning_rate=lambda left: 3e-5 + 5e-4 * left,
        policy_kwargs={"net_arch": NETWORK, "log_std_init": -0.7},
        seed=config.seed,
        device=config.device,
    )
    history = History()
    if config.training_file.exists():
        read_training(config, model, history, {"policy": model.policy.optimizer})
        _LOG.info(f"continues after {model.num_timesteps} steps of {config.training_file}")
    callback = _Measures(config, world, test_env, history)
    left = (config.steps or 0) - model.num_timesteps
    try:
        if left > 0:
            model.learn(left, callback, reset_num_timesteps=False)
            callback.measure()
    finally:
        callback.close()
        env.close()
        test_env.close()
    best = history.best
    assert best is not None
    _LOG.info(
        f"policy of {best.step} of {model.num_timesteps} imagined steps written to "
        f"{config.output}: success at the end {best.success_at_end:.0%} in {config.eval_episodes} "
        f"episodes of {config.real_env} that chose it"
    )
    return config.output
