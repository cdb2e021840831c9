"""Train the reinforcement-learning baselines: off-policy learners with hindsight goals, on states.

Reference: soft actor-critic (arXiv 1801.01290), TD3 (arXiv 1802.09477), DDPG (arXiv 1509.02971) and
hindsight experience replay (arXiv 1707.01495), all of Stable-Baselines3. The learner chooses the
numbers of an action set: one that may turn the hand, too, learns to pass by its goal and does not
learn to stay there. The best policy of the evaluations is the one that is written. Beside it lies
what the training goes on from, which is written between episodes; every episode draws from
generators of its own, so that an interrupted training ends with the policy of one that was not.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import DDPG, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from tqdm import tqdm

import jepa_gym  # noqa: F401  (registers the environments)
from jepa_gym.agents.policy import OWN_SUFFIX, write_policy
from jepa_gym.commands import Terminated, run_command
from jepa_gym.logs import progress_bar
from jepa_gym.training.recipes.rl_episodes import (
    History,
    SeededEpisodes,
    actor_weights,
    below,
    dimensions,
    make_task,
)
from jepa_gym.training.recipes.rl_storage import (
    TRAINING,
    damaged,
    measure,
    progress_of,
    read_training,
    write_training,
)

_LOG = logging.getLogger(__name__)

GOALS_PER_TRANSITION = 4
"""Hindsight goals drawn for every real one (the "future" strategy, arXiv 1707.01495)."""
ENTROPY = 0.02
"""Weight of SAC's entropy. Tuned by SAC itself it fell until the policy, which had reached all of
its goals, lost them all again; a fixed one learns faster, too (docs/research.md)."""
EXPLORATION = 0.1
"""Standard deviation of the noise on actions of TD3 and DDPG, over the bounds."""
NETWORK = [256, 256]
"""Widths of the hidden layers of actor and critics."""
RANDOM_EPISODES = 10
"""Episodes of random actions before anything is learned."""
BUFFER = ("actions", "rewards", "dones", "timeouts", "ep_start", "ep_length")
SAVE_EVERY_S = 60.0
STOPPED = "The training is kept up to its last episode; give the same command again to go on."


@dataclass(frozen=True, slots=True)
class TrainRLConfig:
    """Train a reinforcement learner with hindsight goals on state observations."""

    output: Path
    """File for the policy, ending in .safetensors; the training goes on from the one beside it."""
    env_id: Literal[
        "FrankaReach-v0",
        "FrankaGrasp-v0",
        "FrankaReachWithObject-v0",
        "FrankaPickPlace-v0",
        "JEPALatent-v0",
    ] = "FrankaReach-v0"
    """Task, on states; or JEPALatent-v0: in imagination, on latents, measured on `real_env`."""
    obj: str = "box"
    """Object of the catalogue."""
    algo: Literal["sac", "td3", "ddpg", "ppo"] = "sac"
    """Learner of Stable-Baselines3; ppo, and no other, learns in JEPALatent-v0. (Gradients through
    the world model are `jepa-gym imagine-policy`.)"""
    action_set: Literal["xyz", "xyz+gripper", "all"] | None = None
    """Which numbers of an action the policy chooses; by default xyz for reaching, and the gripper
    as well for all other tasks."""
    steps: int | None = None
    """Environment steps, 20,000 by default, in imagination 500,000; more than a finished training
    had continue it."""
    seed: int = 0
    """Seed of environment, networks and exploration."""
    device: str = "cpu"
    """Torch device."""
    evaluations: int = 10
    """How often the policy is measured on the way; the best one is written."""
    eval_episodes: int = 20
    """Episodes of each evaluation, always the same ones."""
    checkpoint: str = "default"
    """In imagination: the world model."""
    data: Path | None = None
    """In imagination: dataset whose training episodes give the starts; by default those of the
    checkpoint, which are few."""
    n_envs: int = 64
    """In imagination: episodes that are imagined together."""
    real_env: Literal["FrankaReach-v0", "FrankaGrasp-v0", "FrankaReachWithObject-v0"] = (
        "FrankaReach-v0"
    )
    """In imagination: the real environment that the policy is measured on, with one goal image."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a number is out of its range or the file ends in something else.
        """
        if self.steps is None:
            object.__setattr__(self, "steps", 500_000 if self.imagines else 20_000)
        assert self.steps is not None
        if self.steps < 1:
            raise ValueError(f"`steps` must be at least 1, got {self.steps}")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, got {self.seed}")
        if self.imagines != (self.algo == "ppo"):
            raise ValueError(
                f"`algo` {self.algo!r} does not learn in {self.env_id}: give ppo with "
                "JEPALatent-v0, and sac, td3 or ddpg with the tasks of the suite"
            )
        for name in ("evaluations", "eval_episodes", "n_envs"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.output.suffix != OWN_SUFFIX:
            raise ValueError(f"`output` must end in {OWN_SUFFIX}, got {self.output}")

    @property
    def training_file(self) -> Path:
        """What the training goes on from."""
        return self.output.with_name(f"{self.output.stem}.{TRAINING}{OWN_SUFFIX}")

    def settings(self) -> dict[str, Any]:
        """Return what a training that goes on must share with the one before."""
        names = ("env_id", "obj", "seed", "algo", "eval_episodes")
        found = {name: getattr(self, name) for name in names} | {"action_set": self.chosen_set}
        if self.imagines:
            found |= {"real_env": self.real_env, "n_envs": self.n_envs}
            found |= {"checkpoint": self.checkpoint, "data": self.data and str(self.data)}
        return found

    @property
    def chosen_set(self) -> str:
        """The action set."""
        task = self.real_env if self.imagines else self.env_id
        return self.action_set or ("xyz" if task == "FrankaReach-v0" else "xyz+gripper")

    @property
    def imagines(self) -> bool:
        """Whether it learns in imagination."""
        return self.env_id == "JEPALatent-v0"


class _BetweenEpisodes(BaseCallback):
    """Before every episode: seed what it draws from, save now and then, stop if a signal came."""

    def __init__(
        self, config: TrainRLConfig, episodes: SeededEpisodes, test_env: gym.Env, history: History
    ) -> None:
        super().__init__()
        self.config, self.episodes = config, episodes
        self.test_env, self.history = test_env, history
        self.signal: type[KeyboardInterrupt] | None = None
        self._begins, self._saved = True, time.monotonic()
        self._bar: tqdm[Any] | None = None

    def _on_training_start(self) -> None:
        done, steps = self.model.num_timesteps, self.config.steps
        self._bar = progress_bar(total=steps, initial=done, unit="step", desc=self.config.algo)

    def _on_rollout_start(self) -> None:
        if not self._begins:
            return
        self._begins = False
        self._measure()
        if self._bar is not None and self.model.ep_success_buffer:
            self._bar.set_postfix(success=f"{np.mean(self.model.ep_success_buffer):.0%}")
        if self.signal is not None or time.monotonic() - self._saved > SAVE_EVERY_S:
            save(self.config, self.model, self.episodes.episode, self.history)
            self._saved = time.monotonic()
        if self.signal is not None:
            raise self.signal
        seeds = np.random.SeedSequence((self.episodes.root, self.episodes.episode, 1))
        drawn = [int(seed) for seed in seeds.generate_state(3)]
        np.random.seed(drawn[0])  # what hindsight goals are drawn from
        torch.manual_seed(drawn[1])
        self.model.action_space.seed(drawn[2])

    def _measure(self) -> None:
        """Evaluate at the first episode that begins after each part of the training."""
        every = max(1, self.config.steps // self.config.evaluations)
        last = self.history.curve[-1].step if self.history.curve else 0
        if self.model.num_timesteps // every > last // every:
            measure(self.config, self.model, self.test_env, self.history)

    def _on_step(self) -> bool:
        self._begins = bool(self.locals["dones"][0])
        if self._bar is not None:
            self._bar.update(1)
        return True

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def train(config: TrainRLConfig) -> Path:
    """Train, or go on with a training, and write the policy.

    Args:
        config: What to train.

    Returns:
        The policy's file.

    Raises:
        ValueError: If the training that lies there is damaged or has other settings.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, when the running episode has ended and the
            training is saved.
    """
    if config.imagines:
        from jepa_gym.training.recipes.imagined_rl import train_imagined

        return train_imagined(config)
    env, test_env = (make_task(config.env_id, config.obj, config.chosen_set) for _ in range(2))
    episodes, threads = SeededEpisodes(env, config.seed), torch.get_num_threads()
    history = History()
    # networks of this size learn slower with more, and their sums would change by chance
    torch.set_num_threads(1)
    try:
        model = _new_model(config, episodes)
        if config.training_file.exists():
            restore(config, model, episodes, history)
            _LOG.info(f"continues after {model.num_timesteps} steps of {config.training_file}")
        callback = _BetweenEpisodes(config, episodes, test_env, history)
        try:
            with _signals_wait(callback):
                left = config.steps - model.num_timesteps
                model.learn(left, callback, reset_num_timesteps=False)
        finally:
            callback.close()
        if not history.curve or history.curve[-1].step < model.num_timesteps:
            measure(config, model, test_env, history)
        save(config, model, episodes.episode, history)
    finally:
        torch.set_num_threads(threads)
        env.close()
        test_env.close()
    best = history.best
    assert best is not None
    _LOG.info(
        f"policy of {best.step} of {model.num_timesteps} steps written to {config.output}: success "
        f"at the end {best.success_at_end:.0%}, once {best.success_once:.0%}, final distance "
        f"{100 * best.final_distance_m:.1f} cm in {config.eval_episodes} episodes that chose it"
    )
    return config.output


def _new_model(config: TrainRLConfig, env: gym.Env) -> OffPolicyAlgorithm:
    assert env.spec is not None and env.spec.max_episode_steps is not None
    algorithm = {"sac": SAC, "td3": TD3, "ddpg": DDPG}[config.algo]
    space: Any = env.action_space
    noise = {"action_noise": NormalActionNoise(np.zeros(space.shape), EXPLORATION * space.high)}
    return algorithm(
        "MultiInputPolicy",
        env,
        buffer_size=min(max(config.steps, env.spec.max_episode_steps), 1_000_000),
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={
            "n_sampled_goal": GOALS_PER_TRANSITION,
            "goal_selection_strategy": "future",
        },
        learning_starts=RANDOM_EPISODES * env.spec.max_episode_steps,
        learning_rate=1e-3,
        batch_size=256,
        gamma=0.95,
        tau=0.05,
        policy_kwargs={"net_arch": NETWORK},
        seed=config.seed,
        device=config.device,
        **({"ent_coef": ENTROPY} if config.algo == "sac" else noise),
    )


@contextmanager
def _signals_wait(callback: _BetweenEpisodes) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the episode has ended; a second one does not wait."""

    def later(number: int, frame: Any) -> None:
        kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if callback.signal is not None:
            raise kind
        callback.signal = kind

    if threading.current_thread() is not threading.main_thread():
        yield  # signals arrive elsewhere
        return
    before = {number: signal.signal(number, later) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def save(config: TrainRLConfig, model: OffPolicyAlgorithm, episode: int, history: History) -> None:
    """Write what the training goes on from, then the policy; each appears complete or not at all.

    Args:
        config: What is trained.
        model: The learner, between two episodes.
        episode: Number of the episode that begins.
        history: What evaluations found; the policy is the best one, or else the present one.
    """
    buffer = _buffer(model)
    filled = buffer.buffer_size if buffer.full else buffer.pos
    kept = {f"buffer.{k}": torch.from_numpy(x[:filled]) for k, x in _arrays(buffer).items()}
    progress = progress_of(config, model, history)
    more = {"updates": model._n_updates, "episode": episode}
    more |= {"position": buffer.pos, "full": buffer.full}
    path = config.training_file
    write_training(path, model, history, _optimizers(model), progress | more, kept)
    space: Any = model.action_space
    observed: Any = model.observation_space
    sizes = {
        "observation": {key: box.shape[0] for key, box in observed.spaces.items()},
        "action_low": space.low.tolist(),
        "action_high": space.high.tolist(),
        "dimensions": dimensions(config.chosen_set),
        "steps": model.num_timesteps,
        "curve": progress["curve"],
        "best": progress["best"],
        **config.settings(),
    }
    write_policy(config.output, history.actor or actor_weights(model), sizes)


def restore(
    config: TrainRLConfig, model: OffPolicyAlgorithm, episodes: SeededEpisodes, history: History
) -> None:
    """Bring a new learner to where a training was saved.

    Args:
        config: What is trained.
        model: The new learner; it is changed.
        episodes: The environment it learns in; the episode that comes next is begun.
        history: Of no evaluations; it is filled.

    Raises:
        ValueError: If the file is damaged, or of other settings.
    """
    tensors, progress = read_training(config, model, history, _optimizers(model))
    try:
        _fill(_buffer(model), below(tensors, "buffer"), progress)
        model._n_updates = progress["updates"]
        episodes.episode = progress["episode"] - 1
    except (KeyError, RuntimeError, IndexError, TypeError, ValueError) as error:
        raise damaged(config.training_file, error) from None
    assert model.env is not None
    model._last_obs = model.env.reset()


def _fill(buffer: HerReplayBuffer, kept: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
    filled = len(kept["dones"])
    for name, array in _arrays(buffer).items():
        array[:filled] = kept[name].numpy()
    buffer.pos, buffer.full = filled % buffer.buffer_size, filled == buffer.buffer_size
    if buffer.full:
        buffer.pos = progress["position"]
    buffer._current_ep_start[:] = buffer.pos


def _buffer(model: OffPolicyAlgorithm) -> HerReplayBuffer:
    assert isinstance(model.replay_buffer, HerReplayBuffer)
    return model.replay_buffer


def _arrays(buffer: HerReplayBuffer) -> dict[str, np.ndarray]:
    """Return the arrays of a buffer, one row a step, by name."""
    arrays = {name: getattr(buffer, name) for name in BUFFER}
    for entry in ("observations", "next_observations"):
        arrays |= {f"{entry}.{key}": array for key, array in getattr(buffer, entry).items()}
    return arrays


def _optimizers(model: OffPolicyAlgorithm) -> dict[str, torch.optim.Optimizer]:
    policy: Any = model.policy
    return {"actor": policy.actor.optimizer, "critic": policy.critic.optimizer}


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(train, TrainRLConfig, stopped=STOPPED)


if __name__ == "__main__":
    raise SystemExit(main())
