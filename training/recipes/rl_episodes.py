"""The episodes that a learner of `train-rl` acts in, and those that it is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from jepa_gym.latent.action_sets import ACTION_SETS, ActionSet

FIRST_EVALUATION_SEED = 900_000
"""Seeds of evaluations, which choose the best policy: above those that are learned from, and below
the held-out ones of `training.collection.config`."""


class SeededEpisodes(gym.Wrapper):
    """Reset with a seed that the training's seed and the episode's number decide."""

    def __init__(self, env: gym.Env, seed: int) -> None:
        super().__init__(env)
        self.root, self.episode = seed, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start the next episode."""
        self.episode += 1
        drawn = np.random.SeedSequence((self.root, self.episode)).generate_state(1)
        return self.env.reset(seed=int(drawn[0]) % FIRST_EVALUATION_SEED, options=options)


class ChosenActions(gym.ActionWrapper):
    """Let a learner choose some of the seven numbers of an action; the others stay zero.

    Args:
        env: Has bounded actions (7,), as far below zero as above.
        action_set: One of `ACTION_SETS`.
    """

    def __init__(self, env: gym.Env, action_set: str) -> None:
        super().__init__(env)
        whole: Any = env.action_space
        self._set = ActionSet(whole.high, action_set)
        self.action_space = self._set.space

    def action(self, action: np.ndarray) -> np.ndarray:
        """Return the whole action (7,)."""
        return self._set.physical(action, clip=True)


def make_task(env_id: str, obj: str, action_set: str) -> gym.Env:
    """Make a task on states, where a learner chooses the numbers of an action set."""
    return ChosenActions(gym.make(env_id, obj=obj, obs_mode="state"), action_set)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a policy did in some episodes that it does not learn from."""

    step: int
    """Environment steps that had been learned from."""
    success_at_end: float
    success_once: float
    final_distance_m: float
    """Mean."""

    @property
    def rank(self) -> tuple[float, float]:
        """What the best policy has most of."""
        return self.success_at_end, -self.final_distance_m


def evaluate(model: BaseAlgorithm, env: gym.Env, episodes: int) -> Evaluation:
    """Measure the policy as it is, without exploration.

    Args:
        model: The learner.
        env: An environment of its own.
        episodes: How many, always the same ones.
    """
    ends, once, distances = [], [], []
    for seed in range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + episodes):
        observation, info = env.reset(seed=seed)
        done, reached = False, False
        while not done:
            action, _ = model.predict(observation, deterministic=True)
            observation, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            reached |= bool(info["is_success"])
        ends.append(bool(info["is_success"]))
        once.append(reached)
        distances.append(float(info["distance_m"]))
    means = (float(np.mean(values)) for values in (ends, once, distances))
    return Evaluation(model.num_timesteps, *means)


@dataclass
class History:
    """What the evaluations of a training found."""

    curve: list[Evaluation] = field(default_factory=list)
    best: Evaluation | None = None
    actor: dict[str, torch.Tensor] = field(default_factory=dict)
    """Weights of the best policy's actor, as `actor_weights` names them."""

    def add(self, found: Evaluation, model: BaseAlgorithm) -> None:
        """Keep an evaluation, and the policy if none was better."""
        self.curve.append(found)
        if self.best is None or found.rank >= self.best.rank:
            self.best, self.actor = found, actor_weights(model)


def actor_weights(model: BaseAlgorithm) -> dict[str, torch.Tensor]:
    """Return copies of an actor's weights, by the names of SAC's.

    That of TD3 and DDPG is one list of layers, `mu`; PPO's is in two parts.
    """
    policy: Any = model.policy
    if hasattr(policy, "action_net"):
        layers = {"latent_pi": policy.mlp_extractor.policy_net, "mu": policy.action_net}
        found = {f"{k}.{n}": x for k, part in layers.items() for n, x in part.state_dict().items()}
    else:
        found = policy.actor.state_dict()
    if not any(name.startswith("latent_pi.") for name in found):
        last = max(int(name.split(".")[1]) for name in found)
        numbered = {tuple(name.split(".")[1:]): x for name, x in found.items()}
        found = {
            f"mu.{kind}" if int(number) == last else f"latent_pi.{number}.{kind}": x
            for (number, kind), x in numbered.items()
        }
    return {name: x.detach().cpu().clone() for name, x in found.items()}


def dimensions(action_set: str) -> list[int]:
    """Return which numbers of an action a set has."""
    return list(ACTION_SETS[action_set])


def below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors below a prefix, by the rest of their names."""
    start = f"{prefix}."
    return {k.removeprefix(start): x for k, x in tensors.items() if k.startswith(start)}
