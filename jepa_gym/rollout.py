"""Rollouts: where candidate action sequences lead, from one context that all of them share.

What does not depend on the candidates is computed once, when a `Rollout` is made, and serves every
later call: a planner that asks for the energies of one set of candidates after the other pays for
its context once. Candidates are imagined in chunks of bounded memory, whose size changes results by
rounding only.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from jepa_gym import poses
from jepa_gym.models.ac_predictor import ActionConditionedPredictor
from jepa_gym.normalisation import Normaliser, layer_norm

CPU_BYTES = 2**27
"""Memory of a chunk on the CPU. Less costs speed, more gains none (measured)."""
GPU_BYTES = 2**32
"""Memory of a chunk on a GPU."""


class ExtrapolationWarning(UserWarning):
    """A rollout spans more frames than the clips that the model was trained on."""


def energy(latents: Tensor, goal: Tensor) -> Tensor:
    """Return the mean absolute difference of latents to a goal; see `WorldModel.energy`."""
    while goal.ndim < latents.ndim:
        goal = goal.unsqueeze(1)
    return (latents - goal).abs().mean((-2, -1))


def chunk_size(predictor: ActionConditionedPredictor, horizon: int) -> int:
    """Return how many candidates are imagined at a time by default.

    Args:
        predictor: The predictor.
        horizon: Steps H of a candidate; beyond one, keys and values are kept.

    Returns:
        As many as fit into `CPU_BYTES` or `GPU_BYTES` in float32: per token the residual stream and
        its norm, queries, keys and values, the hidden layer, and what is kept. At least one.
    """
    kept = 2 * len(predictor.predictor_blocks) * horizon if horizon > 1 else 0
    per_token = predictor.embed_dim * (5 + predictor.mlp_ratio + kept)
    candidate = 4 * per_token * (predictor.num_tokens + 2)
    budget = CPU_BYTES if predictor.predictor_proj.weight.is_cpu else GPU_BYTES
    return max(1, int(budget / candidate))


class Rollout:
    """The rollouts of a world model from one context; `WorldModel.prepare` makes it.

    Args:
        predictor: The model's predictor.
        normaliser: The model's.
        train_frames: Frames of a training clip; rollouts over more of them warn.
        latents: (B, T, N, D) context, oldest first, layer-normed.
        states: (B, T, 7) of the context.
        past_actions: (B, T - 1, 7); the differences of `states` by default.
        grad: Whether results have gradients with respect to actions and goal. That takes more
            memory, and every candidate has its own copy of the context while it is looked at.
        extrinsics: (B, 1, 6) pose of the camera, which stands still; exactly when the predictor
            uses it.

    Raises:
        ValueError: When shapes disagree.
    """

    def __init__(
        self,
        predictor: ActionConditionedPredictor,
        normaliser: Normaliser,
        train_frames: int,
        latents: Tensor,
        states: Tensor,
        past_actions: Tensor | None = None,
        grad: bool = False,
        extrinsics: Tensor | None = None,
    ) -> None:
        self.predictor, self.normaliser, self.grad = predictor, normaliser, grad
        self.train_frames = train_frames
        weight = predictor.predictor_proj.weight
        self._device, self._dtype = weight.device, weight.dtype
        latents, states = self._given(latents), self._given(states)
        if latents.ndim != 4 or states.shape != (*latents.shape[:2], 7) or latents.shape[1] < 1:
            raise ValueError(
                "`latents` (B, T, N, D) and `states` (B, T, 7) must agree with T >= 1, "
                f"got {tuple(latents.shape)} and {tuple(states.shape)}"
            )
        past = (len(latents), latents.shape[1] - 1, 7)
        with self._mode():
            if past_actions is None:
                past_actions = poses.difference(states[:, :-1], states[:, 1:])
            past_actions = self._given(past_actions)
            if past_actions.shape != past:
                raise ValueError(
                    f"`past_actions` must be {past}, got {tuple(past_actions.shape)}: the actions "
                    "between the frames of the context"
                )
            self._latent, self._state = latents[:, -1:].to(self._dtype), states[:, -1:]
            self._camera = None if extrinsics is None else self._given(extrinsics).to(self._dtype)
            self._cache = predictor.start_cache(
                latents[:, :-1].to(self._dtype),
                normaliser.actions(past_actions).to(self._dtype),
                normaliser.states(states[:, :-1]).to(self._dtype),
                None if self._camera is None else self._camera.expand(-1, past[1], -1),
            )

    def latents(self, actions: Tensor, chunk: int | None = None) -> Tensor:
        """Return the (B, S, H, N, D) layer-normed latents that actions (B, S, H, 7) lead to.

        Args:
            actions: Candidates, starting at the last frame of the context, physical units.
            chunk: Candidates imagined at a time; by default `chunk_size`.

        Raises:
            ValueError: When shapes disagree or `chunk` is not positive.
        """
        actions = self._checked(actions, chunk)
        with self._mode():
            return self._gathered(
                (torch.stack(list(self._steps(*part)), 2) for part in self._parts(actions, chunk)),
                actions,
            )

    def energy(self, actions: Tensor, goal: Tensor, chunk: int | None = None) -> Tensor:
        """Return the energies (B, S) of the last frames; no other latents are kept.

        Args:
            actions: (B, S, H, 7), as for `latents`.
            goal: (B, N, D) layer-normed latents.
            chunk: As for `latents`.

        Raises:
            ValueError: When shapes disagree or `chunk` is not positive.
        """
        actions, goal = self._checked(actions, chunk), self._given(goal)
        wanted = (len(self._latent), *self._latent.shape[2:])
        if goal.shape != wanted:
            raise ValueError(f"`goal` must be (B, N, D) = {wanted}, got {tuple(goal.shape)}")
        with self._mode():
            return self._gathered(
                (self._last_energy(*part, goal) for part in self._parts(actions, chunk)), actions
            )

    def _last_energy(self, rows: slice, actions: Tensor, goal: Tensor) -> Tensor:
        (last,) = deque(self._steps(rows, actions), maxlen=1)
        return energy(last, goal[rows])

    def _steps(self, rows: slice, actions: Tensor) -> Iterator[Tensor]:
        """Imagine candidates (b, s, H, 7) of some batch rows; yield (b, s, N, D) step by step."""
        current, state = self._latent[rows], self._state[rows]  # (b, 1, ...), shared
        cache, horizon = self._cache.rows(rows), actions.shape[2]
        for step, action in enumerate(actions.unbind(2)):
            current, cache = self.predictor.decode(
                current.to(self._dtype),
                self.normaliser.actions(action).to(self._dtype),
                self.normaliser.states(state).to(self._dtype),
                cache,
                None if self._camera is None else self._camera[rows],
                following=horizon - 1 - step,
            )
            current = layer_norm(current.float())
            yield current
            if step + 1 < horizon:
                state = poses.compose(state, action)

    def _parts(self, actions: Tensor, chunk: int | None) -> Iterator[tuple[slice, Tensor]]:
        """Split candidates into (batch rows, actions of them), a batch row's ones in order."""
        batch, samples, horizon = actions.shape[:3]
        chunk = chunk_size(self.predictor, horizon) if chunk is None else chunk
        rows, pieces = max(1, chunk // samples), math.ceil(samples / chunk)
        for start in range(0, batch, rows):
            part = slice(start, start + rows)
            for some in actions[part].split(math.ceil(samples / pieces), 1):
                yield part, some

    def _gathered(self, parts: Iterator[Tensor], actions: Tensor) -> Tensor:
        """Join what `_parts` split."""
        flat = [part.flatten(0, 1) for part in parts]
        joined = torch.cat(flat) if len(flat) > 1 else flat[0]
        return joined.unflatten(0, actions.shape[:2])

    def _checked(self, actions: Tensor, chunk: int | None) -> Tensor:
        actions, batch = self._given(actions), len(self._latent)
        if (
            actions.ndim != 4
            or len(actions) != batch
            or actions.shape[-1] != 7
            or not actions.numel()
        ):
            raise ValueError(
                f"`actions` must be ({batch}, S, H, 7) with S and H at least 1, "
                f"got {tuple(actions.shape)}"
            )
        if chunk is not None and chunk < 1:
            raise ValueError(f"`chunk` must be at least 1, got {chunk}")
        window = self._cache.frames + actions.shape[2]
        if window > self.train_frames:
            warnings.warn(
                f"a rollout over {window} frames, context and horizon, is longer than the "
                f"{self.train_frames} frames of the clips that the model was trained on: beyond "
                "them its errors grow fast. Plan fewer steps, or roll out step by step with the "
                "last frames as context, as JEPALatent-v0 does",
                ExtrapolationWarning,
                stacklevel=3,
            )
        return actions

    def _given(self, x: Tensor) -> Tensor:
        """Bring an argument to the model's device, in float32."""
        x = torch.as_tensor(x).to(self._device, torch.float32)
        if not (self.grad and x.is_inference()):
            return x
        with torch.inference_mode(False):
            return x.clone()  # an inference tensor cannot be saved for a backward pass

    @contextlib.contextmanager
    def _mode(self) -> Iterator[None]:
        with torch.inference_mode(not self.grad), torch.set_grad_enabled(self.grad):
            yield
