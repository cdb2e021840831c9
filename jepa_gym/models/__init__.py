"""Networks: encoders of frames, predictors of latents."""

from __future__ import annotations

from jepa_gym.models.ac_predictor import ActionConditionedPredictor, FrameCache
from jepa_gym.models.conv_encoder import ConvEncoder, PerLocationBatchNorm
from jepa_gym.models.encoder import VideoTransformer
from jepa_gym.models.masked_predictor import MaskedPredictor

__all__ = [
    "ActionConditionedPredictor",
    "ConvEncoder",
    "FrameCache",
    "MaskedPredictor",
    "PerLocationBatchNorm",
    "VideoTransformer",
]
