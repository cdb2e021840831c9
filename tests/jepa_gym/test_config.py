from __future__ import annotations

import json

import pytest

from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig


def test_round_trip_through_json():
    config = WorldModelConfig(success_energy=0.3, state_mean=(0.1,) * 7)
    assert WorldModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_defaults_fit_together():
    config = WorldModelConfig()
    assert config.grid == (4, 8) and config.num_tokens == 32
    assert config.action_bounds == (0.075, 0.075, 0.075, 0.3, 0.3, 0.3, 1.0)


def test_unknown_and_missing_keys_are_named():
    values = WorldModelConfig().to_dict()
    values["encoder"]["colour"] = values["encoder"].pop("depth")
    with pytest.raises(ValueError, match=r"`encoder` has missing keys \['depth'\].*\['colour'\]"):
        WorldModelConfig.from_dict(values)
    with pytest.raises(ValueError, match="must be a mapping"):
        WorldModelConfig.from_dict([])


def test_names_of_earlier_versions_are_understood():
    config = WorldModelConfig(encoder=EncoderConfig(embed_dim=96, num_heads=4, patch_size=64))
    values = config.to_dict()
    for part in ("encoder", "predictor"):
        for earlier, name in (("width", "embed_dim"), ("heads", "num_heads")):
            values[part][earlier] = values[part].pop(name)
    values["encoder"]["patch"] = values["encoder"].pop("patch_size")
    assert WorldModelConfig.from_dict(values) == config


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EncoderConfig(kind="cnn"), "must be one of"),
        (lambda: EncoderConfig(rope="v3"), "must be one of"),
        (lambda: EncoderConfig(embed_dim=100), "heads"),
        (lambda: EncoderConfig(patch_size=24), "power of two"),
        (lambda: EncoderConfig(kind="vit"), "must equal"),
        (lambda: PredictorConfig(depth=0), "at least 1"),
        (lambda: FrameSpec(step_s=0), "positive"),
        (lambda: FrameSpec(cameras=()), "at least one"),
        (lambda: FrameSpec(state_convention="flange"), "'hand', 'droid'"),
        (lambda: WorldModelConfig(frame=FrameSpec(height=100)), "multiple"),
        (lambda: WorldModelConfig(state_std=(0.0,) * 7), "positive"),
        (lambda: WorldModelConfig(state_mean=(0.0,) * 6), "7 numbers"),
    ],
)
def test_bad_values_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
