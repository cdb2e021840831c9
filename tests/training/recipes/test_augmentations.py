"""Augmentations: what each of them does, the same for all frames, rows of a batch alone too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from jepa_gym.training.recipes.augmentations import (
    Augmentations,
    PretrainAugmentations,
    crop_boxes,
    random_resized_crop,
)

ALL = {"colour": 0.4, "blur": 1.5, "noise": 8.0, "cutout": 0.3, "background": 0.5}
VIEWS = 2


def clips(batch: int = 4, frames: int = 3) -> torch.Tensor:
    """A still picture per clip, so that frames that are changed alike stay equal."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(256, (batch, 1, 16, 32, 3), generator=generator, dtype=torch.uint8)
    return picture.expand(-1, frames, -1, -1, -1).contiguous()


def changed(augment: Augmentations, frames: torch.Tensor, rows: slice = slice(None)):
    drawn = augment.draw(len(frames), torch.Generator().manual_seed(1))
    other = frames.flip(0)[:, 0]
    batch = {"frames": frames, **drawn, **({"augment.other": other} if augment.background else {})}
    return augment.apply({name: x[rows] for name, x in batch.items()}, VIEWS)["frames"]


@pytest.mark.parametrize("name", ALL)
def test_each_changes_clips_alike_in_all_frames_and_differently_from_each_other(name):
    frames = clips()
    got = changed(Augmentations(**{name: ALL[name]}), frames)
    assert got.dtype == torch.float32 and got.shape == frames.shape
    assert got.min() >= 0 and got.max() <= 255
    assert torch.equal(got, got[:, :1].expand_as(got))
    difference = (got - frames).abs().mean((1, 2, 3, 4))
    assert (difference > 0.05).all() and len(difference.unique()) == len(frames)


@pytest.mark.parametrize("kind", [Augmentations, PretrainAugmentations])
def test_rows_alone_are_changed_as_in_the_whole_batch(kind):
    more = {"crop": (0.3, 1.0), "mirror": 0.5} if kind is PretrainAugmentations else {}
    augment, frames = kind(**ALL, **more), clips(6)
    whole = changed(augment, frames)
    parts = [changed(augment, frames, rows) for rows in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-3)
    assert torch.equal(changed(augment, frames), whole)


def test_nothing_switched_on_changes_nothing():
    frames = clips()
    assert changed(Augmentations(), frames).dtype == torch.uint8
    assert PretrainAugmentations().draw(4, torch.Generator()) == {}


def test_noise_is_normal_and_independent():
    grey = torch.full((2, 1, 128, 128, 3), 127, dtype=torch.uint8)
    noise = changed(Augmentations(noise=20.0), grey)[:, 0] - 127
    for one in noise:
        unit = (one / one.std()).flatten()
        assert abs(unit.mean()) < 0.02 and abs(unit.pow(4).mean() - 3) < 0.1
        assert abs((unit[1:] * unit[:-1]).mean()) < 0.02
    assert abs(np.corrcoef(noise[0].flatten(), noise[1].flatten())[0, 1]) < 0.02


def test_blur_is_gaussian_and_keeps_views_apart():
    frames = torch.zeros(1, 1, 15, 30, 3, dtype=torch.uint8)
    frames[0, 0, 7, 7] = 255
    frames[:, :, :, 15:] = 80
    batch = {"frames": frames, "augment.blur": torch.tensor([1.0])}
    got = Augmentations(blur=1.0).apply(batch, VIEWS)["frames"][0, 0, :, :, 0]
    assert (got[:, 15:] == 80).all()
    assert got[7, 8] / got[7, 7] == pytest.approx(np.exp(-0.5), rel=1e-4)
    assert got[:, :15].sum().item() == pytest.approx(255, rel=1e-4)


