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

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_gym.checkpoint.beside import DECODER
from jepa_gym.config import PredictorConfig
from jepa_gym.training.data.clips import ClipSampler
from jepa_gym.training.engine.config import Preset, RunConfig, run_recipe
from jepa_gym.training.engine.distributed import first_process_first, processes
from jepa_gym.training.engine.task import Batch, Progress, Task
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.augmentations import Augmentations, Augmenter
from jepa_gym.training.recipes.finish import Judges, finish_model, open_dataset
from jepa_gym.training.recipes.losses import (
    Compared,
    check_rollout,
    teacher_forcing_and_rollout,
)
from jepa_gym.training.recipes.pictures import WATCHED_CLIPS, predicted_clip, watch
from jepa_gym.training.recipes.posttrain_start import (
    cache_latents,
    fine_tuned,
    fit_merging,
    with_new_predictor,
)
from jepa_gym.world_model import WorldModel


@dataclass(frozen=True, slots=True, kw_only=True)
class PosttrainConfig(RunConfig):
    """Train an action-conditioned predictor on the latents of a frozen encoder."""

    BY_CONTENT: ClassVar[tuple[str, ...]] = ("data", "encoder", "init")

    encoder: str | None = None
    """Output folder of `pretrain`, or `hf:NAME_OR_FOLDER` (V-JEPA 2, DINOv2 or DINOv3)."""
    init: str | None = None
    """World model to fine-tune, in place of an encoder: anything that `WorldModel.from_pretrained`
    takes, such as `vjepa2-ac-vitg`, `default` or a folder. Sizes, units and by default the height
    of pictures are the model's, cameras and time those of the data."""
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
        given = None
        if config.init:
            with first_process_first():
                given = WorldModel.from_pretrained(config.init)
            config = replace(config, image_size=config.image_size or given.config.frame.height)
        dataset = open_dataset(config)
        arrays, validation = dataset.load_arrays("train"), dataset.load_arrays("validation")
        torch.manual_seed(config.seed)
        if given:
            model, weights = fine_tuned(config, given, dataset, arrays)
        else:
            model, weights = with_new_predictor(config, dataset, arrays)
        settings = model.config
        kind = settings.encoder
        model.encoder.requires_grad_(False)
        if config.merge > 1:
            kept = fit_merging(model, arrays)
            here.say(f"merged tokens keep {kept:.1%} of the variance in {kind.latent_dim} channels")
        sees_camera = settings.predictor.use_extrinsics
        model.predictor.extrinsics_encoder.requires_grad_(sees_camera)
        judges = Judges.choose(dataset, settings.context_frames, here)
        merged = f"-{kind.merge}-{kind.latent_dim}" if kind.merge > 1 else ""
        model.to(here.device).eval()
        decoder = DECODER.read(config.decoder, model) if config.decoder else None
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

        def draw(step: int, rows: slice) -> Batch:
            drawn = vars(sampler.batch(step, rows)) | augmenter.draw(step, rows)
            if sees_camera:
                drawn["extrinsics"] = sampler.extrinsics(step, rows)[:, :, 0]
            return drawn

        def loss(batch: Batch, step: int) -> dict[str, Tensor]:
            if config.from_pixels:
                model.encoder.eval()  # its batch norms and dropout are as in planning
                with torch.no_grad():
                    latents = model.encode_train(augmenter.apply(batch)["frames"])
            else:
                latents = batch["frames"].float()
            forced, rollout = teacher_forcing_and_rollout(
                *(model, latents, batch["actions"], batch["states"], F.l1_loss),
                *(config.rollout_steps, config.rollout_loss, batch.get("extrinsics")),
            )
            return {
                "loss": forced + rollout,
                "teacher_forcing": forced.detach(),
                "rollout": rollout.detach(),
            }

        task = Task(
            module=model,
            draw=draw,
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


def main() -> int:
    """Run the command line."""
    return run_recipe(train, PosttrainConfig, PRESETS)


if __name__ == "__main__":
    raise SystemExit(main())
