"""Our modules against numbers of the published architecture."""

from __future__ import annotations

import pytest
import torch

from jepa_gym import poses
from jepa_gym.models import (
    ActionConditionedPredictor,
    AttentiveClassifier,
    MaskedPredictor,
    VideoTransformer,
)
from jepa_gym.models.rope import rotate, rotation
from jepa_gym.normalisation import layer_norm

TOLERANCE = 2e-4


def close(got, expected, tolerance=TOLERANCE):
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= tolerance


def test_rope_v2_numbers():
    # d = 4 of one axis at positions 1 and 3; the axis here is the first of three.
    x = torch.tensor([1.0, 2, 3, 4] + [0.0] * 8).reshape(1, 1, 1, 1, 12)
    expected = {1: (-1.1426, 2.0099, -1.7450, 4.0298), 3: (-1.2722, 2.0291, -3.5345, 4.0882)}
    for position, values in expected.items():
        by = rotation(torch.tensor([[position, 0, 0]]), 12, "v2")
        close(rotate(x, by).flatten()[:4], torch.tensor(values), 1e-4)


def test_rope_interleaved_is_a_rotation():
    x, y = torch.randn(2, 1, 1, 1, 1, 64)

    def dot(i, j):
        at = [rotation(torch.tensor([[p, 2 * p, 3]]), 64, "interleaved") for p in (i, j)]
        return (rotate(x, at[0]) * rotate(y, at[1])).sum()

    assert torch.isclose(dot(1, 3), dot(5, 7), atol=1e-4)
    assert torch.isclose(
        rotate(x, rotation(torch.tensor([[4, 5, 6]]), 64, "interleaved")).norm(),
        x.norm(),
        atol=1e-4,
    )


@pytest.mark.parametrize("name", ["encoder_head64", "encoder_head80"])
def test_encoder(golden, name):
    config, weights, data = golden(name)
    encoder = VideoTransformer(
        config["embed_dim"],
        config["depth"],
        config["num_heads"],
        patch_size=config["patch_size"],
        tubelet_size=config["tubelet_size"],
        mlp_ratio=config["mlp_ratio"],
        rope="v2",
    )
    encoder.load_state_dict(weights)
    with torch.inference_mode():
        close(encoder(data["video"]), data["features"])
        for mask in ("a", "b"):
            got = encoder(data["video"], data[f"mask_{mask}"])
            close(got, data[f"features_masked_{mask}"])
        close(encoder(data["small_video"]), data["small_features"])
        image = data["image"][:, :, None].expand(-1, -1, 2, -1, -1)
        close(encoder(image), data["image_features"])
        close(layer_norm(encoder(image)), data["image_features_layernorm"])


def test_masked_predictor(golden):
    config, weights, data = golden("masked_predictor")
    side = config["img_size"] // config["patch_size"]
    predictor = MaskedPredictor(
        (side, side),
        config["embed_dim"],
        config["predictor_embed_dim"],
        config["depth"],
        config["num_heads"],
        num_mask_tokens=config["num_mask_tokens"],
        rope="v2",
    )
    predictor.load_state_dict(weights)
    for index in range(4):
        got = predictor(data["context"], data["context_ids"], data["target_ids"], index)
        close(got, data[f"prediction_mask_index_{index % 3}"])


def test_attentive_classifier(golden):
    config, weights, data = golden("attentive_classifier")
    classifier = AttentiveClassifier(
        config["embed_dim"], config["num_heads"], config["num_classes"], config["depth"]
    )
    classifier.load_state_dict(weights)
    close(classifier(data["tokens"]), data["logits"])
    with torch.inference_mode():
        close(classifier(data["tokens"][:1]), data["logits"][:1])


def ac_predictor(golden, name):
    config, weights, data = golden(name)
    side = config["img_size"] // config["patch_size"]
    predictor = ActionConditionedPredictor(
        (side, side),
        config["embed_dim"],
        config["predictor_embed_dim"],
        config["depth"],
        config["num_heads"],
        rope="v2",
        use_extrinsics=config["use_extrinsics"],
        action_dim=config["action_embed_dim"],
    )
    predictor.load_state_dict(weights)
    return predictor.requires_grad_(False), data


@pytest.mark.parametrize("name", ["ac_predictor_plain", "ac_predictor_extrinsics"])
def test_ac_predictor(golden, name):
    predictor, data = ac_predictor(golden, name)
    given = (data["actions"], data["states"], data.get("extrinsics"))
    close(predictor(data["latents"], *given), data["prediction"])
    frames = data["latents"].unflatten(1, (data["actions"].shape[1], -1))
    close(predictor(frames, *given).flatten(1, 2), data["prediction"])


@pytest.mark.parametrize("name", ["ac_predictor_plain", "ac_predictor_extrinsics"])
def test_ac_rollout(golden, name):
    """The published roll-out: one start frame, states by composition, every output layer-normed."""
    predictor, data = ac_predictor(golden, name)
    extrinsics, expected = data.get("extrinsics"), data["rollout_latents"]
    state = data["rollout_state0"]
    current = layer_norm(data["latents"].unflatten(1, (data["actions"].shape[1], -1))[:, :1])
    cache, states = predictor.start_cache(current[:, :0], state[:, :0], state[:, :0]), [state]
    for step in range(expected.shape[1]):
        action = data["actions"][:, step : step + 1]
        pose = None if extrinsics is None else extrinsics[:, step : step + 1]
        current, cache = predictor.decode(current, action, states[-1], cache, pose)
        current = layer_norm(current)
        states.append(poses.compose(states[-1], action))
        close(current, expected[:, step : step + 1])
    close(torch.cat(states, 1), data["rollout_states"])


def test_poses(golden):
    _, _, data = golden("poses")
    assert data["start"].dtype == torch.float64
    close(poses.difference(data["start"], data["end"]), data["difference"], 1e-9)
    close(poses.compose(data["start"], data["action"]), data["composed"], 1e-9)
