"""Masked pre-training of the encoder, as published, at small size.

`jepa-gym pretrain --data DATASET --output RUN --minutes 40`

The encoder sees a part of a clip, a predictor fills in the features of the hidden tokens, and the
features come from a moving average of the encoder that sees the whole clip. Writes that average
for `posttrain` and, beside it, the predictor for `surprise`. Deviations from the publication: small
sizes, shorter clips, no random crop (it would change the metric geometry of a fixed camera), weight
decay on all matrices, gradient clipping.

Reference: V-JEPA 2 (arXiv 2506.09985), section 2.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.fill import check_tensors
from jepa_gym.checkpoint.safetensors_file import read_safetensors, write_safetensors
from jepa_gym.config import EncoderConfig, PredictorConfig, checked_fields
from jepa_gym.models import MaskedPredictor, VideoTransformer
from jepa_gym.normalisation import layer_norm
from jepa_gym.training.data.clips import ClipArrays, ClipSampler
from jepa_gym.training.engine.config import Preset, RunConfig, run_recipe
from jepa_gym.training.engine.distributed import processes
from jepa_gym.training.engine.monitors import Watched
from jepa_gym.training.engine.task import Batch, Progress, Task
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.finish import model_config, open_dataset, provenance, report
from jepa_gym.training.recipes.joint import WATCHED_CLIPS
from jepa_gym.training.recipes.masks import PUBLISHED, sample_masks
from jepa_gym.world_model import WorldModel

ENCODER_NAME = "encoder.safetensors"
PREDICTOR_NAME = "masked_predictor.safetensors"
SMALL = EncoderConfig(
    kind="vit", embed_dim=192, depth=6, num_heads=3, latent_dim=192, patch_size=16
)


@dataclass(frozen=True, slots=True)
class PretrainConfig(RunConfig):
    """Pre-train an encoder by predicting masked parts of clips."""

    learning_rate: float = 5e-4
    """Peak learning rate of AdamW."""
    frames: int = 8
    """Consecutive frames of a clip, a multiple of the tubelet's 2."""
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


PRESETS: dict[str, Preset] = {
    "published": {
        "steps": 252_000,
        "batch_size": 3072,
        "frames": 16,
        "learning_rate": 5.25e-4,
        "schedule": {"warmup": 1 / 21, "decay": 1 / 21, "start": 1e-4, "final": 1e-6},
        "weight_decay": 0.04,
        "gradient_clip": None,
        "momentum": 0.99925,
        "checkpoint_activations": True,
        "encoder": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "latent_dim": 1024},
        "predictor": {"embed_dim": 384, "depth": 12, "num_heads": 12},
    }
}
"""V-JEPA 2, ViT-L: 12,000 steps up, 228,000 constant, 12,000 down, here without longer clips at the
end; fractions, so that --steps scales it."""


