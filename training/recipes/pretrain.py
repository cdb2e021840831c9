"""Masked pre-training of the encoder, as published, at small size.

`jepa-gym pretrain --data DATASET --output RUN --minutes 40`

The encoder sees a part of a clip, a predictor fills in the features of the hidden tokens, and the
features come from a moving average of the encoder that sees the whole clip. Writes that average
for `posttrain` and, beside it, the predictor for `surprise`. The preset `published` has the
published values. The defaults deviate from them: small sizes, shorter clips, no stills, no random
crop (it would change the metric geometry of a fixed camera), gradient clipping, and a decay within
the run.

A cooldown goes on from the constant phase with longer clips and larger pictures:
`jepa-gym pretrain --from RUN --output RUN2 --frames 16 --image-size 192 --steps 2000
--schedule.warmup 0 --schedule.decay 1.0`

Reference: V-JEPA 2 (arXiv 2506.09985), section 2.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import tyro

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.fill import check_tensors
from jepa_gym.checkpoint.safetensors_file import read_safetensors, write_safetensors
from jepa_gym.config import EncoderConfig, PredictorConfig, checked_fields
from jepa_gym.training.data.clips import ClipArrays, ClipSampler
from jepa_gym.training.engine.config import Preset, RunConfig, run_recipe
from jepa_gym.training.engine.distributed import processes
from jepa_gym.training.engine.monitors import Watched
from jepa_gym.training.engine.task import Progress, Task
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.augmentations import PretrainAugmentations
from jepa_gym.training.recipes.cooldown import Start
from jepa_gym.training.recipes.finish import model_config, open_dataset, provenance, report
from jepa_gym.training.recipes.hand_probe import probe_hand
from jepa_gym.training.recipes.masked_batches import MaskedBatches
from jepa_gym.training.recipes.masked_model import MaskedModel
from jepa_gym.training.recipes.masks import PUBLISHED, MaskConfig
from jepa_gym.training.recipes.pictures import WATCHED_CLIPS, features_clip
from jepa_gym.world_model import WorldModel

ENCODER_NAME = "encoder.safetensors"
PREDICTOR_NAME = "masked_predictor.safetensors"
SMALL = EncoderConfig(
    kind="vit", embed_dim=192, depth=6, num_heads=3, latent_dim=192, patch_size=16
)


@dataclass(frozen=True, slots=True)
class PretrainConfig(RunConfig):
    """Pre-train an encoder by predicting masked parts of clips."""

    BY_CONTENT: ClassVar[tuple[str, ...]] = ("data", "from_run")

    from_run: Annotated[Path | None, tyro.conf.arg(aliases=["--from"])] = None
    """Start from the newest checkpoint of another pre-training, or from one of its files: weights,
    moving average and the optimiser's moments. The sizes are those of that run; pictures and clips
    may be larger. The published cooldown starts so from the constant phase."""
    learning_rate: float = 5e-4
    """Peak learning rate of AdamW."""
    frames: int = 8
    """Consecutive frames of a clip, a multiple of the tubelet's 2."""
    stills: float = 0.0
    """Share of the clips that are stills: their first frame again and again."""
    single_frames: int = 0
    """Single frames beside each clip of a batch, repeated into one tubelet each, as world models
    encode frames; clips and single frames then count alike in the loss."""
    short_mask: MaskConfig = PUBLISHED[0]
    """The mask of many small blocks. On a grid of few tokens the published ones leave little to
    see: fewer blocks may teach more."""
    long_mask: MaskConfig = PUBLISHED[1]
    """The mask of few large blocks."""
    own_mask_tokens: bool = False
    """Give each kind of mask its own mask token, as V-JEPA 1 has; V-JEPA 2 has one for both."""
    momentum: float = 0.99925
    """Of the moving average that gives the targets."""
    final_momentum: float | None = None
    """Where the momentum leads to, on a line over the run; None keeps it constant."""
    encoder: EncoderConfig = field(default_factory=lambda: SMALL)
    """Sizes of the encoder, of kind `vit`."""
    predictor: PredictorConfig = field(
        default_factory=lambda: PredictorConfig(embed_dim=96, depth=4, num_heads=3)
    )
    """Sizes of the masked predictor."""
    augment: PretrainAugmentations = field(default_factory=PretrainAugmentations)
    """Random changes of the clips."""

    def __post_init__(self) -> None:
        """Check the encoder's kind and ranges."""
        RunConfig.__post_init__(self)
        if self.encoder.kind != "vit":
            raise ValueError(
                f"masked pre-training needs `encoder.kind`='vit', got {self.encoder.kind!r}"
            )
        for name in ("momentum", "final_momentum"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"`{name}` must be above 0 and at most 1, got {value}")
        if self.frames < 2 or self.frames % 2:
            raise ValueError(f"`frames` must be a positive multiple of 2, got {self.frames}")
        if not 0 <= self.stills <= 1:
            raise ValueError(f"`stills` must be within 0 .. 1, got {self.stills}")
        if self.single_frames < 0:
            raise ValueError(f"`single_frames` must not be negative, got {self.single_frames}")