def test_colour_keeps_greys_grey_and_cutout_hides_what_it_says():
    grey = torch.full((8, 1, 16, 32, 3), 90, dtype=torch.uint8)
    got = changed(Augmentations(colour=0.3), grey)
    assert (got.amax(-1) - got.amin(-1)).max() < 1e-3
    batch = {"frames": torch.zeros(1, 2, 64, 64, 3, dtype=torch.uint8)}
    batch["augment.cutout"] = torch.tensor([[0.25, 0.5, 0.5, 0.0]])
    hidden = Augmentations(cutout=0.25).apply(batch, 1)["frames"][0, 1, :, :, 0] > 0
    assert hidden[16:48, :32].all() and hidden.sum() == 32 * 32


def test_the_crop_is_the_published_one():
    """A cut and a bilinear resize that is not antialiased, of every view alike."""
    frames = clips(3).float()
    numbers = torch.rand(3, 10, 4, generator=torch.Generator().manual_seed(2))
    numbers[..., 0] = 0.3 + 0.7 * numbers[..., 0]
    numbers[..., 1] = 0.75 + 0.6 * numbers[..., 1]
    got = random_resized_crop(frames, numbers, (0.75, 1.35), VIEWS)
    boxes = crop_boxes(numbers, (16, 16), (0.75, 1.35)).long()
    views = rearrange(frames, "b t y (v x) c -> b v t c y x", v=VIEWS)
    for clip, (top, left, height, width) in enumerate(boxes.tolist()):
        for view in range(VIEWS):
            cut = views[clip, view, :, :, top : top + height, left : left + width]
            expected = F.interpolate(cut, (16, 16), mode="bilinear", align_corners=False)
            seen = got[clip, :, :, 16 * view : 16 * view + 16].permute(0, 3, 1, 2)
            torch.testing.assert_close(seen, expected, rtol=0, atol=2e-2)
    whole = torch.tensor([[[1.0, 1.0, 0.5, 0.5]]]).expand(3, -1, -1)
    torch.testing.assert_close(random_resized_crop(frames, whole, (1, 1), VIEWS), frames)


def test_boxes_have_the_published_areas_and_the_fallback():
    drawn = PretrainAugmentations(crop=(0.3, 1.0)).draw(4000, torch.Generator().manual_seed(0))
    top, left, height, width = crop_boxes(drawn["augment.crop"], (256, 256), (0.75, 1.35)).T
    share, ratio = height * width / 256**2, width / height
    assert 0.29 < share.min() < 0.32 and 0.97 < share.max() <= 1
    assert ratio.min() > 0.73 and ratio.max() < 1.37 and abs(ratio.log().mean()) < 0.02
    assert (top + height <= 256).all() and (left + width <= 256).all()
    never = torch.full((1, 10, 4), 1.777)
    assert crop_boxes(never, (720, 1280), (0.75, 1.35)).tolist() == [[0, 154, 720, 972]]


def test_the_mirror_mirrors_every_view():
    frames = clips(1)
    batch = {"frames": frames, "augment.mirror": torch.tensor([True])}
    got = PretrainAugmentations(mirror=0.5).apply(batch, VIEWS)["frames"]
    assert torch.equal(got[:, :, :, :16], frames[:, :, :, :16].flip(3).float())
    assert torch.equal(got[:, :, :, 16:], frames[:, :, :, 16:].flip(3).float())


@pytest.mark.parametrize(
    "changes", [{"colour": 2}, {"cutout": 1}, {"noise": -1}, {"crop": (0, 1)}, {"mirror": 2}]
)
def test_ranges(changes):
    with pytest.raises(ValueError, match=f"augment.{next(iter(changes))}"):
        PretrainAugmentations(**changes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same():
    augment, frames = PretrainAugmentations(**ALL, crop=(0.3, 1.0), mirror=0.5), clips()
    ours = changed(augment, frames)
    drawn = augment.draw(len(frames), torch.Generator().manual_seed(1))
    batch = {"frames": frames, **drawn, "augment.other": frames.flip(0)[:, 0]}
    theirs = augment.apply({name: x.cuda() for name, x in batch.items()}, VIEWS)["frames"]
    torch.testing.assert_close(theirs.cpu(), ours, rtol=0, atol=0.1)
