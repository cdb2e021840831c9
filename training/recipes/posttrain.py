"""Action-conditioned post-training on a frozen encoder, as published, at small size.

`jepa-gym posttrain --data DATASET --encoder RUN --output RUN2 --minutes 20`

The encoder is the result of `pretrain`, or `hf:NAME_OR_FOLDER`, one of Hugging Face's. With `--init
vjepa2-ac-vitg`, or any other world model, its predictor is fine-tuned on the data instead.

The encoder never changes, so every frame is encoded once and the latents are kept on disk (float16)
beside the decoded frames; with `--from-pixels` every batch is encoded anew. Loss: L1 with teacher
forcing plus L1 of the rollout.

Reference: V-JEPA 2 (arXiv 2506.09985), section 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from jepa_gym.checkpoint.decoder import read_decoder
from jepa_gym.checkpoint.fill import fill
from jepa_gym.config import EncoderConfig, PredictorConfig
from jepa_gym.models import hugging_face
from jepa_gym.models.hugging_face import checkpoint_encoder
from jepa_gym.training.data.cache import cached_array
from jepa_gym.training.data.clips import ClipArrays, ClipSampler
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.engine.config import Preset, RunConfig, run_recipe
from jepa_gym.training.engine.distributed import first_process_first, processes
from jepa_gym.training.engine.task import Batch, Progress, Task
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.augmentations import Augmentations, Augmenter
from jepa_gym.training.recipes.finish import Judges, finish_model, model_config, open_dataset
from jepa_gym.training.recipes.joint import WATCHED_CLIPS, watch
from jepa_gym.training.recipes.losses import (
    Compared,
    check_rollout,
    teacher_forcing_and_rollout,
)
from jepa_gym.training.recipes.pictures import predicted_clip
from jepa_gym.training.recipes.pretrain import ENCODER_NAME, encoder_config, load_encoder
from jepa_gym.world_model import WorldModel

MERGING_FRAMES = 1000
"""Random frames that the projection of merged tokens is fitted to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PosttrainConfig(RunConfig):
    """Train an action-conditioned predictor on the latents of a frozen encoder."""

    BY_CONTENT: ClassVar[tuple[str, ...]] = ("data", "encoder", "init")

    encoder: str | None = None
    """Output folder of `pretrain`, or `hf:NAME_OR_FOLDER` (V-JEPA 2, DINOv2 or DINOv3)."""
    init: str | None = None
    """World model to fine-tune, in place of an encoder: anything that `WorldModel.from_pretrained`
    takes, such as `vjepa2-ac-vitg`, `default` or a folder. Sizes and units are the model's, cameras
    and time those of the data."""
    from_pixels: bool = False
    """Encode the frames of every batch anew, instead of keeping the latents of all frames on disk:
    for data larger than the disk, and for augmentations."""
    learning_rate: float = 4.25e-4
    """Peak learning rate of AdamW."""
    frames: int = 4
    """Consecutive frames of a clip."""
    rollout_steps: int = 2
    """Steps over which predictions are fed back; less than `frames`."""
    rollout_loss: Compared = "every"
    """Compare the frame of every step with the truth, or only the one at the end."""
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    """Sizes of the predictor; with `init` they are the model's."""
    merge: int = 1
    """Tokens along each axis that are joined into one by principal components; a planner pays for
    every token."""
    latent_dim: int | None = None
    """Channels of merged tokens; None for as many as the encoder's tokens have."""
    readout_weight: float | None = None
    """Gives the finished model a linear readout of hand and gripper from its latents, fitted to
    them as they are, and this weight in the cost of plans; None for none."""
    decoder: Path | None = None
    """Folder of `jepa-gym decode`, made for this encoder: TensorBoard then shows what is imagined
    as pictures, else as the colours of principal components."""
    augment: Augmentations = field(default_factory=Augmentations)
    """Random changes of the clips that keep their geometry; only with `from_pixels`."""

    def __post_init__(self) -> None:
        """Check that there is one start, and ranges."""
        RunConfig.__post_init__(self)
        if self.merge < 1:
            raise ValueError(f"`merge` must be at least 1, got {self.merge}")
        if self.latent_dim is not None and self.merge == 1:
            raise ValueError(
                "`latent_dim` is that of merged tokens; give --merge 2, or leave it out"
            )
        check_rollout(self.rollout_steps, self.frames)
        if (self.encoder is None) == (self.init is None):
            raise ValueError(
                "give either `encoder`, to train a new predictor, or `init`, a world model to "
                f"fine-tune; got {self.encoder} and {self.init}"
            )
        if self.augment != Augmentations() and not self.from_pixels:
            raise ValueError(
                "`augment` changes frames, and kept latents are of frames as they were recorded: "
                "give --from-pixels, too"
            )
        if self.init is not None and self.merge > 1:
            raise ValueError("`merge` belongs to a new predictor; with `init` leave it out")


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
        torch.manual_seed(config.seed)
        begin = _with_new_predictor if config.encoder else _fine_tuned
        model, weights = begin(config, dataset, arrays)
        settings = model.config
        kind = settings.encoder
        model.encoder.requires_grad_(False)
        if config.merge > 1:
            kept = fit_merging(model, arrays)
            here.say(f"merged tokens keep {kept:.1%} of the variance in {kind.latent_dim} channels")
        model.predictor.extrinsics_encoder.requires_grad_(False)  # nothing goes through it
        judges = Judges.choose(dataset, settings.context_frames, here)
        merged = f"-{kind.merge}-{kind.latent_dim}" if kind.merge > 1 else ""
        model.to(here.device).eval()
        decoder = read_decoder(config.decoder, model) if config.decoder else None
        if not config.from_pixels:
            rounded = "-bf16" if config.bf16 else ""
            cache = f"latents-{dataset.key}-{weights[:16]}{merged}{rounded}.npy"
            low = torch.autocast(here.device.type, torch.bfloat16, enabled=config.bf16)
            with first_process_first(), low:
                latents = cache_latents(model, arrays, dataset.folder / "cache" / cache)
            arrays = replace(arrays, frames=latents)
        sampler = ClipSampler(arrays, config.frames, config.batch_size, config.seed)
        augmenter = Augmenter(config.augment, sampler, len(settings.frame.cameras))
        watched = ClipSampler(validation, config.frames, WATCHED_CLIPS, config.seed).batch(0)

        def loss(batch: Batch, step: int) -> dict[str, Tensor]:
            if config.from_pixels:
                model.encoder.eval()  # its batch norms and dropout are as in planning
                with torch.no_grad():
                    latents = model.encode_train(augmenter.apply(batch)["frames"])
            else:
                latents = batch["frames"].float()
            forced, rollout = teacher_forcing_and_rollout(
                *(model, latents, batch["actions"], batch["states"], F.l1_loss),
                *(config.rollout_steps, config.rollout_loss),
            )
            return {
                "loss": forced + rollout,
                "teacher_forcing": forced.detach(),
                "rollout": rollout.detach(),
            }

        task = Task(
            module=model,
            draw=lambda step, rows: vars(sampler.batch(step, rows)) | augmenter.draw(step, rows),
            loss=loss,
            evaluate=lambda: judges.validation.evaluate(model),
            score="landscape_error",
            inputs={"data": dataset.hash, "encoder" if config.encoder else "init": weights},
            watch=lambda: watch(model, watched),
            pictures=lambda: {"imagined": predicted_clip(model, watched, decoder)},
        )
        trainer = Trainer(config, task, here)
        if config.dry_run:
            return trainer.dry_run()
        progress = trainer.run()
        if here.first:
            recipe = f"fine-tuning of {config.init}" if config.init else "masked + post-training"
            weight = config.readout_weight
            finish_model(model, recipe, config, dataset, judges, progress, weight, arrays)
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