_VIT_L = {"embed_dim": 1024, "depth": 24, "num_heads": 16, "latent_dim": 1024}
_PUBLISHED: Preset = {
    "batch_size": 3072,
    "learning_rate": 5.25e-4,
    "weight_decay": 0.04,
    "gradient_clip": None,
    "momentum": 0.99925,
    "stills": 0.25,
    "checkpoint_activations": True,
    "encoder": _VIT_L,
    "predictor": {"embed_dim": 384, "depth": 12, "num_heads": 12},
    "augment": {"crop": (0.3, 1.0), "aspect": (0.75, 1.35), "mirror": 0.5},
}
PRESETS: dict[str, Preset] = {
    "published": {
        **_PUBLISHED,
        "steps": 240_000,
        "frames": 16,
        "image_size": 256,
        "schedule": {"warmup": 0.05, "decay": 0, "start": 1e-4},
    },
    "published-cooldown": {
        **_PUBLISHED,
        "steps": 12_000,
        "frames": 64,
        "image_size": 384,
        "schedule": {"warmup": 0, "decay": 1.0, "final": 1e-6, "stretch": 1.25},
    },
    "vjepa1": {
        **_PUBLISHED,
        "steps": 90_000,
        "frames": 16,
        "image_size": 224,
        "learning_rate": 6.25e-4,
        "schedule": {
            "warmup": 8 / 75,
            "decay": 67 / 75,
            "start": 2e-4,
            "final": 1e-6,
            "shape": "cosine",
            "stretch": 1.25,
        },
        "final_weight_decay": 0.4,
        "gradient_clip": 10.0,
        "momentum": 0.998,
        "final_momentum": 1.0,
        "stills": 0.0,
        "own_mask_tokens": True,
        "encoder": {**_VIT_L, "rope": "sincos"},
        "predictor": {"embed_dim": 384, "depth": 12, "num_heads": 16, "rope": "sincos"},
    },
}
"""V-JEPA 2 with ViT-L: 12,000 steps up and 228,000 constant; its cooldown, for `--from`, which
falls over 15,000 steps and stops at 12,000. V-JEPA 1 (arXiv 2404.08471,
`configs/pretrain/vitl16.yaml`), which clipped the gradients of encoder and predictor apart, and
after the warm-up only. Phases are fractions, so that --steps scales them."""


def momentum(config: PretrainConfig, course: float) -> float:
    """Return the momentum of the moving average where this part of the run is done."""
    if config.final_momentum is None:
        return config.momentum
    return config.momentum + (config.final_momentum - config.momentum) * course