class MaskedModel(nn.Module):
    """Encoder, its moving average and the masked predictor."""

    def __init__(self, world_model: WorldModel, predictor: PredictorConfig, frames: int) -> None:
        """Create the parts.

        Args:
            world_model: Gives the encoder and the normalisation of pixels.
            predictor: Sizes of the masked predictor.
            frames: T of a clip.
        """
        super().__init__()
        if not isinstance(world_model.encoder, VideoTransformer):
            raise TypeError("masked pre-training needs an encoder of kind `vit`")
        self.encoder = world_model.encoder
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        config = world_model.config
        self.predictor = MaskedPredictor(
            config.grid,
            config.encoder.latent_dim,
            predictor.embed_dim,
            predictor.depth,
            predictor.num_heads,
            mlp_ratio=predictor.mlp_ratio,
            rope=predictor.rope,
        )
        self.grid = (frames // self.encoder.tubelet_size, *config.grid)
        self.normaliser = world_model.normaliser

    def draw_masks(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw what is seen and hidden of each clip, for every kind of mask.

        Args:
            batch: B.
            generator: On the CPU.

        Returns:
            `seen_k` (B, K) and `hidden_k` (B, M), indices into the grid of tokens.
        """
        masks = {}
        for kind, config in enumerate(PUBLISHED):
            pair = sample_masks(self.grid, batch, config, generator)
            masks[f"seen_{kind}"], masks[f"hidden_{kind}"] = pair
        return masks

    def predictions(
        self, frames: Tensor, masks: Mapping[str, Tensor]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Encode clips and predict their hidden parts.

        Args:
            frames: (B, T, Y, X, 3) uint8.
            masks: From `draw_masks`.

        Returns:
            The average's layer-normed features of the whole clips (B, tokens, D), and for every
            kind of mask predictions and targets, both (B, M, D) float32.
        """
        video = rearrange(self.normaliser.pixels(frames), "b t y x c -> b c t y x")
        with torch.no_grad():
            whole = layer_norm(self.target_encoder(video).float())
        pairs = []
        for kind in range(len(PUBLISHED)):
            seen, hidden = masks[f"seen_{kind}"], masks[f"hidden_{kind}"]
            predicted = self.predictor(self.encoder(video, seen), seen, hidden)
            pairs.append((predicted.float(), torch.take_along_dim(whole, hidden[..., None], dim=1)))
        return whole, pairs

    def loss(self, frames: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
        """Return the masked prediction loss, the mean over the kinds of mask."""
        _, pairs = self.predictions(frames, masks)
        return torch.stack([F.l1_loss(predicted, target) for predicted, target in pairs]).mean()

    @torch.no_grad()
    def update_target_encoder(self, momentum: float) -> None:
        """Move the average a step towards the encoder."""
        for slow, fast in zip(
            self.target_encoder.parameters(), self.encoder.parameters(), strict=True
        ):
            slow.lerp_(fast, 1 - momentum)


def momentum(config: PretrainConfig, course: float) -> float:
    """Return the momentum of the moving average where this part of the run is done."""
    if config.final_momentum is None:
        return config.momentum
    return config.momentum + (config.final_momentum - config.momentum) * course


def train(config: PretrainConfig) -> Progress:
    """Run the recipe and write `encoder.safetensors` in `config.output`.

    Returns:
        The finished progress; states are chosen by how well a linear probe on frozen features
        finds the hand on held-out episodes.
    """
    with processes(config.device, config.threads) as here:
        dataset = open_dataset(config)
        arrays, validation = dataset.load_arrays("train"), dataset.load_arrays("validation")
        sampler = ClipSampler(arrays, config.frames, config.batch_size, config.seed)
        torch.manual_seed(config.seed)
        settings = model_config(dataset, arrays, config.encoder, PredictorConfig(), config.frames)
        world_model = WorldModel(settings).to(here.device)
        model = MaskedModel(world_model, config.predictor, config.frames)
        watched = ClipSampler(validation, config.frames, WATCHED_CLIPS, config.seed).batch(0).frames
        watched_masks = model.draw_masks(WATCHED_CLIPS, torch.Generator().manual_seed(config.seed))

        def draw(step: int, rows: slice) -> Batch:
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
            masks = model.draw_masks(config.batch_size, generator)  # trimmed over the whole batch
            frames = {"frames": sampler.batch(step, rows).frames}
            return frames | {name: mask[rows] for name, mask in masks.items()}

        def loss(batch: Batch, step: int) -> dict[str, Tensor]:
            masks = {name: x for name, x in batch.items() if name != "frames"}
            return {"loss": model.loss(batch["frames"], masks)}

        def probe(measured: ClipArrays) -> dict[str, float]:
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
            draw=draw,
            loss=loss,
            evaluate=lambda: probe(validation),
            score="probe_cm",
            inputs={"data": dataset.hash},
            after_step=lambda course: model.update_target_encoder(momentum(config, course)),
            watch=watch,
        )
        trainer = Trainer(config, task, here)
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


def probe_hand(
    model: WorldModel, train_arrays: ClipArrays, held_out: ClipArrays, frames: int = 400
) -> float:
    """Fit ridge regression from frozen latents to the hand's position.

    Args:
        model: Gives the latents.
        train_arrays: Where the probe is fitted.
        held_out: Where it is measured.
        frames: Frames of each split.

    Returns:
        Mean distance on held-out frames, cm.
    """
    (x, y), (x_test, y_test) = (
        _probe_data(model, arrays, frames) for arrays in (train_arrays, held_out)
    )
    mean, offset = x.mean(0), y.mean(0)
    x, x_test = x - mean, x_test - mean
    kernel = x @ x.T  # fewer frames than features: solve the dual problem
    ridge = 1e-2 * kernel.diagonal().mean() * torch.eye(len(x))
    weights = torch.linalg.solve(kernel + ridge, y - offset)
    predicted = x_test @ x.T @ weights + offset
    return 100 * (predicted - y_test).norm(dim=1).mean().item()


def _probe_data(model: WorldModel, arrays: ClipArrays, count: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    episodes = rng.integers(len(arrays.rows), size=count)
    times = rng.integers(arrays.states.shape[1], size=count)
    clips = np.stack([arrays.clip(e, t, t + 1) for e, t in zip(episodes, times, strict=True)])
    features = model.encode(clips).flatten(1).cpu()
    return features, torch.from_numpy(arrays.states[episodes, times, :3])


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
