"""What a step of masked pre-training sees: clips, stills and single frames, with their masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jepa_gym.training.data.clips import ClipSampler
from jepa_gym.training.engine.task import Batch
from jepa_gym.training.recipes.augmentations import Augmenter, still_rows
from jepa_gym.training.recipes.masked_model import MaskedModel

if TYPE_CHECKING:
    from jepa_gym.training.recipes.pretrain import PretrainConfig

SINGLE = "single_"
"""Before the names of what belongs to single frames in a batch."""


class MaskedBatches:
    """Draws the batches of a pre-training and computes their losses."""

    def __init__(
        self, config: PretrainConfig, sampler: ClipSampler, model: MaskedModel, views: int
    ) -> None:
        """Prepare.

        Args:
            config: The run.
            sampler: Of its clips.
            model: What is trained.
            views: Views side by side in a frame.
        """
        self.seed, self.sampler, self.model = config.seed, sampler, model
        self.augmenter = Augmenter(config.augment, sampler, views)
        self.stills = still_rows(config.batch_size, config.stills)
        self.per_clip = config.single_frames
        count = config.batch_size * self.per_clip
        self.singles = ClipSampler(sampler.arrays, 1, count, config.seed + 1)

    def draw(self, step: int, rows: slice) -> Batch:
        """Draw these rows of a step's batch, from seed and step alone."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        size = self.sampler.batch_size
        masks = self.model.draw_masks(size, generator)  # trimmed over the whole batch
        frames, still = self.sampler.batch(step, rows).frames, self.stills[rows]
        frames[still] = frames[still, :1]
        drawn = {"frames": frames, **self.augmenter.draw(step, rows)}
        drawn |= {name: mask[rows] for name, mask in masks.items()}
        if self.per_clip:
            masks = self.model.draw_masks(self.singles.batch_size, generator, tubelets=1)
            rows = slice(*(self.per_clip * n for n in rows.indices(size)[:2]))
            drawn |= {SINGLE + name: mask[rows] for name, mask in masks.items()}
            drawn[SINGLE + "frames"] = self.singles.batch(step, rows).frames
        return drawn

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return the loss of a drawn batch; with single frames, both parts of it, too."""
        single = {x.removeprefix(SINGLE): batch[x] for x in batch if x.startswith(SINGLE)}
        batch = self.augmenter.apply({x: batch[x] for x in batch if not x.startswith(SINGLE)})
        clips = self.model.loss(batch.pop("frames"), batch)
        if not self.per_clip:
            return {"loss": clips}
        frames = single.pop("frames").repeat(1, self.model.encoder.tubelet_size, 1, 1, 1)
        frame = self.model.loss(frames, single)
        both = {"clips": clips.detach(), "single_frames": frame.detach()}
        return {"loss": (clips + frame) / 2} | both
