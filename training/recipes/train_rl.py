"""Train the reinforcement-learning baseline: soft actor-critic with hindsight goals, on states.

Reference: soft actor-critic (arXiv 1801.01290) and hindsight experience replay (arXiv 1707.01495),
both of Stable-Baselines3. Beside the policy lies what the training goes on from. It is written
between episodes, and every episode draws from generators of its own, so that an interrupted
training ends with the policy of one that was not.
"""

from __future__ import annotations

import json
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
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

import jepa_gym  # noqa: F401  (registers the environments)
from jepa_gym.agents.policy import OWN_SUFFIX, write_policy
from jepa_gym.checkpoint.safetensors_file import read_safetensors, write_safetensors
from jepa_gym.commands import Terminated, run_command
from jepa_gym.training.collection.config import FIRST_HELD_OUT_SEED

GOALS_PER_TRANSITION = 4
"""Hindsight goals drawn for every real one (the "future" strategy, arXiv 1707.01495)."""
NETWORK = [256, 256]
"""Widths of the hidden layers of actor and critics."""
RANDOM_EPISODES = 10
"""Episodes of random actions before anything is learned."""
TRAINING = "training"
"""Key of the JSON in the metadata of a training's file."""
BUFFER = ("actions", "rewards", "dones", "timeouts", "ep_start", "ep_length")
SAVE_EVERY_S = 60.0
STOPPED = "The training is kept up to its last episode; give the same command again to go on."


@dataclass(frozen=True, slots=True)
class TrainRLConfig:
    """Train soft actor-critic with hindsight goals on state observations."""

    output: Path
    """File for the policy, ending in .safetensors; the training goes on from the one beside it."""
    env_id: Literal[
        "FrankaReach-v0", "FrankaGrasp-v0", "FrankaReachWithObject-v0", "FrankaPickPlace-v0"
    ] = "FrankaReach-v0"
    """Task."""
    obj: str = "box"
    """Object of the catalogue."""
    steps: int = 20_000
    """Environment steps; more than a finished training had continue it."""
    seed: int = 0
    """Seed of environment, networks and exploration."""
    device: str = "cpu"
    """Torch device."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a number is out of its range or the file ends in something else.
        """
        if self.steps < 1:
            raise ValueError(f"`steps` must be at least 1, got {self.steps}")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, got {self.seed}")
        if self.output.suffix != OWN_SUFFIX:
            raise ValueError(f"`output` must end in {OWN_SUFFIX}, got {self.output}")

    @property
    def training_file(self) -> Path:
        """What the training goes on from."""
        return self.output.with_name(f"{self.output.stem}.{TRAINING}{OWN_SUFFIX}")

    def settings(self) -> dict[str, Any]:
        """Return what a training that goes on must share with the one before."""
        return {"env_id": self.env_id, "obj": self.obj, "seed": self.seed}


class _SeededEpisodes(gym.Wrapper):
    """Reset with a seed that the training's seed and the episode's number decide."""

    def __init__(self, env: gym.Env, seed: int) -> None:
        super().__init__(env)
        self.root, self.episode = seed, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.episode += 1
        drawn = np.random.SeedSequence((self.root, self.episode)).generate_state(1)
        # seeds from there on are those of tests
        return self.env.reset(seed=int(drawn[0]) % FIRST_HELD_OUT_SEED, options=options)


class _BetweenEpisodes(BaseCallback):
    """Before every episode: seed what it draws from, save now and then, stop if a signal came."""

    def __init__(self, config: TrainRLConfig, episodes: _SeededEpisodes) -> None:
        super().__init__()
        self.config, self.episodes = config, episodes
        self.signal: type[KeyboardInterrupt] | None = None
        self._begins, self._saved = True, time.monotonic()
        self._bar: tqdm[Any] | None = None

    def _on_training_start(self) -> None:
        done, steps = self.model.num_timesteps, self.config.steps
        self._bar = tqdm(total=steps, initial=done, unit="step", desc="sac")

    def _on_rollout_start(self) -> None:
        if not self._begins:
            return
        self._begins = False
        if self._bar is not None and self.model.ep_success_buffer:
            self._bar.set_postfix(success=f"{np.mean(self.model.ep_success_buffer):.0%}")
        if self.signal is not None or time.monotonic() - self._saved > SAVE_EVERY_S:
            save(self.config, self.model, self.episodes.episode)
            self._saved = time.monotonic()
        if self.signal is not None:
            raise self.signal
        seeds = np.random.SeedSequence((self.episodes.root, self.episodes.episode, 1))
        drawn = [int(seed) for seed in seeds.generate_state(3)]
        np.random.seed(drawn[0])  # what hindsight goals are drawn from
        torch.manual_seed(drawn[1])
        self.model.action_space.seed(drawn[2])

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
    env = gym.make(config.env_id, obj=config.obj, obs_mode="state")
    episodes, threads = _SeededEpisodes(env, config.seed), torch.get_num_threads()
    # networks of this size learn slower with more, and their sums would change by chance
    torch.set_num_threads(1)
    try:
        model = _new_model(config, episodes)
        if config.training_file.exists():
            restore(config, model, episodes)
            print(f"continues after {model.num_timesteps} steps of {config.training_file}")
        callback = _BetweenEpisodes(config, episodes)
        try:
            with _signals_wait(callback):
                left = config.steps - model.num_timesteps
                model.learn(left, callback, reset_num_timesteps=False)
        finally:
            callback.close()
        save(config, model, episodes.episode)
    finally:
        torch.set_num_threads(threads)
        env.close()
    print(f"policy of {model.num_timesteps} steps written to {config.output}")
    return config.output