def _with_new_predictor(
    config: PosttrainConfig, dataset: Dataset, arrays: ClipArrays
) -> tuple[WorldModel, str]:
    """Return a world model of a frozen encoder, and the hash of the encoder's weights."""
    assert config.encoder
    encoder, weights = _encoder(config.encoder)
    if config.merge > 1:
        width = config.latent_dim or encoder.latent_dim
        encoder = replace(encoder, merge=config.merge, latent_dim=width)
    model = WorldModel(model_config(dataset, arrays, encoder, config.predictor, config.frames))
    if encoder.kind != "hf":
        load_encoder(Path(config.encoder), model)
    return model, weights


def _fine_tuned(
    config: PosttrainConfig, dataset: Dataset, arrays: ClipArrays
) -> tuple[WorldModel, str]:
    """Return the world model to fine-tune for the pictures of a dataset, and its weights' hash.

    Raises:
        ValueError: If other sizes are asked for, or the patches do not divide the pictures.
    """
    assert config.init
    given = WorldModel.from_pretrained(config.init)
    if config.predictor not in (PredictorConfig(), given.config.predictor):
        raise ValueError(
            f"--init {config.init} has {given.config.predictor}, which cannot become "
            f"{config.predictor}: leave --predictor out"
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
    with torch.device("meta"):
        model = WorldModel(settings, checkpoint_encoder(settings.encoder, given.folder))
    fill(model, dict(tensors), config.init)
    return model, digest


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