def train(config: PretrainConfig) -> Progress:
    """Run the recipe and write `encoder.safetensors` in `config.output`.

    Returns:
        The finished progress; states are chosen by how well a linear probe on frozen features
        finds the hand on held-out episodes; of videos without states the last one is taken.
    """
    with processes(config.device, config.threads) as here:
        start = Start.read(config.from_run) if config.from_run else None
        if start:
            config = start.continued(config)
        dataset = open_dataset(config, needs_states=False)
        arrays, validation = dataset.load_arrays("train"), dataset.load_arrays("validation")
        sampler = ClipSampler(arrays, config.frames, config.batch_size, config.seed)
        torch.manual_seed(config.seed)
        settings = model_config(dataset, arrays, config.encoder, PredictorConfig(), config.frames)
        world_model = WorldModel(settings).to(here.device)
        kinds = (config.short_mask, config.long_mask)
        model = MaskedModel(
            world_model, config.predictor, config.frames, config.own_mask_tokens, kinds
        )
        batches = MaskedBatches(config, sampler, model, len(settings.frame.cameras))
        watched = ClipSampler(validation, config.frames, WATCHED_CLIPS, config.seed).batch(0).frames
        watched_masks = model.draw_masks(WATCHED_CLIPS, torch.Generator().manual_seed(config.seed))

        has_states = dataset.index.get("has_states", True)

        def probe(measured: ClipArrays) -> dict[str, float]:
            if not has_states:
                return {"unjudged": 0.0}  # of equal states the latest is kept
            world_model.encoder = model.target_encoder
            figures = {"probe_cm": probe_hand(world_model, arrays, measured)}
            world_model.encoder = model.encoder
            return figures

        def watch() -> Watched:
            masks = {name: x.to(here.device) for name, x in watched_masks.items()}
            whole, pairs = model.predictions(watched.to(here.device), masks)
            return Watched(whole, pairs[0][1], pairs[0][0])

        task = Task(
            module=model,
            draw=batches.draw,
            loss=batches.loss,
            evaluate=lambda: probe(validation),
            score="probe_cm" if has_states else "unjudged",
            inputs={"data": dataset.hash} | ({"from_run": start.digest} if start else {}),
            after_step=lambda course: model.update_target_encoder(momentum(config, course)),
            watch=watch,
            pictures=lambda: {"features": features_clip(watched, watch().latents, model.grid)},
        )
        trainer = Trainer(config, task, here)
        if start and not trainer.progress.step:
            trainer.start_from(start.tensors)
            here.say(start.describe())
        if config.dry_run:
            return trainer.dry_run()
        progress = trainer.run()
        if here.first:
            test = dataset.load_arrays("test")
            figures = probe(test) if len(test.ids) else {}
            facts = provenance("masked pre-training", config, dataset, progress)
            metadata = {
                "config": json.dumps(settings.to_dict()),
                "card": json.dumps(facts | {"test": figures}),
            }
            sizes = {"predictor": json.dumps(asdict(config.predictor))}
            path = config.output / PREDICTOR_NAME
            write_safetensors(path, model.predictor.state_dict(), metadata | sizes)
            weights = model.target_encoder.state_dict()
            write_safetensors(config.output / ENCODER_NAME, weights, metadata)
            report(f"wrote {config.output / ENCODER_NAME}", progress, figures)
        return progress


def load_encoder(folder: Path, world_model: WorldModel) -> None:
    """Load the result of pre-training into a world model's encoder.

    Args:
        folder: The output of `pretrain`.
        world_model: A model with an encoder of the same sizes.

    Raises:
        FileNotFoundError: The folder holds no encoder.
        CheckpointError: The weights are of other sizes.
    """
    tensors, _ = read_safetensors(_encoder_file(folder))
    check_tensors(world_model.encoder.state_dict(), tensors, folder)
    world_model.encoder.load_state_dict(tensors)


def encoder_config(folder: Path) -> EncoderConfig:
    """Return the sizes of a pre-trained encoder.

    Raises:
        FileNotFoundError: The folder holds no encoder.
        CheckpointError: The file was not written by `pretrain`.
    """
    path = _encoder_file(folder)
    _, metadata = read_safetensors(path)
    if "config" not in metadata:
        raise CheckpointError(f"{path} carries no configuration; it was not written by `pretrain`")
    sizes = json.loads(metadata["config"])["encoder"]
    return EncoderConfig(**checked_fields(EncoderConfig, sizes, f"configuration in {path}"))


def _encoder_file(folder: Path) -> Path:
    path = Path(folder) / ENCODER_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} not found; run `jepa-gym pretrain --output {folder}` first"
        )
    return path


def main() -> int:
    """Run the command line."""
    return run_recipe(train, PretrainConfig, PRESETS)


if __name__ == "__main__":
    raise SystemExit(main())
