"""Action-conditioned post-training on a frozen encoder, as published, at small size.

`jepa-gym posttrain --data DATASET --encoder RUN --output RUN2 --minutes 20`

The encoder is the result of `pretrain`, or `hf:NAME_OR_FOLDER`, one of Hugging Face's.

The encoder never changes, so every frame is encoded once and the latents are kept on disk (float16)
beside the decoded frames. Loss: L1 with teacher forcing plus L1 of the two-step rollout.

Reference: V-JEPA 2 (arXiv 2506.09985), section 3.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from jepa_gym.config import EncoderConfig, PredictorConfig
from jepa_gym.models import hugging_face
from jepa_gym.training.data.cache import cached_array
from jepa_gym.training.data.clips import ClipArrays, ClipSampler
from jepa_gym.training.engine.config import Preset, RunConfig, run_recipe
from jepa_gym.training.engine.distributed import first_process_first, processes
from jepa_gym.training.engine.task import Batch, Progress, Task
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.finish import Judges, finish_model, model_config, open_dataset
from jepa_gym.training.recipes.joint import WATCHED_CLIPS, watch
from jepa_gym.training.recipes.losses import (
    Compared,
    check_rollout,
    teacher_forcing_and_rollout,
)
from jepa_gym.training.recipes.pretrain import ENCODER_NAME, encoder_config, load_encoder
from jepa_gym.world_model import WorldModel

MERGING_FRAMES = 1000
"""Random frames that the projection of merged tokens is fitted to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PosttrainConfig(RunConfig):
    """Train an action-conditioned predictor on the latents of a frozen encoder."""

    BY_CONTENT: ClassVar[tuple[str, ...]] = ("data", "encoder")

    encoder: str
    """Output folder of `pretrain`, or `hf:NAME_OR_FOLDER` (V-JEPA 2, DINOv2 or DINOv3)."""
    learning_rate: float = 4.25e-4
    """Peak learning rate of AdamW."""
    frames: int = 4
    """Consecutive frames of a clip."""
    rollout_steps: int = 2
    """Steps over which predictions are fed back; less than `frames`."""
    rollout_loss: Compared = "every"
    """Compare the frame of every step with the truth, or only the one at the end."""
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    """Sizes of the predictor."""
    merge: int = 1
    """Tokens along each axis that are joined into one by principal components; a planner pays for
    every token."""
    latent_dim: int | None = None
    """Channels of merged tokens; None for as many as the encoder's tokens have."""
    readout_weight: float | None = None
    """Gives the finished model a linear readout of hand and gripper from its latents, fitted to
    them as they are, and this weight in the cost of plans; None for none."""

    def __post_init__(self) -> None:
        """Check ranges."""
        RunConfig.__post_init__(self)
        if self.merge < 1:
            raise ValueError(f"`merge` must be at least 1, got {self.merge}")
        if self.latent_dim is not None and self.merge == 1:
            raise ValueError(
                "`latent_dim` is that of merged tokens; give --merge 2, or leave it out"
            )
        check_rollout(self.rollout_steps, self.frames)


PRESETS: dict[str, Preset] = {
    "published": {
        "steps": 94_500,
        "batch_size": 256,
        "frames": 8,
        "learning_rate": 4.25e-4,
        "schedule": {"warmup": 1 / 21, "decay": 1 / 21, "start": 7.5e-5, "final": 0.0},
        "weight_decay": 0.04,
        "gradient_clip": None,
        "predictor": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    }
}
"""V-JEPA 2-AC: 4,500 steps up, 85,500 constant, 4,500 down; fractions, so --steps scales them."""


def train(config: PosttrainConfig) -> Progress:
    """Run the recipe and save the best model in `config.output`.

    Returns:
        The finished progress.
    """
    with processes(config.device, config.threads) as here:
        dataset = open_dataset(config)
        arrays, validation = dataset.load_arrays("train"), dataset.load_arrays("validation")
        encoder, weights = _encoder(config.encoder)
        if config.merge > 1:
            width = config.latent_dim or encoder.latent_dim
            encoder = replace(encoder, merge=config.merge, latent_dim=width)
        torch.manual_seed(config.seed)
        settings = model_config(dataset, arrays, encoder, config.predictor, config.frames)
        model = WorldModel(settings)
        if encoder.kind != "hf":
            load_encoder(Path(config.encoder), model)
        model.encoder.requires_grad_(False)
        if config.merge > 1:
            model.merging.requires_grad_(False)
            kept = fit_merging(model, arrays)
            here.say(f"merged tokens keep {kept:.1%} of the variance in {width} channels")
        model.predictor.extrinsics_encoder.requires_grad_(False)  # nothing goes through it
        judges = Judges.choose(dataset, settings.context_frames, here)
        merged = f"-{config.merge}-{width}" if config.merge > 1 else ""
        cache = f"latents-{dataset.hash[:16]}-{weights[:16]}{merged}.npy"
        with first_process_first():
            latents = cache_latents(
                model.to(here.device).eval(), arrays, dataset.folder / "cache" / cache
            )
        sampler = ClipSampler(
            replace(arrays, frames=latents), config.frames, config.batch_size, config.seed
        )
        watched = ClipSampler(validation, config.frames, WATCHED_CLIPS, config.seed).batch(0)

        def loss(batch: Batch, step: int) -> dict[str, Tensor]:
            forced, rollout = teacher_forcing_and_rollout(
                *(model, batch["frames"].float(), batch["actions"], batch["states"], F.l1_loss),
                *(config.rollout_steps, config.rollout_loss),
            )
            return {
                "loss": forced + rollout,
                "teacher_forcing": forced.detach(),
                "rollout": rollout.detach(),
            }

        task = Task(
            module=model,
            draw=lambda step, rows: vars(sampler.batch(step, rows)),
            loss=loss,
            evaluate=lambda: judges.validation.evaluate(model),
            score="landscape_error",
            inputs={"data": dataset.hash, "encoder": weights},
            watch=lambda: watch(model, watched),
        )
        trainer = Trainer(config, task, here)
        if config.dry_run:
            return trainer.dry_run()
        progress = trainer.run()
        if here.first:
            finish_model(
                model,
                "masked + post-training",
                config,
                dataset,
                judges,
                progress,
                config.readout_weight,
            )
        return progress


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
        for episode in tqdm(range(episodes), "encoding episodes", unit="episode"):
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


def main() -> int:
    """Run the command line."""
    return run_recipe(train, PosttrainConfig, PRESETS)


if __name__ == "__main__":
    raise SystemExit(main())
