"""Action-conditioned post-training on a frozen encoder, as published, at small size.

`jepa-gym posttrain --data DATASET --encoder RUN --output RUN2 --minutes 20`

The encoder is the result of `pretrain`, or `hf:NAME_OR_FOLDER`, one of Hugging Face's.

The encoder never changes, so every frame is encoded once and the latents are kept on disk (float16)
beside the decoded frames. Loss: L1 with teacher forcing plus L1 of the two-step rollout.

Reference: V-JEPA 2 (arXiv 2506.09985), section 3.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from jepa_gym.config import EncoderConfig, PredictorConfig
from jepa_gym.models import hugging_face
from jepa_gym.training.data.clips import ClipArrays, ClipSampler
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.engine.trainer import Progress, RunConfig, Trainer, run_command
from jepa_gym.training.recipes.finish import model_config, save_model
from jepa_gym.training.recipes.landscape import Landscape
from jepa_gym.training.recipes.losses import teacher_forcing_and_rollout
from jepa_gym.training.recipes.pretrain import ENCODER_NAME, encoder_config, load_encoder
from jepa_gym.world_model import WorldModel


@dataclass(frozen=True, slots=True, kw_only=True)
class PosttrainConfig(RunConfig):
    """Train an action-conditioned predictor on the latents of a frozen encoder."""

    encoder: str
    """Output folder of `pretrain`, or `hf:NAME_OR_FOLDER` (V-JEPA 2, DINOv2 or DINOv3)."""
    learning_rate: float = 4.25e-4
    """Peak learning rate of AdamW."""
    frames: int = 4
    """Consecutive frames of a clip."""
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    """Sizes of the predictor."""


def train(config: PosttrainConfig) -> Progress:
    """Run the recipe and save the best model in `config.output`.

    Returns:
        The finished progress.
    """
    torch.set_num_threads(config.threads)
    dataset = Dataset.open(config.data, config.skip_corrupt)
    arrays, held_out = dataset.load_arrays("train"), dataset.load_arrays("validation")
    from_hub = hugging_face.is_source(config.encoder)
    encoder = (
        hugging_face.encoder_config(config.encoder)
        if from_hub
        else encoder_config(Path(config.encoder))
    )
    torch.manual_seed(config.seed)
    model = WorldModel(model_config(dataset, arrays, encoder, config.predictor, config.frames))
    if not from_hub:
        load_encoder(Path(config.encoder), model)
    model.encoder.requires_grad_(False)
    latents = cache_latents(model.eval(), arrays, _cache_path(config, encoder, dataset))
    sampler = ClipSampler(
        replace(arrays, frames=latents), config.frames, config.batch_size, config.seed
    )
    landscape = Landscape(held_out, context=model.config.context_frames)

    def loss(step: int) -> dict[str, Tensor]:
        batch = sampler.batch(step)
        forced, rollout = teacher_forcing_and_rollout(
            model, batch.frames.float(), batch.actions, batch.states, F.l1_loss
        )
        return {
            "loss": forced + rollout,
            "teacher_forcing": forced.detach(),
            "rollout": rollout.detach(),
        }

    trainer = Trainer(
        config, model, loss, lambda: landscape.evaluate(model), score="landscape_error"
    )
    progress = trainer.run()
    thorough = Landscape(held_out, pairs=100, context=model.config.context_frames, seed=1)
    figures = thorough.evaluate(model)
    save_model(model, "masked + post-training", config, dataset, thorough, progress, figures)
    return progress


def cache_latents(model: WorldModel, arrays: ClipArrays, path: Path) -> np.ndarray:
    """Encode every frame of a dataset once.

    Args:
        model: in evaluation mode.
        arrays: any split; its `frames` cover the whole dataset.
        path: the cache file, read when it exists, else written atomically.

    Returns:
        (E_all, T, N, D) float16, memory-mapped.
    """
    if not path.is_file():
        episodes, length = arrays.frames.shape[:2]
        shape = (episodes, length, model.config.num_tokens, model.config.encoder.latent_dim)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            latents = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
            for episode in tqdm(range(episodes), "encoding episodes", unit="episode"):
                latents[episode] = model.encode(arrays.frames[episode : episode + 1])[0].numpy()
            latents.flush()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _cache_path(config: PosttrainConfig, encoder: EncoderConfig, dataset: Dataset) -> Path:
    weights = encoder.digest
    if encoder.kind != "hf":
        weights = hashlib.sha256((Path(config.encoder) / ENCODER_NAME).read_bytes()).hexdigest()
    return dataset.folder / "cache" / f"latents-{dataset.hash[:16]}-{weights[:16]}.npy"


def main() -> int:
    """Run the command line."""
    return run_command(train, PosttrainConfig)


if __name__ == "__main__":
    raise SystemExit(main())
