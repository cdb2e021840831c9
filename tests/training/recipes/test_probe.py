"""Probes end to end at toy size: labels, heads, figures, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jepa_gym.checkpoint.probe import Probe, ProbeSpec
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig
from jepa_gym.envs.tasks.grasp import FrankaGraspEnv
from jepa_gym.training.data.dataset import Dataset, split_of, write_index
from jepa_gym.training.data.episodes import write_episode
from jepa_gym.training.recipes import pretrain, probe
from jepa_gym.training.recipes.finish import model_config
from jepa_gym.training.recipes.probe_figures import Reading, classification, difference, regression
from jepa_gym.training.recipes.probe_models import ClipEncoder, open_probed, weights_hash
from jepa_gym.training.recipes.probe_run import focal_loss
from jepa_gym.training.recipes.probe_targets import ACTIONS, DIRECTIONS, TARGETS, Track
from jepa_gym.world_model import WorldModel

from ..conftest import INDEX, make_episode

SIZES = {"embed_dim": 16, "depth": 1, "num_heads": 2}
VIT = EncoderConfig(kind="vit", latent_dim=16, patch_size=8, **SIZES)
CONV = EncoderConfig(latent_dim=16, patch_size=8, **SIZES)
KINDS = ("random", "expert")
FRAME = FrameSpec(height=16, width=32, cameras=("left", "wrist"))


def labelled_dataset(folder: Path) -> Path:
    """Episodes with an object, which stands on the table until it hangs in the hand."""
    ids = [f"{number:06d}" for number in range(2000)]
    for split, count in (("train", 16), ("validation", 8), ("test", 8)):
        for number, name in enumerate([i for i in ids if split_of(i) == split][:count]):
            episode = make_episode(int(name))
            state = np.zeros((12, 20))
            state[:, 10:13] = episode.states[:, :3] + [0.0, 0.0, -0.05]
            episode.sim_state = state
            episode.metadata |= {
                "object": ("box", "cup")[number % 2],
                "kind": KINDS[number // 2 % 2],
            }
            write_episode(folder / "episodes" / name, episode)
    write_index(folder, INDEX)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return labelled_dataset(tmp_path_factory.mktemp("probe") / "data")


@pytest.fixture(scope="module")
def encoder(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    shared = {"data": data, "steps": 2, "batch_size": 4, "threads": 1, "device": "cpu"}
    pretrain.train(
        pretrain.PretrainConfig(
            output=folder, frames=4, encoder=VIT, predictor=PredictorConfig(**SIZES), **shared
        )
    )
    return folder


def config(data: Path, output: Path, **changes) -> probe.ProbeConfig:
    fields = {
        "data": data,
        "output": output,
        "model": "random",
        "steps": 4,
        "batch_size": 8,
        "clips": 60,
        "tested": 30,
        "rates": (1.0, 0.1),
        "decays": (1.0,),
        "threads": 1,
        "device": "cpu",
    }
    return probe.ProbeConfig(**fields | changes)


def figures(folder: Path) -> dict:
    return json.loads((folder / "probe.json").read_text())


# ---- labels


def track(places: list, objects: list, closedness: list) -> Track:
    states = np.zeros((len(places), 7))
    states[:, :3], states[:, 6] = places, closedness
    return Track(states, {"object": "box"}, np.array(objects, float), Path("episode"))


def test_actions_are_told_from_hand_and_object():
    rest = [0.5, 0.0, 0.03]
    held = [[0.5, 0.0, 0.10], [0.56, 0.0, 0.10], [0.56, 0.0, 0.05]]
    places = [[0.4, 0.2, 0.2], [0.45, 0.1, 0.2], [0.45, 0.1, 0.2], [0.5, 0.0, 0.2], [0.5, 0, 0.03]]
    places += [[0.5, 0.0, 0.03], [0.5, 0, 0.1], [0.56, 0, 0.1], [0.56, 0, 0.05], [0.56, 0, 0.03]]
    places += [[0.5, 0.15, 0.03]]
    objects = [rest] * 6 + held + [[0.56, 0.0, 0.03]] * 2
    told = track(places, objects, [0.0] * 5 + [0.5] * 4 + [0.0] * 2).actions()
    assert [ACTIONS[n] for n in told] == [
        *("approach", "hold still", "approach", "descend", "close", "lift", "carry", "lower"),
        *("open", "retreat"),
    ]


def test_directions_are_those_of_the_base_frame():
    steps = {"forward": (1, 0, 0), "back": (-1, 0, 0), "left": (0, 1, 0), "right": (0, -1, 0)}
    steps |= {"up": (0, 0, 1), "down": (0, 0, -1), "still": (0.05, 0, 0)}
    for name, step in steps.items():
        moved = track([(0, 0, 0), 0.05 * np.array(step)], [(0, 0, 0)] * 2, [0, 0])
        assert DIRECTIONS[moved.direction(0, 1)] == name


def test_the_object_is_where_the_simulator_has_it():
    env = FrankaGraspEnv(obs_mode="state", obj="cup")
    try:
        env.reset(seed=3)
        state = env.stage.physics()
        before = Track(np.zeros((1, 7)), {"object": "cup"}, state[None, 10:13], Path("x"))
        assert np.allclose(before.object_positions()[0], env.object_position())
        assert not before.held()[0]
        env.simulate_grasp()
        env.carry(env.arm.state()[:3] + [0, 0, 0.1])
        state = env.stage.physics()
        after = Track(env.arm.state()[None], {"object": "cup"}, state[None, 10:13], Path("x"))
        assert env.object_held() and after.held()[0]
    finally:
        env.close()


def test_what_was_not_recorded_is_named(data):
    folder = sorted((data / "episodes").iterdir())[0]
    seen = Track.read(folder, np.zeros((12, 7)))
    assert seen.objects is not None and seen.told("object") == "box"
    assert Track.read(folder, np.zeros((11, 7))).objects is None  # other frames
    assert Track.read(data / "nothing", np.zeros((12, 7))).metadata == {}
    blind = replace(seen, objects=None)
    with pytest.raises(ValueError, match=r"no simulator state.*`hand`"):
        TARGETS["object"].label(blind, 0, 0)
    assert len(list(TARGETS["hand"].label(blind, 0, 0))) == 3
    with pytest.raises(ValueError, match="do not tell `object`"):
        replace(blind, metadata={}).told("object")


# ---- figures


def test_classification_figures_and_their_intervals():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(7), 30)
    said = np.eye(7)[truth] + 0.01 * rng.random((210, 7))
    wrong = rng.choice(210, 42, replace=False)
    said[wrong] = np.eye(7)[(truth[wrong] + 1) % 7]
    found = classification(Reading(truth, said, np.arange(210)), list("abcdefg"))
    assert found["top1"]["value"] == 80.0 and found["most_frequent"] == pytest.approx(100 / 7, 0.01)
    low, high = found["top1"]["interval"]
    wilson = found["top1"]["wilson"]
    assert abs(low - wilson[0]) < 1.5 and abs(high - wilson[1]) < 1.5  # one clip per recording
    assert found["class_mean"]["value"] == pytest.approx(80, abs=0.01)
    assert 80 < found["recall_at_5"]["value"] <= 100
    few = classification(Reading(truth, said, np.arange(210) % 6), list("abcdefg"))
    assert few["recordings"] == 6


def test_recall_at_five_counts_every_class_alike():
    said = np.tile(np.arange(8.0)[::-1], (9, 1))  # classes 0 to 4 are always the likeliest
    truth = np.array([0] * 8 + [7])
    found = classification(Reading(truth, said, np.arange(9)), list("abcdefgh"))
    assert found["recall_at_5"]["value"] == 50.0


def test_differences_are_paired():
    truth = np.zeros(100, int)
    right, wrong = np.tile([1.0, 0.0], (100, 1)), np.tile([0.0, 1.0], (100, 1))
    mixed = np.where(np.arange(100)[:, None] < 30, wrong, right)
    groups = np.arange(100)
    gained = difference(Reading(truth, right, groups), Reading(truth, mixed, groups))
    assert gained["value"] == 30.0 and 18 < gained["interval"][0] < 30 < gained["interval"][1] < 42


def test_regression_figures():
    truth = np.random.default_rng(0).normal(size=(50, 3))
    found = regression(Reading(truth, truth + [0.6, 0, 0.8], np.arange(50)), "cm")
    assert found["mean_distance"] == {"value": 1.0, "interval": [1.0, 1.0]}
    assert found["mean_guess"] > 1


def test_focal_loss_forgives_what_is_certain():
    labels = torch.tensor([0])
    sure, unsure = (focal_loss(torch.tensor([[x, -x]]), labels) for x in (6.0, 0.0))
    assert sure < 1e-5
    assert unsure.item() == pytest.approx((0.25 + 0.75) * 0.25 * np.log(2), rel=1e-5)


# ---- runs


@pytest.mark.parametrize("head", ["attentive", "linear"])
def test_a_finished_probe_says_the_same_when_it_is_loaded(data, encoder, tmp_path, head):
    run = config(data, tmp_path, model=str(encoder), probe=head, depth=2)
    probe.train(run)
    found = figures(tmp_path)
    assert set(found["test"]["label"]) >= {"top1", "class_mean", "recall_at_5", "most_frequent"}
    assert set(found["errors on validation clips"]) == {
        "lr 0.003, decay 0.1",
        "lr 0.0003, decay 0.1",
    }
    loaded = Probe.from_pretrained(tmp_path)
    assert loaded.spec.outputs == {"label": ACTIONS} and loaded.spec.frames == 4
    clips = probe.suite_data(run).examples["test"].frames(range(30))
    tokens = open_probed(str(encoder), FRAME)(torch.from_numpy(clips))
    with np.load(tmp_path / "readings.npz") as said:
        told = [ACTIONS[n] for n in said["label said"].argmax(1)]
    same = np.mean([a == b for a, b in zip(loaded.predict(tokens)["label"], told, strict=True)])
    assert same > 0.9  # the run read float16 tokens in bfloat16
    with Image.open(tmp_path / "probe.png") as picture:
        assert min(picture.size) > 500


def test_a_linear_probe_of_a_random_encoder_finds_what_the_pictures_show(data, tmp_path):
    run = config(
        data, tmp_path, target="hand", probe="linear", steps=300, clips=150, learning_rate=1e-2
    )
    probe.train(run)
    found = figures(tmp_path)["test"]["value"]
    assert found["mean_distance"]["value"] < 0.6 * found["mean_guess"]
    assert found["unit"] == "cm"
    loaded = Probe.from_pretrained(tmp_path)
    assert loaded.predict(torch.zeros(1, loaded.spec.tokens, 192))["value"].shape == (1, 3)


def test_world_models_are_probed_frame_by_frame(data, tmp_path):
    dataset = Dataset.open(data)
    torch.manual_seed(0)
    settings = model_config(
        dataset, dataset.load_arrays("train"), CONV, PredictorConfig(**SIZES), 4
    )
    WorldModel(settings).save_pretrained(tmp_path / "model", {})
    run = config(data, tmp_path / "run", model=str(tmp_path / "model"), target="direction")
    probe.train(run)
    assert Probe.from_pretrained(tmp_path / "run").spec.tokens == 4 * 8


def test_anticipation_sees_the_predicted_future(data, encoder, tmp_path):
    run = config(data, tmp_path, model=str(encoder), target="anticipation", behaviours=("expert",))
    probe.train(run)
    spec = Probe.from_pretrained(tmp_path).spec
    assert spec.tokens == (2 + 1) * 8  # two tubelets, and the one a second later
    assert list(spec.outputs) == ["verb", "noun", "action"] and spec.outputs["noun"] == (
        "box",
        "cup",
    )
    assert set(figures(tmp_path)["test"]) == {"verb", "noun", "action"}


def test_the_future_is_predicted_where_it_is(encoder):
    model = open_probed(str(encoder), FRAME)
    assert isinstance(model, ClipEncoder) and model.predictor is not None
    frames = torch.randint(0, 255, (1, 4, 16, 32, 3), dtype=torch.uint8)
    near, far = model(frames, ahead=0), model(frames, ahead=4)
    assert torch.equal(near[:, :16], far[:, :16]) and near.shape == far.shape == (1, 24, 16)
    assert not torch.allclose(near[:, 16:], far[:, 16:])
    ids = torch.arange(16)[None]
    asked = model.predictor(model(frames), ids, 32 + torch.arange(8)[None], 1)
    assert torch.equal(far[:, 16:], asked)


def test_held_out_objects_are_tested_and_never_trained_on(data, tmp_path):
    run = config(data, tmp_path, target="held", held_out_objects=("cup",), tested=500, clips=500)
    made = probe.suite_data(run)
    objects = {
        split: {
            json.loads(next((data / "episodes" / name).glob("metadata*")).read_text())["object"]
            for name in examples.groups
        }
        for split, examples in made.examples.items()
    }
    assert objects == {"train": {"box"}, "validation": {"box"}, "test": {"cup"}}
    with pytest.raises(ValueError, match=r"none of the classes.*cup.*`action`"):
        probe.suite_data(replace(run, target="object-kind"))
    anticipated = probe.suite_data(replace(run, target="anticipation")).examples["test"].labels
    assert (anticipated["noun"] == -1).all() and (anticipated["verb"] >= 0).all()
    with pytest.raises(ValueError, match="no episode of the train split"):
        probe.suite_data(replace(run, held_out_objects=("box", "cup")))


def test_finetuning_moves_the_encoder_and_keeps_it(data, encoder, tmp_path):
    run = config(
        data, tmp_path, model=str(encoder), target="held", finetune=True, rates=(1.0,), clips=20
    )
    probe.train(run)
    before = open_probed(str(encoder), FRAME)
    tensors = pretrain.read_safetensors(tmp_path / "finetuned_encoder.safetensors")[0]
    after = open_probed(str(encoder), FRAME)
    after.load_state_dict(tensors)
    assert weights_hash(before.encoder) != weights_hash(after.encoder)
    with pytest.raises(ValueError, match="one head"):
        config(data, tmp_path, finetune=True)


def test_two_probes_are_compared_on_the_same_clips(data, encoder, tmp_path):
    probe.train(config(data, tmp_path / "random", target="held"))
    run = config(data, tmp_path / "other", model=str(encoder), target="held")
    probe.train(replace(run, against=tmp_path / "random"))
    gained = figures(tmp_path / "other")["difference"]["label"]
    tops = [figures(tmp_path / x)["test"]["label"]["top1"]["value"] for x in ("other", "random")]
    assert gained["value"] == pytest.approx(tops[0] - tops[1], abs=0.01)
    with pytest.raises(ValueError, match="other clips"):
        probe.train(replace(run, against=tmp_path / "random", seed=1, output=tmp_path / "seed"))
    with pytest.raises(FileNotFoundError, match="finished probe"):
        probe.train(replace(run, against=tmp_path, output=tmp_path / "nothing"))


def test_random_encoders_have_the_sizes_and_nothing_else(encoder):
    trained, untrained = open_probed(str(encoder), FRAME), open_probed(f"random:{encoder}", FRAME)
    ours, theirs = trained.state_dict(), untrained.state_dict()
    assert {n: x.shape for n, x in ours.items()} == {n: x.shape for n, x in theirs.items()}
    matrices = [name for name, x in ours.items() if x.ndim > 1 and "mask" not in name]
    assert not any(torch.equal(ours[name], theirs[name]) for name in matrices)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "changes",
    [
        {"target": "anticipation"},
        {"target": "hand", "probe": "linear"},
        {"target": "held", "finetune": True, "rates": (1.0,)},
    ],
)
def test_probes_on_a_gpu(data, encoder, tmp_path, changes):
    probe.train(config(data, tmp_path, model=str(encoder), device="cuda", **changes))
    assert figures(tmp_path)["test"]


def test_mistakes_are_named(data, tmp_path):
    for changes, words in (
        ({"target": "hans"}, "Did you mean `hand`"),
        ({"probe": "atentive"}, "Did you mean `attentive`"),
        ({"rates": ()}, "different numbers"),
        ({"target": "anticipation", "probe": "linear"}, "three queries"),
        ({"tested": 0}, "positive"),
    ):
        with pytest.raises(ValueError, match=words):
            config(data, tmp_path, **changes)
    with pytest.raises(ValueError, match="lower --frames"):
        probe.suite_data(config(data, tmp_path, target="anticipation", frames=10))
    with pytest.raises(FileNotFoundError, match="no model 'nothing'"):
        probe.train(config(data, tmp_path / "x", model="nothing"))
    with pytest.raises(ValueError, match="three queries"):
        ProbeSpec("x", {"verb": ("a",), "noun": ("b",), "action": ("c",)}, 4, 16, "linear")
