from __future__ import annotations

import numpy as np
import torch

from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.models import FrameDecoder
from jepa_gym.training.data.clips import Batch
from jepa_gym.training.recipes.pictures import features_clip, predicted_clip, principal_colours
from jepa_gym.world_model import WorldModel

SIZES = {"embed_dim": 16, "depth": 1, "num_heads": 1}


def clips() -> tuple[WorldModel, Batch]:
    torch.manual_seed(0)
    frame = FrameSpec(height=32, width=48, cameras=("left",))
    encoder = EncoderConfig(latent_dim=16, patch_size=16, **SIZES)
    model = WorldModel(WorldModelConfig(frame, encoder, PredictorConfig(**SIZES), train_frames=4))
    frames = torch.randint(256, (5, 4, 32, 48, 3), dtype=torch.uint8)
    return model.eval(), Batch(frames, torch.randn(5, 4, 7) / 9, torch.randn(5, 3, 7) / 9)


def test_colours_are_those_of_the_largest_components():
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(8, 8)).Q
    spread = torch.tensor([9.0, 3.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.1])
    points = torch.randn(4000, 8) * spread
    colours = principal_colours((points @ basis.T).view(40, 100, 8), points @ basis.T)
    assert colours.shape == (40, 100, 3) and colours.dtype == torch.uint8
    for axis in range(3):  # red is the first component, whatever its sign
        pair = torch.stack([colours.view(-1, 3)[:, axis].float(), points[:, axis]])
        assert torch.corrcoef(pair)[0, 1].abs() > 0.97
    assert (colours == 0).float().mean() < 0.02 > (colours == 255).float().mean()


def test_imagined_clips_start_with_what_was_seen():
    model, batch = clips()
    picture = predicted_clip(model, batch, None)
    assert picture.shape == (3 * 32, 4 * 48, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture[:32, 48:96], batch.frames[0, 1].numpy())
    encoded, imagined = picture[32:64], picture[64:]
    assert np.array_equal(encoded[:, :48], imagined[:, :48])
    assert not np.array_equal(encoded[:, 48:], imagined[:, 48:])
    assert np.array_equal(encoded[:16, :16], np.broadcast_to(encoded[0, 0], (16, 16, 3)))


def test_a_decoder_draws_what_is_imagined():
    model, batch = clips()
    decoder = FrameDecoder(model.config.grid, 16, 16, embed_dim=32, depth=1).eval()
    picture = predicted_clip(model, batch, decoder)
    drawn = decoder(model.encode(batch.frames[:1, 2:3])[:, 0])[0].detach()
    shown = torch.from_numpy(picture[32:64, 2 * 48 : 3 * 48]) / 255
    torch.testing.assert_close(shown, drawn, atol=0.5 / 255 + 1e-4, rtol=0)


def test_features_stand_below_their_frames():
    frames = torch.randint(256, (3, 4, 32, 48, 3), dtype=torch.uint8)
    picture = features_clip(frames, torch.randn(3, 2 * 2 * 3, 8), (2, 2, 3))
    assert picture.shape == (64, 2 * 48, 3)
    assert np.array_equal(picture[:32, 48:], frames[0, 2].numpy())
    assert np.array_equal(picture[32:48, :16], np.broadcast_to(picture[32, 0], (16, 16, 3)))
