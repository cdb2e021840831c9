"""Published preprocessing against values worked out by hand and against OpenCV."""

from __future__ import annotations

import cv2
import pytest
import torch

from jepa_gym.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    droid_crop,
    evaluation_transform,
    normalise,
    spatial_crops,
    square_crop,
)


def noise(*shape):
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)


def ramp(rows, columns, along):
    """Return one frame whose value is the number of the row or the column."""
    line = torch.arange(columns if along == "x" else rows, dtype=torch.uint8)
    picture = line.expand(rows, columns) if along == "x" else line[:, None].expand(rows, columns)
    return picture[None, None, :, :, None].expand(-1, -1, -1, -1, 3)


def as_pixels(video):
    """Undo `normalise`: (B, 3, T, Y, X) to whole numbers (B, T, Y, X, 3)."""
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (video * std + mean) * 255
    assert (pixels - pixels.round()).abs().max() < 1e-3
    return pixels.round().permute(0, 2, 3, 4, 1)


def test_normalise():
    frames = torch.zeros(2, 3, 4, 5, 3, dtype=torch.uint8)
    frames[1, 2, 3, 4] = torch.tensor([255, 0, 51])
    video = normalise(frames)
    assert video.shape == (2, 3, 3, 4, 5) and video.dtype == torch.float32
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225])
    torch.testing.assert_close(video[1, :, 2, 3, 4], expected)
    torch.testing.assert_close(normalise(frames.float()), video)
    grey = normalise(frames, mean=(0.0, 0.0, 0.0), std=(1.0, 0.5, 0.25))
    torch.testing.assert_close(grey[1, :, 2, 3, 4], torch.tensor([1.0, 0.0, 0.8]))


@pytest.mark.parametrize(
    ("rows", "columns", "short", "resized", "start"),
    [
        # 519 - 256 = 263: half is 131.5, which is rounded to the even 132
        (720, 1280, 292, (292, 519), (18, 132)),
        (480, 640, 292, (292, 389), (18, 66)),  # 133 / 2 = 66.5 is rounded to 66
        (100, 64, 292, (456, 292), (100, 18)),
        (292, 400, 292, (292, 400), (18, 72)),  # fits already
        (256, 256, 292, (292, 292), (18, 18)),  # the published example clip
    ],
)
def test_evaluation_transform_is_opencv(rows, columns, short, resized, start):
    assert short == int(256 * 256 / 224)
    frames = noise(1, 2, rows, columns)
    pixels = as_pixels(evaluation_transform(frames, 256))
    for t in range(2):
        whole = cv2.resize(frames[0, t].numpy(), resized[::-1], interpolation=cv2.INTER_LINEAR)
        top, left = start
        expected = torch.from_numpy(whole[top : top + 256, left : left + 256]).float()
        # the library's fixed-point arithmetic may be another on other processors
        assert (pixels[0, t] - expected).abs().max() <= 1
        assert (pixels[0, t] != expected).float().mean() < 0.01


def test_spatial_crops_lie_side_by_side():
    wide = noise(1, 2, 8, 20)
    crops = spatial_crops(wide, 8, 3)
    assert crops.shape == (1, 3, 2, 8, 8, 3)
    assert all(torch.equal(crops[:, n], wide[..., s : s + 8, :]) for n, s in enumerate((0, 6, 12)))
    tall = spatial_crops(wide.transpose(2, 3), 8, 3)
    assert torch.equal(tall[:, 2], wide[..., 12:, :].transpose(2, 3))
    assert spatial_crops(wide, 4, 2).shape == (1, 2, 2, 4, 4, 3)
    with pytest.raises(ValueError, match="at least 2"):
        spatial_crops(wide, 8, 1)


