"""How much a clip surprises a model: what comes next is predicted, seen, and compared.

Two kinds of models watch. A world model (`ActionWatcher`) predicts each frame's latents from the
frame before it, the state and the action; an encoder with its masked predictor (`MaskedWatcher`)
predicts the features of the last tubelet of a window from the tubelets before it, without actions.
The error of a token is the mean absolute difference over its channels.

Some errors are usual: a moving hand is harder to predict than a wall, and what is pushed is harder
than both. `UsualErrors` learns from ordinary clips which error to expect of a token in a situation,
and what counts is the error beyond that. A frame is as surprising as the mean of its most
surprising tokens, as an object covers few of them; a clip as its most surprising frame.

Reference: Garrido et al., Intuitive physics understanding emerges from self-supervised pretraining
on natural videos (arXiv 2502.11831), for prediction error as surprise.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.fill import fill
from jepa_gym.checkpoint.safetensors_file import read_safetensors
from jepa_gym.config import FrameSpec, PredictorConfig, WorldModelConfig, checked_fields
from jepa_gym.files import atomic_write
from jepa_gym.normalisation import layer_norm
from jepa_gym.poses import difference
from jepa_gym.training.recipes.masked_model import MaskedModel
from jepa_gym.training.recipes.pretrain import PREDICTOR_NAME, load_encoder
from jepa_gym.world_model import WorldModel

TOP_SHARE = 0.05
"""Share of a frame's tokens whose mean is the frame's surprise; at least `TOP_LEAST` tokens."""
TOP_LEAST = 4
RIDGE = 0.01
LEAST_CHANGE = 1e-3
"""Added to predicted changes before their logarithm."""
CONTEXT_TUBELETS = 2
"""Least past of a window: from one tubelet alone no motion can be told."""
LONG_RANGE = 1
"""The kind of mask that is nearest to a whole hidden frame, where each has a token of its own."""
WINDOWS = 8
"""Windows that are encoded at a time."""


@dataclass(frozen=True)
class Errors:
    """Prediction errors of a clip; row k belongs to frame `first` + k."""

    first: int
    """First frame that was predicted."""
    values: np.ndarray
    """(T', N) float32, mean absolute difference of each token to what was predicted."""
    situation: np.ndarray
    """(T', N, F) float32, what the usual error of a token depends on."""


class Watcher(Protocol):
    """A model that predicts what it is going to see."""

    frame: FrameSpec
    """What a clip must show, and the time between its frames."""
    grid: tuple[int, int]
    """Rows and columns of the tokens N."""
    least_frames: int
    """Frames that a clip must have."""
    needs_states: bool
    """Whether it predicts from the robot's states and actions."""

    def watch(self, frames: np.ndarray, states: np.ndarray | None = None) -> Errors:
        """Predict a clip and return the errors.

        Args:
            frames: (T, Y, X, 3) uint8, cameras side by side.
            states: (T, 7); not needed by all.
        """
        ...


class ActionWatcher:
    """A world model: the next frame from the present one, its state and the action."""

    least_frames, needs_states = 2, True

    def __init__(self, model: WorldModel) -> None:
        self.model, self.frame, self.grid = model, model.config.frame, model.config.grid

    @torch.no_grad()
    def watch(self, frames: np.ndarray, states: np.ndarray | None = None) -> Errors:
        """Predict each frame but the first; see `Watcher`.

        Raises:
            ValueError: There are no states, or too few frames.
        """
        if states is None:
            raise ValueError(
                "a world model predicts what actions lead to, and a bare video does not tell them: "
                "give the folder of a recorded episode, or the output of `jepa-gym pretrain` as "
                "the model"
            )
        _check_length(frames, self.least_frames)
        model, exact = self.model, torch.from_numpy(np.asarray(states, np.float64))
        actions = difference(exact[:-1], exact[1:]).float().to(model.device)
        before = exact[:-1].float().to(model.device)
        latents = model.encode(frames[None])[0]
        predicted = model.predict(latents[:-1, None], actions[:, None], before[:, None])[:, 0]
        state, action = model.normaliser.states(before), model.normaliser.actions(actions)
        acting = torch.cat(
            [state, state**2, action, action.abs(), action**2, state * action[:, 6:]], dim=-1
        )
        return _errors(1, predicted, latents[1:], latents[:-1], acting)


class MaskedWatcher:
    """An encoder and its masked predictor: the last tubelet of a window from those before it.

    Windows end at every frame and are as long as the clips of the pre-training, where there is as
    much past; the tubelet that ends at frame t is the prediction of frame t.
    """

    needs_states = False

    def __init__(self, model: MaskedModel, config: WorldModelConfig) -> None:
        self.model, self.frame, self.grid = model, config.frame, config.grid
        self.tubelet = model.encoder.tubelet_size
        self.window = config.train_frames
        self.least_frames = (CONTEXT_TUBELETS + 1) * self.tubelet

    @torch.no_grad()
    def watch(self, frames: np.ndarray, states: np.ndarray | None = None) -> Errors:
        """Predict all frames that have enough past; see `Watcher`.

        Raises:
            ValueError: There are too few frames.
        """
        _check_length(frames, self.least_frames)
        ends = range(self.least_frames, len(frames) + 1)
        lengths = [min(self.window, end // self.tubelet * self.tubelet) for end in ends]
        parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for length in sorted(set(lengths)):
            some = [end for end, own in zip(ends, lengths, strict=True) if own == length]
            for start in range(0, len(some), WINDOWS):
                clips = [frames[end - length : end] for end in some[start : start + WINDOWS]]
                parts.append(self._predict(torch.from_numpy(np.stack(clips))))
        predicted, seen, before, earlier = (torch.cat(x) for x in zip(*parts, strict=True))
        moved = (before - earlier).abs().mean(-1, keepdim=True)
        return _errors(self.least_frames - 1, predicted, seen, before, None, moved)

    def _predict(self, clips: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return features (B, N, D) of the last tubelet: predicted, seen, and of the two before."""
        model, tokens = self.model, self.grid[0] * self.grid[1]
        video = rearrange(model.normaliser.pixels(clips), "b t y x c -> b c t y x")
        whole = layer_norm(model.target_encoder(video).float())
        ids = torch.arange(whole.shape[1], device=whole.device).expand(len(clips), -1)
        past, hidden = ids[:, :-tokens], ids[:, -tokens:]
        context = model.encoder(video, past)
        predicted = model.predictor(context, past, hidden, mask_index=LONG_RANGE).float()
        known = layer_norm(context.float())
        return predicted, whole[:, -tokens:], known[:, -tokens:], known[:, -2 * tokens : -tokens]


def open_watcher(source: str | Path, device: str = "cpu") -> Watcher:
    """Open a model that watches.

    Args:
        source: The output of `jepa-gym pretrain`, or what `WorldModel.from_pretrained` takes.
        device: Where to put it.

    Raises:
        FileNotFoundError, CheckpointError: As from `WorldModel.from_pretrained`; or when the
            pre-training wrote no predictor.
    """
    path = Path(source) / PREDICTOR_NAME
    if not path.is_file():
        return ActionWatcher(WorldModel.from_pretrained(source, device))
    tensors, metadata = read_safetensors(path)
    try:
        config = WorldModelConfig.from_dict(json.loads(metadata["config"]))
        sizes = json.loads(metadata["predictor"])
    except KeyError as error:
        raise CheckpointError(f"{path} lacks {error}; it was not written by `pretrain`") from None
    sizes = PredictorConfig(**checked_fields(PredictorConfig, sizes, f"configuration in {path}"))
    world_model = WorldModel(config)
    load_encoder(Path(source), world_model)
    model = MaskedModel(world_model, sizes, config.train_frames, "mask_tokens.1" in tensors)
    fill(model.predictor, tensors, path)
    return MaskedWatcher(model.to(device).eval(), config)


@dataclass(frozen=True)
class UsualErrors:
    """Which error to expect of a token: for each token a ridge regression of its logarithm."""

    centre: np.ndarray
    """(N, F) mean of the situation."""
    scale: np.ndarray
    """(N, F) its standard deviation."""
    weights: np.ndarray
    """(N, F)."""
    offset: np.ndarray
    """(N,) mean of the logarithm."""
    spread: np.ndarray
    """(N,) standard deviation of what is left."""

    @classmethod
    def fit(cls, clips: Sequence[Errors]) -> UsualErrors:
        """Learn from ordinary clips.

        Args:
            clips: Errors of one watcher, of some hundred frames or more.

        Raises:
            ValueError: There are fewer frames than the situation has numbers.
        """
        situation = np.concatenate([clip.situation for clip in clips]).astype(np.float64)
        errors = np.log(np.concatenate([clip.values for clip in clips]).astype(np.float64))
        rows, _, size = situation.shape
        if rows <= size:
            raise ValueError(
                f"usual errors are learned from more than {size} frames, got {rows}: give more "
                "ordinary clips"
            )
        centre, scale = situation.mean(0), situation.std(0) + 1e-6
        x, y = rearrange((situation - centre) / scale, "t n f -> n t f"), errors - errors.mean(0)
        moments = x.transpose(0, 2, 1) @ x / rows + RIDGE * np.eye(size)
        weights = np.linalg.solve(moments, np.einsum("ntf,tn->nf", x, y)[..., None] / rows)[..., 0]
        left = y - np.einsum("ntf,nf->tn", x, weights)
        return cls(centre, scale, weights, errors.mean(0), left.std(0) + 1e-6)

    def beyond(self, errors: Errors) -> np.ndarray:
        """Return how far errors lie beyond the usual ones, in standard deviations, (T', N).

        Raises:
            ValueError: They are those of another model.
        """
        if errors.situation.shape[1:] != self.centre.shape:
            raise ValueError(
                f"these usual errors are another model's, of {self.centre.shape} numbers; this one "
                f"has {errors.situation.shape[1:]}: learn them with it"
            )
        x = (errors.situation - self.centre) / self.scale
        expected = self.offset + np.einsum("tnf,nf->tn", x, self.weights)
        return (np.log(errors.values) - expected) / self.spread

    def save(self, path: Path) -> None:
        """Write an `.npz` file."""
        with atomic_write(path) as file:
            np.savez(file, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> UsualErrors:
        """Read what `save` wrote.

        Raises:
            ValueError: The file is damaged.
        """
        try:
            with np.load(path) as file:
                return cls(**{field.name: file[field.name] for field in fields(cls)})
        except (KeyError, EOFError, OSError, ValueError) as error:
            raise ValueError(f"{path} holds no usual errors ({error})") from error


def frame_surprise(beyond: np.ndarray) -> np.ndarray:
    """Return the surprise (T',) of frames, from what their tokens (T', N) show."""
    tokens = beyond.shape[1]
    count = min(tokens, max(TOP_LEAST, round(TOP_SHARE * tokens)))
    return np.sort(beyond, axis=1)[:, -count:].mean(1)


def _errors(
    first: int,
    predicted: Tensor,
    seen: Tensor,
    before: Tensor,
    acting: Tensor | None,
    moved: Tensor | None = None,
) -> Errors:
    """Compare features (T', N, D) predicted, seen, and seen before."""
    values = (predicted - seen).abs().mean(-1)
    change = (predicted - before).abs().mean(-1, keepdim=True)
    changes = [change, change.mean(1, keepdim=True).expand_as(change)]
    changes += [] if moved is None else [moved, moved.mean(1, keepdim=True).expand_as(moved)]
    situation = [torch.log(torch.cat(changes, -1) + LEAST_CHANGE)]
    if acting is not None:
        situation.append(acting[:, None].expand(-1, values.shape[1], -1))
    return Errors(first, values.cpu().numpy(), torch.cat(situation, -1).cpu().numpy())


def _check_length(frames: np.ndarray, least: int) -> None:
    if len(frames) < least:
        raise ValueError(f"surprise needs {least} frames at the model's rate, got {len(frames)}")
