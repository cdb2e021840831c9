"""Post-training: fine-tuning of world models, from pixels, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_gym.checkpoint import export
from jepa_gym.checkpoint.safetensors_file import write_safetensors
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.training.data.dataset import Dataset, split_of, write_index
from jepa_gym.training.data.episodes import write_episode
from jepa_gym.training.recipes import posttrain
from jepa_gym.training.recipes.augmentations import Augmentations
from jepa_gym.training.recipes.posttrain_start import camera_poses
from jepa_gym.training.recipes.pretrain import ENCODER_NAME
from jepa_gym.world_model import WorldModel

from ..conftest import INDEX, SIZE, make_episode

SIZES = {"embed_dim": 64, "depth": 1, "num_heads": 1, "rope": "v2"}
PREDICTOR = PredictorConfig(**SIZES)


@pytest.fixture
def official(tmp_path) -> Path:
    """A file with the names of V-JEPA 2-AC; patches of 8, so that they divide the test's data."""
    torch.manual_seed(0)
    model = WorldModel(
        WorldModelConfig(
            frame=FrameSpec(24, 24, ("droid",), state_convention="droid"),
            encoder=EncoderConfig(kind="vit", latent_dim=64, patch_size=8, **SIZES),
            predictor=PREDICTOR,
            action_scale=(1.0,) * 7,
        )
    ).eval()
    export.world_model(tmp_path / "exported", model)
    return tmp_path / "exported" / "vjepa2-ac.pt"


def episode_names(counts: dict[str, int]) -> list[str]:
    """Names of episodes, so many of each split."""
    names = [f"{number:06d}" for number in range(1000)]
    return [
        name
        for split, count in counts.items()
        for name in [n for n in names if split_of(n) == split][:count]
    ]


def config(data: Path, output: Path, **changes) -> posttrain.PosttrainConfig:
    fields = {"steps": 4, "batch_size": 4, "threads": 1, "bf16": False, "learning_rate": 1e-3}
    return posttrain.PosttrainConfig(data=data, output=output, **fields | changes)


@pytest.mark.parametrize(("from_pixels", "image_size"), [(False, None), (True, 16)])
def test_an_official_model_is_fine_tuned_on_a_users_data(
    official, dataset_folder, tmp_path, from_pixels, image_size
):
    """At the size of its own pictures, if no other is asked for."""
    folder = official.parent
    before = WorldModel.from_pretrained(folder)
    run = config(
        dataset_folder,
        tmp_path / "run",
        init=str(folder),
        from_pixels=from_pixels,
        image_size=image_size,
    )
    posttrain.train(run)
    after = WorldModel.from_pretrained(run.output)
    index = Dataset.open(dataset_folder).index
    assert after.config.frame.cameras == tuple(index["cameras"])
    assert after.config.frame.height == (image_size or before.config.frame.height)
    assert after.config.frame.width == 2 * after.config.frame.height
    for name in ("state_mean", "state_std", "action_scale", "encoder", "predictor"):
        assert getattr(after.config, name) == getattr(before.config, name), name
    ours, theirs = after.state_dict(), before.state_dict()
    moved = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert "predictor.predictor_proj.weight" in moved
    assert not any(name.startswith("encoder.") or "extrinsics" in name for name in moved)
    assert f"fine-tuning of {folder}" in (run.output / "README.md").read_text()


def test_other_sizes_and_other_weights_are_refused(official, dataset_folder, tmp_path):
    run = config(dataset_folder, tmp_path / "run", init=str(official), image_size=16)
    with pytest.raises(ValueError, match="leave --predictor out"):
        posttrain.train(replace(run, predictor=replace(PREDICTOR, depth=2)))
    posttrain.train(run)
    model = WorldModel.from_pretrained(official)
    with torch.no_grad():
        model.predictor.predictor_proj.bias.add_(1)
    model.save_pretrained(tmp_path / "other", {})
    with pytest.raises(ValueError, match="content of init is another"):
        posttrain.train(replace(run, init=str(tmp_path / "other")))


def test_a_predictor_may_use_the_cameras_pose(tmp_path):
    """Each clip's own in training, the mean one where none is told."""
    for number, name in enumerate(episode_names({"train": 3, "validation": 3})):
        episode = make_episode(number)
        for camera in episode.extrinsics:
            pose = [0.1 * number, 0, 0.5, 3.0 if number % 2 else -3.0, 0, camera == "wrist"]
            episode.extrinsics[camera] = np.tile(np.array(pose, float), (12, 1))
        write_episode(tmp_path / "data" / "episodes" / name, episode)
    write_index(tmp_path / "data", INDEX)
    dataset = Dataset.open(tmp_path / "data")
    arrays = dataset.load_arrays("train")
    pretrained = WorldModel(
        WorldModelConfig(
            frame=FrameSpec(SIZE, 2 * SIZE),
            encoder=EncoderConfig(kind="vit", latent_dim=64, patch_size=8, **SIZES),
        )
    )
    (tmp_path / "encoder").mkdir()
    metadata = {"config": json.dumps(pretrained.config.to_dict())}
    path = tmp_path / "encoder" / ENCODER_NAME
    write_safetensors(path, pretrained.encoder.state_dict(), metadata)
    run = config(
        tmp_path / "data",
        tmp_path / "run",
        encoder=str(path.parent),
        predictor=replace(PREDICTOR, use_extrinsics=True),
    )
    posttrain.train(run)
    model = WorldModel.from_pretrained(run.output)
    weight = model.predictor.extrinsics_encoder.weight
    torch.manual_seed(run.seed)
    fresh = WorldModel(model.config).predictor.extrinsics_encoder.weight
    assert not torch.equal(weight, fresh)
    pose = model.config.camera_pose
    assert pose[0] == pytest.approx(arrays.extrinsics[:, :, 0, 0].mean(), abs=1e-6)
    assert abs(pose[3]) > 3 and pose[5] == 0, "the mean of angles about pi, of the first camera"
    with pytest.raises(ValueError, match="not recorded in every episode"):
        camera_poses(run, replace(arrays, extrinsics=None))


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