def _new_model(config: TrainRLConfig, env: gym.Env) -> SAC:
    assert env.spec is not None and env.spec.max_episode_steps is not None
    return SAC(
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


def save(config: TrainRLConfig, model: SAC, episode: int) -> None:
    """Write what the training goes on from, then the policy; each appears complete or not at all.

    Args:
        config: What is trained.
        model: The learner, between two episodes.
        episode: Number of the episode that begins.
    """
    buffer = _buffer(model)
    filled = buffer.buffer_size if buffer.full else buffer.pos
    tensors = {f"policy.{name}": x for name, x in model.policy.state_dict().items()}
    tensors["log_ent_coef"] = model.log_ent_coef
    for name, optimizer in _optimizers(model).items():
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{name}.{index}.{key}": x for key, x in moments.items()}
    for name, array in _arrays(buffer).items():
        tensors[f"buffer.{name}"] = torch.from_numpy(array[:filled])
    progress = {
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "episode": episode,
        "position": buffer.pos,
        "full": buffer.full,
        "settings": config.settings(),
    }
    tensors = {name: x.detach().clone() for name, x in tensors.items()}
    write_safetensors(config.training_file, tensors, {TRAINING: json.dumps(progress)})
    space = model.action_space
    sizes = {
        "observation": {key: box.shape[0] for key, box in model.observation_space.spaces.items()},
        "action_low": space.low.tolist(),
        "action_high": space.high.tolist(),
        "steps": model.num_timesteps,
        **config.settings(),
    }
    actor = {name: x.detach().cpu() for name, x in model.actor.state_dict().items()}
    write_policy(config.output, actor, sizes)


def restore(config: TrainRLConfig, model: SAC, episodes: _SeededEpisodes) -> None:
    """Bring a new learner to where a training was saved.

    Args:
        config: What is trained.
        model: The new learner; it is changed.
        episodes: The environment it learns in; the episode that comes next is begun.

    Raises:
        ValueError: If the file is damaged, or of other settings.
    """
    path = config.training_file
    tensors, metadata = read_safetensors(path)
    try:
        progress = json.loads(metadata[TRAINING])
        theirs = progress["settings"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is no training; delete it to begin anew") from None
    if theirs != config.settings():
        raise ValueError(
            f"{path} was made with {theirs}, not {config.settings()}: give those, or another "
            "`output`"
        )
    if progress["steps"] > config.steps:
        raise ValueError(
            f"{path} is {progress['steps']} steps on already, more than the {config.steps} of "
            "`steps`: give more, or another `output`"
        )
    try:
        _load(model, tensors, progress)
    except (KeyError, RuntimeError, IndexError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to begin anew") from None
    episodes.episode = progress["episode"] - 1
    assert model.env is not None
    model._last_obs = model.env.reset()


def _load(model: SAC, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
    def under(prefix: str) -> dict[str, torch.Tensor]:
        start = f"{prefix}."
        return {k.removeprefix(start): x for k, x in tensors.items() if k.startswith(start)}

    model.policy.load_state_dict(under("policy"))
    with torch.no_grad():
        model.log_ent_coef.copy_(tensors["log_ent_coef"])
    for name, optimizer in _optimizers(model).items():
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, x in under(f"optimizer.{name}").items():
            index, _, moment = key.partition(".")
            moments.setdefault(int(index), {})[moment] = x
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    buffer, kept = _buffer(model), under("buffer")
    filled = len(kept["dones"])
    for name, array in _arrays(buffer).items():
        array[:filled] = kept[name].numpy()
    buffer.pos, buffer.full = filled % buffer.buffer_size, filled == buffer.buffer_size
    if buffer.full:
        buffer.pos = progress["position"]
    buffer._current_ep_start[:] = buffer.pos
    model.num_timesteps, model._n_updates = progress["steps"], progress["updates"]


def _buffer(model: SAC) -> HerReplayBuffer:
    assert isinstance(model.replay_buffer, HerReplayBuffer)
    return model.replay_buffer


def _arrays(buffer: HerReplayBuffer) -> dict[str, np.ndarray]:
    """Return the arrays of a buffer, one row a step, by name."""
    arrays = {name: getattr(buffer, name) for name in BUFFER}
    for entry in ("observations", "next_observations"):
        arrays |= {f"{entry}.{key}": array for key, array in getattr(buffer, entry).items()}
    return arrays


def _optimizers(model: SAC) -> dict[str, torch.optim.Optimizer]:
    assert model.ent_coef_optimizer is not None
    return {
        "actor": model.actor.optimizer,
        "critic": model.critic.optimizer,
        "ent_coef": model.ent_coef_optimizer,
    }


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(train, TrainRLConfig, stopped=STOPPED)


if __name__ == "__main__":
    raise SystemExit(main())