def test_evaluation_transform_by_hand():
    # crop 7: short side int(7 * 256 / 224) = 8, of 16 rows and 32 columns: 8 x 16, half the size
    pixels = as_pixels(evaluation_transform(ramp(16, 32, "x"), 7))
    assert pixels.shape == (1, 1, 7, 7, 3)
    # (16 - 7) / 2 = 4.5 is rounded to 4; pixel k lies between 2k and 2k + 1: 2k + 0.5, rounded up
    assert pixels[0, 0, 0, :, 0].tolist() == [9, 11, 13, 15, 17, 19, 21]
    pixels = as_pixels(evaluation_transform(ramp(16, 32, "y"), 7))
    assert pixels[0, 0, :, 0, 0].tolist() == [1, 3, 5, 7, 9, 11, 13]  # (8 - 7) / 2 gives row 0
    assert evaluation_transform(noise(1, 1, 50, 60), 384).shape == (1, 3, 1, 384, 384)


@pytest.mark.parametrize(
    ("rows", "columns", "height", "width"),
    [
        (720, 1280, 720, 972),  # DROID's camera: aspect capped at 1.35
        (72, 128, 72, 97),  # 97.2
        (180, 320, 180, 243),
        (100, 120, 100, 120),  # within the bounds: all of it, squashed
        (256, 256, 256, 256),
        (200, 100, 133, 100),  # 100 / 0.75 = 133.3
    ],
)
def test_droid_crop(rows, columns, height, width):
    top, left = (rows - height) // 2, (columns - width) // 2
    inside = torch.zeros(1, 1, rows, columns, 3, dtype=torch.uint8)
    inside[:, :, top : top + height, left : left + width] = 200
    assert (droid_crop(inside) == 200).all()  # nothing else is seen
    if width < columns:
        inside[:, :, :, left] = inside[:, :, :, left + width - 1] = 0
        seen = droid_crop(inside, width)  # every column is read
        assert (seen[..., 0, :] < 200).all() and (seen[..., -1, :] < 200).all()  # and all of it
    assert droid_crop(inside).shape == (1, 1, 256, 256, 3)


def test_droid_crop_by_hand():
    # 72 x 128: columns 15 to 111; eight pixels of 97 / 8 columns each, sampled at their centres
    seen = droid_crop(ramp(72, 128, "x"), 8)
    expected = 15 + (torch.arange(8) + 0.5) * 97 / 8 - 0.5
    torch.testing.assert_close(seen[0, 0, 3, :, 1], expected)
    seen = droid_crop(ramp(72, 128, "y"), 8)
    torch.testing.assert_close(seen[0, 0, :, 3, 1], (torch.arange(8) + 0.5) * 9 - 0.5)


def test_droid_crop_is_not_antialiased():
    stripes = torch.zeros(1, 1, 96, 96, 3, dtype=torch.uint8)
    stripes[:, :, :, ::6] = 240
    # 16 pixels of 6 columns, each read half way between the third and the fourth: never a stripe
    assert droid_crop(stripes, 16).max() == 0


@pytest.mark.parametrize(("rows", "columns"), [(90, 160), (160, 90), (90, 91), (90, 90)])
def test_square_crop(rows, columns):
    frames, side = noise(2, 3, rows, columns), min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    cut = frames[:, :, top : top + side, left : left + side]
    assert torch.equal(square_crop(frames, side), cut.float())
    assert square_crop(frames, 32).shape == (2, 3, 32, 32, 3)


def test_the_example_clip_stays_as_it_is():
    frames = noise(1, 2, 256, 256)
    assert torch.equal(square_crop(frames), frames.float())
    assert torch.equal(droid_crop(frames), frames.float())


@pytest.mark.parametrize("transform", [evaluation_transform, droid_crop, square_crop])
def test_batches_and_bad_input(transform):
    frames = noise(2, 3, 40, 70)
    together = transform(frames, 24)
    time = 2 if transform is evaluation_transform else 1
    alone = transform(frames[1:, 2:], 24)
    torch.testing.assert_close(alone, together[1:].narrow(time, 2, 1))
    with pytest.raises(TypeError, match="uint8"):
        transform(frames.float(), 24)
    with pytest.raises(ValueError, match="colours last"):
        transform(frames.movedim(-1, 2), 24)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        transform(frames, 0)
    with pytest.raises(ValueError, match="colours last"):
        normalise(frames[0])
