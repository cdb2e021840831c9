"""Absolute positions of V-JEPA 1: the published formula, and what becomes of other inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from jepa_gym.config import EncoderConfig, PredictorConfig, WorldModelConfig
from jepa_gym.models import MaskedPredictor, VideoTransformer
from jepa_gym.models.sincos import sincos_embedding, sincos_table

CPU = torch.device("cpu")


@pytest.mark.parametrize("width", [24, 32, 384])
def test_the_table_is_the_published_one(width):
    """Thirds of the channels for time, row and column, sines before cosines, the end cut off."""
    grid = (3, 4, 5)
    each = 2 * math.ceil(width / 6)
    expected = np.zeros((*grid, 3 * each))
    for place in np.ndindex(grid):
        for axis in range(3):
            for i in range(each // 2):
                angle = place[axis] / 10000 ** (i / (each / 2))
                expected[*place, axis * each + i] = math.sin(angle)
                expected[*place, axis * each + each // 2 + i] = math.cos(angle)
    expected = expected.reshape(-1, 3 * each)[:, :width]
    table = sincos_table(grid, width, CPU)
    np.testing.assert_allclose(table.numpy(), expected, atol=1e-6)
    positions = torch.tensor([[1, 2, 3], [2, 0, 4]])
    rows = [1 * 20 + 2 * 5 + 3, 2 * 20 + 4]
    assert torch.equal(sincos_embedding(positions, width), table[rows])


def test_other_inputs_get_the_interpolated_table():
    trained = sincos_table((8, 2, 2), 24, CPU).view(8, 4, 24)
    one = sincos_table((1, 2, 2), 24, CPU, (8, 2, 2))
    torch.testing.assert_close(one, (trained[3] + trained[4]) / 2)
    larger = sincos_table((8, 4, 4), 24, CPU, (8, 2, 2)).view(8, 4, 4, 24)
    torch.testing.assert_close(larger[:, 0, 0], trained[:, 0])
    assert torch.equal(sincos_table((8, 2, 2), 24, CPU, (8, 2, 2)), trained.flatten(0, 1))


def test_the_encoder_adds_them_and_rotates_nothing():
    torch.manual_seed(0)
    encoder = VideoTransformer(24, 2, 2, patch_size=8, rope="sincos").eval()
    video = torch.randn(2, 3, 4, 16, 24)
    with torch.no_grad():
        x = encoder.patch_embed(video).flatten(2).transpose(1, 2)
        x = x + sincos_table((2, 2, 3), 24, CPU)
        for block in encoder.blocks:
            x = block(x, None)
        torch.testing.assert_close(encoder(video), encoder.norm(x))
        ids = torch.tensor([[0, 5, 7], [1, 2, 11]])
        assert encoder(video, ids).shape == (2, 3, 24)


def test_the_masked_predictor_adds_them_to_what_is_seen_and_to_what_is_asked():
    torch.manual_seed(0)
    predictor = MaskedPredictor((2, 3), 16, 24, 1, 2, num_mask_tokens=2, rope="sincos").eval()
    for token in predictor.mask_tokens:
        token.data.normal_()
    seen, asked = torch.tensor([[0, 7]]), torch.tensor([[3, 11]])
    context, table = torch.randn(1, 2, 16), sincos_table((2, 2, 3), 24, CPU)
    with torch.no_grad():
        x = torch.cat(
            [predictor.predictor_embed(context)[0], predictor.mask_tokens[1][0].expand(2, -1)]
        )
        x = predictor.predictor_blocks[0]((x + table[[0, 7, 3, 11]])[None], None)
        expected = predictor.predictor_proj(predictor.predictor_norm(x[:, 2:]))
        torch.testing.assert_close(predictor(context, seen, asked, mask_index=1), expected)


def test_only_where_there_are_absolute_positions():
    with pytest.raises(ValueError, match="kind='vit'"):
        EncoderConfig(kind="conv", rope="sincos")
    with pytest.raises(ValueError, match="must be rotary"):
        WorldModelConfig(predictor=PredictorConfig(rope="sincos"))
