"""Networks: encoders of frames, predictors of latents, heads on them."""

from __future__ import annotations

from jepa_gym.models.ac_predictor import ActionConditionedPredictor
from jepa_gym.models.attentive import AnticipationHead, AttentiveClassifier, AttentivePooler
from jepa_gym.models.behaviour import BehaviourTransformer
from jepa_gym.models.conv_encoder import ConvEncoder, PerLocationBatchNorm
from jepa_gym.models.decoder import FrameDecoder
from jepa_gym.models.encoder import VideoTransformer
from jepa_gym.models.encoder_2_1 import VideoTransformer21
from jepa_gym.models.instruction import InstructionModel
from jepa_gym.models.inverse import InverseModel
from jepa_gym.models.kv_cache import KVCache
from jepa_gym.models.latent_policy import LatentPolicy
from jepa_gym.models.masked_predictor import MaskedPredictor
from jepa_gym.models.success import SuccessDetector

__all__ = [
    "ActionConditionedPredictor",
    "AnticipationHead",
    "AttentiveClassifier",
    "AttentivePooler",
    "BehaviourTransformer",
    "ConvEncoder",
    "FrameDecoder",
    "InstructionModel",
    "InverseModel",
    "KVCache",
    "LatentPolicy",
    "MaskedPredictor",
    "PerLocationBatchNorm",
    "SuccessDetector",
    "VideoTransformer",
    "VideoTransformer21",
]
