"""What training starts from: a frozen encoder or a whole world model, and kept latents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from jepa_gym.checkpoint.fill import fill
from jepa_gym.config import CAMERA_DIM, EncoderConfig, WorldModelConfig
from jepa_gym.logs import progress_bar
from jepa_gym.models import hugging_face
from jepa_gym.models.hugging_face import checkpoint_encoder
from jepa_gym.training.data.cache import cached_array
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.recipes.finish import model_config
from jepa_gym.training.recipes.pretrain import ENCODER_NAME, encoder_config, load_encoder
from jepa_gym.world_model import WorldModel

if TYPE_CHECKING:
    from jepa_gym.training.recipes.joint import JointConfig
    from jepa_gym.training.recipes.posttrain import PosttrainConfig

MERGING_FRAMES = 1000
"""Random frames that the projection of merged tokens is fitted to."""


def fit_merging(model: WorldModel, arrays: ClipArrays) -> float:
    """Fit the projection of merged tokens to the encoder's features of random frames.

    Args:
        model: With the encoder's weights.
        arrays: The training split.

    Returns:
        The share of the variance that the projection keeps.
    """
    rng = np.random.default_rng(0)
    episodes = rng.integers(len(arrays.rows), size=MERGING_FRAMES)
    times = rng.integers(arrays.states.shape[1], size=MERGING_FRAMES)
    frames = np.stack([arrays.clip(e, t, t + 1) for e, t in zip(episodes, times, strict=True)])
    return model.fit_merging(torch.from_numpy(frames))


def with_new_predictor(
    config: PosttrainConfig, dataset: Dataset, arrays: ClipArrays
) -> tuple[WorldModel, str]:
    """Return a world model of `config.encoder`, and the hash of the encoder's weights."""
    assert config.encoder
    encoder, weights = _encoder(config.encoder)
    if config.merge > 1:
        width = config.latent_dim or encoder.latent_dim
        encoder = replace(encoder, merge=config.merge, latent_dim=width)
    settings = model_config(dataset, arrays, encoder, config.predictor, config.frames)
    model = WorldModel(_with_camera(settings, config, arrays))
    if encoder.kind != "hf":
        load_encoder(Path(config.encoder), model)
    return model, weights


def fine_tuned(
    config: PosttrainConfig | JointConfig,
    given: WorldModel,
    dataset: Dataset,
    arrays: ClipArrays,
) -> tuple[WorldModel, str]:
    """Return a world model made for the pictures of a dataset, and its weights' hash.

    Args:
        config: The run.
        given: The model that is fine-tuned.
        dataset: Gives cameras and time.
        arrays: Its training split.

    Raises:
        ValueError: If other sizes are asked for, or the patches do not divide the pictures.
    """
    default = type(config)(data=config.data, output=config.output, init=config.init)
    for part in ("encoder", "predictor"):
        asked, has = getattr(config, part), getattr(given.config, part)
        if asked not in (getattr(default, part), has):
            raise ValueError(
                f"--init {config.init} has {has}, which cannot become {asked}: leave --{part} out"
            )
    fresh = model_config(dataset, arrays, given.config.encoder, config.predictor, config.frames)
    settings = replace(
        given.config,
        frame=fresh.frame,
        train_frames=config.frames,
        success_energy=None,
        readout_weight=None,
    )
    tensors = {n: x for n, x in given.state_dict().items() if not n.startswith("readout.")}
    digest = _digest(settings.encoder, tensors)
    settings = _with_camera(settings, config, arrays)
    with torch.device("meta"):
        model = WorldModel(settings, checkpoint_encoder(settings.encoder, given.folder))
    fill(model, dict(tensors), config.init)
    return model, digest


def camera_poses(config: PosttrainConfig | JointConfig, arrays: ClipArrays) -> np.ndarray:
    """Return the poses (E, T, 6) of the first camera of a split.

    Raises:
        ValueError: If some episode has none.
    """
    if arrays.extrinsics is None:
        raise ValueError(
            f"{config.data}: the predictor is to use the camera's pose (use_extrinsics), which was "
            "not recorded in every episode"
        )
    return arrays.extrinsics[:, :, 0].astype(np.float32)


def _with_camera(
    settings: WorldModelConfig, config: PosttrainConfig | JointConfig, arrays: ClipArrays
) -> WorldModelConfig:
    """Let a model that uses the camera's pose assume the mean one of its training."""
    if not settings.predictor.use_extrinsics:
        return settings
    found = camera_poses(config, arrays).reshape(-1, CAMERA_DIM).astype(np.float64)
    angles = np.arctan2(np.sin(found[:, 3:]).mean(0), np.cos(found[:, 3:]).mean(0))
    return replace(settings, camera_pose=(*found[:, :3].mean(0).tolist(), *angles.tolist()))


def _digest(encoder: EncoderConfig, tensors: Mapping[str, Tensor]) -> str:
    """Hash tensors with their names, and what an encoder of Hugging Face's says of its files."""
    digest = hashlib.sha256(encoder.digest.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def cache_latents(model: WorldModel, arrays: ClipArrays, path: Path) -> np.ndarray:
    """Encode every frame of a dataset once.

    Args:
        model: In evaluation mode.
        arrays: Any split; its `frames` cover the whole dataset.
        path: The cache file, read when it exists, else written atomically.

    Returns:
        (E_all, T, N, D) float16, memory-mapped.
    """
    episodes, length = arrays.frames.shape[:2]
    shape = (episodes, length, model.config.num_tokens, model.config.encoder.latent_dim)

    def encode(latents: np.ndarray) -> None:
        for episode in progress_bar(range(episodes), "encoding episodes", unit="episode"):
            frames = arrays.frames[episode : episode + 1]
            latents[episode] = model.encode(frames)[0].cpu().numpy()

    return cached_array(path, shape, np.float16, encode)


def _encoder(source: str) -> tuple[EncoderConfig, str]:
    """Return the sizes of an encoder and the hash of its weights."""
    if hugging_face.is_source(source):
        encoder = hugging_face.encoder_config(source)
        return encoder, encoder.digest
    encoder = encoder_config(Path(source))
    return encoder, hashlib.sha256((Path(source) / ENCODER_NAME).read_bytes()).hexdigest()
