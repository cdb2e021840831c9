"""Post-training: fine-tuning of world models, from pixels, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jepa_gym.checkpoint import export
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.recipes import posttrain
from jepa_gym.training.recipes.augmentations import Augmentations
from jepa_gym.world_model import WorldModel

SIZES = {"embed_dim": 64, "depth": 1, "num_heads": 1, "rope": "v2"}
PREDICTOR = PredictorConfig(**SIZES)


@pytest.fixture
def official(tmp_path) -> Path:
    """A file with the names of V-JEPA 2-AC; patches of 8, so that they divide the test's data."""
    torch.manual_seed(0)
    model = WorldModel(
        WorldModelConfig(
            frame=FrameSpec(64, 64, ("droid",), state_convention="droid"),
            encoder=EncoderConfig(kind="vit", latent_dim=64, patch_size=8, **SIZES),
            predictor=PREDICTOR,
            action_scale=(1.0,) * 7,
        )
    ).eval()
    export.world_model(tmp_path / "exported", model)
    return tmp_path / "exported" / "vjepa2-ac.pt"


def config(data: Path, output: Path, **changes) -> posttrain.PosttrainConfig:
    fields = {"steps": 4, "batch_size": 4, "threads": 1, "bf16": False, "learning_rate": 1e-3}
    return posttrain.PosttrainConfig(data=data, output=output, **fields | changes)


@pytest.mark.parametrize("from_pixels", [False, True])
def test_an_official_model_is_fine_tuned_on_a_users_data(
    official, dataset_folder, tmp_path, from_pixels
):
    before = WorldModel.from_pretrained(official)
    run = config(dataset_folder, tmp_path / "run", init=str(official), from_pixels=from_pixels)
    posttrain.train(run)
    after = WorldModel.from_pretrained(run.output)
    index = Dataset.open(dataset_folder).index
    assert after.config.frame.cameras == tuple(index["cameras"])
    assert after.config.frame.width == 2 * index["image_size"]
    for name in ("state_mean", "state_std", "action_scale", "encoder", "predictor"):
        assert getattr(after.config, name) == getattr(before.config, name), name
    ours, theirs = after.state_dict(), before.state_dict()
    moved = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert "predictor.predictor_proj.weight" in moved
    assert not any(name.startswith("encoder.") or "extrinsics" in name for name in moved)
    assert f"fine-tuning of {official}" in (run.output / "README.md").read_text()


def test_other_sizes_and_other_weights_are_refused(official, dataset_folder, tmp_path):
    run = config(dataset_folder, tmp_path / "run", init=str(official))
    with pytest.raises(ValueError, match="leave --predictor out"):
        posttrain.train(replace(run, predictor=replace(PREDICTOR, depth=2)))
    posttrain.train(run)
    model = WorldModel.from_pretrained(official)
    with torch.no_grad():
        model.predictor.predictor_proj.bias.add_(1)
    model.save_pretrained(tmp_path / "other", {})
    with pytest.raises(ValueError, match="content of init is another"):
        posttrain.train(replace(run, init=str(tmp_path / "other")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "either `encoder`"),
        ({"encoder": "e", "init": "i"}, "either `encoder`"),
        ({"encoder": "e", "augment": Augmentations(colour=0.2)}, "--from-pixels"),
        ({"encoder": "e", "rollout_steps": 4}, "less than `frames`"),
    ],
)
def test_what_does_not_go_together(changes, message):
    with pytest.raises(ValueError, match=message):
        config(Path("d"), Path("o"), **changes)
