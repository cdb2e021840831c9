"""Surprise: errors against those computed by hand, usual errors, and the command."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from einops import rearrange

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.safetensors_file import read_safetensors, write_safetensors
from jepa_gym.cli import main
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.normalisation import layer_norm
from jepa_gym.poses import difference
from jepa_gym.training.data.videos import write_video
from jepa_gym.training.recipes import pretrain, surprise
from jepa_gym.training.recipes.masked_model import MaskedModel
from jepa_gym.training.recipes.surprise import Errors, UsualErrors, frame_surprise, open_watcher
from jepa_gym.world_model import WorldModel

from ..conftest import SIZE, make_dataset, make_episode

VIT = EncoderConfig(kind="vit", embed_dim=16, depth=1, num_heads=1, latent_dim=16, patch_size=8)
PREDICTOR = PredictorConfig(embed_dim=16, depth=1, num_heads=1)
FRAME = FrameSpec(height=SIZE, width=2 * SIZE)


@pytest.fixture(scope="module")
def world_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    config = WorldModelConfig(frame=FRAME, encoder=VIT, predictor=PREDICTOR)
    WorldModel(config).eval().save_pretrained(folder, {})
    return folder


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked")
    torch.manual_seed(0)
    config = WorldModelConfig(frame=FRAME, encoder=VIT, train_frames=6)
    model = MaskedModel(WorldModel(config), PREDICTOR, 6)
    told = {"config": json.dumps(config.to_dict())}
    write_safetensors(folder / pretrain.ENCODER_NAME, model.encoder.state_dict(), told)
    told |= {"predictor": json.dumps(asdict(PREDICTOR))}
    write_safetensors(folder / pretrain.PREDICTOR_NAME, model.predictor.state_dict(), told)
    return folder


def clip(seed=0, steps=12):
    episode = make_episode(seed, steps)
    frames = np.concatenate([episode.frames["left"], episode.frames["wrist"]], axis=2)
    return frames, episode.states


def test_action_errors_are_those_of_one_step(world_model):
    watcher = open_watcher(world_model)
    frames, states = clip()
    errors = watcher.watch(frames, states)
    assert errors.first == 1 and errors.values.shape == (11, 8)
    model = WorldModel.from_pretrained(world_model)
    latents, exact = model.encode(frames[None]), torch.from_numpy(states)
    action = difference(exact[4], exact[5]).float()
    expected = model.predict(latents[:, 4:5], action[None, None], exact[None, 4:5].float())[0, 0]
    by_hand = (expected - latents[0, 5]).abs().mean(-1).detach().numpy()
    np.testing.assert_allclose(errors.values[4], by_hand, rtol=1e-4, atol=1e-6)


def test_masked_errors_are_of_the_last_tubelet(masked):
    watcher = open_watcher(masked)
    frames, _ = clip()
    errors = watcher.watch(frames)
    assert errors.first == watcher.least_frames - 1 == 5 and errors.values.shape == (7, 8)
    model = watcher.model
    video = rearrange(
        model.normaliser.pixels(torch.from_numpy(frames[None, 3:9])), "b t y x c -> b c t y x"
    )
    with torch.no_grad():
        whole = layer_norm(model.target_encoder(video))[:, 16:]
        past, hidden = torch.arange(16)[None], torch.arange(16, 24)[None]
        predicted = model.predictor(model.target_encoder(video, past), past, hidden)
    by_hand = (predicted - whole).abs().mean(-1)[0].numpy()
    np.testing.assert_allclose(errors.values[8 - errors.first], by_hand, rtol=1e-4, atol=1e-6)


def test_a_change_is_an_error_where_and_when_it_is_seen(world_model, masked):
    for folder in (world_model, masked):
        watcher = open_watcher(folder)
        frames, states = clip()
        changed = frames.copy()
        changed[8:, :8, :8] = [0, 255, 0]  # the first token
        before, after = (watcher.watch(x, states) for x in (frames, changed))
        differ = np.abs(after.values - before.values).max(1) > 1e-6
        assert not differ[: 8 - before.first].any() and differ[8 - before.first]


def test_usual_errors_are_expected_by_token_and_situation():
    rng = np.random.default_rng(0)

    def errors(rows):
        situation = rng.normal(size=(rows, 3, 2)).astype(np.float32)
        noise = rng.normal(0, 0.1, (rows, 3))
        values = np.exp(situation[..., 0] + np.array([0.0, 1.0, 2.0]) + noise)
        return Errors(0, values.astype(np.float32), situation)

    usual = UsualErrors.fit([errors(200) for _ in range(5)])
    ordinary = errors(300)
    beyond = usual.beyond(ordinary)
    assert abs(beyond.mean()) < 0.1 and beyond.std() == pytest.approx(1, abs=0.1)
    strange = ordinary.values.copy()
    strange[7, 1] *= np.exp(1.0)  # ten times the usual spread
    shift = usual.beyond(Errors(0, strange, ordinary.situation)) - beyond
    assert shift[7, 1] == pytest.approx(10, rel=0.15) and np.count_nonzero(shift) == 1
    with pytest.raises(ValueError, match="more than 2 frames, got 2"):
        UsualErrors.fit([errors(2)])


def test_usual_errors_survive_saving(tmp_path):
    rng = np.random.default_rng(0)
    errors = Errors(0, rng.uniform(1, 2, (20, 3)), rng.normal(size=(20, 3, 2)))
    usual = UsualErrors.fit([errors])
    usual.save(tmp_path / "usual.npz")
    again = UsualErrors.load(tmp_path / "usual.npz")
    np.testing.assert_array_equal(again.beyond(errors), usual.beyond(errors))
    (tmp_path / "usual.npz").write_bytes(b"PK nonsense")
    with pytest.raises(ValueError, match="holds no usual errors"):
        UsualErrors.load(tmp_path / "usual.npz")
    other = Errors(0, np.ones((20, 4)), np.zeros((20, 4, 2)))
    with pytest.raises(ValueError, match="another model"):
        usual.beyond(other)


def test_a_frame_is_as_surprising_as_its_most_surprising_tokens():
    beyond = np.zeros((2, 100))
    beyond[1, :5] = 3.0  # an object
    np.testing.assert_allclose(frame_surprise(beyond), [0.0, 3.0])
    np.testing.assert_allclose(frame_surprise(np.array([[1.0, 2.0]])), [1.5])


def test_refuses_what_cannot_be_watched(world_model, masked, tmp_path):
    frames, _ = clip()
    with pytest.raises(ValueError, match="bare video"):
        open_watcher(world_model).watch(frames)
    with pytest.raises(ValueError, match="needs 6 frames"):
        open_watcher(masked).watch(frames[:5])
    tensors, metadata = read_safetensors(masked / pretrain.PREDICTOR_NAME)
    write_safetensors(tmp_path / pretrain.PREDICTOR_NAME, tensors, {"config": metadata["config"]})
    with pytest.raises(CheckpointError, match="lacks 'predictor'"):
        open_watcher(tmp_path)


# ---- the command


def run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["jepa-gym"])
    return main(["surprise", *map(str, words)])


def test_command_on_an_episode_and_on_a_video(
    world_model, masked, dataset_folder, tmp_path, monkeypatch
):
    episode = next(iter(sorted((dataset_folder / "episodes").iterdir())))
    out = tmp_path / "out"
    assert run(monkeypatch, episode, "--model", world_model, "--output", out) == 0
    told = json.loads((out / "surprise.json").read_text())
    assert told["prediction"] == "action-conditioned" and len(told["frames"]) == 11
    best = max(told["frames"], key=lambda frame: frame["surprise"])
    assert told["surprise"] == best["surprise"] and told["most_surprising_s"] == best["time_s"]
    assert (out / "surprise.png").read_bytes()[:4] == b"\x89PNG"
    video = tmp_path / "clip.mp4"  # of another size and rate
    write_video(video, np.repeat(np.repeat(clip()[0], 2, axis=0), 2, axis=1), 0.125)
    assert run(monkeypatch, video, "--model", masked, "--output", out) == 0
    told = json.loads((out / "surprise.json").read_text())
    assert told["prediction"] == "masked" and told["frames"][0]["time_s"] == pytest.approx(1.25)


def test_command_learns_what_is_usual(world_model, tmp_path, monkeypatch):
    data = make_dataset(tmp_path / "data", train=1, validation=6)
    episode = next(iter(sorted((data / "episodes").iterdir())))
    words = (episode, "--model", world_model, "--usual", data, "--output", tmp_path / "out")
    assert run(monkeypatch, *words) == 0
    told = json.loads((tmp_path / "out" / "surprise.json").read_text())
    assert "beyond the usual" in told["unit"]


@pytest.mark.parametrize("case", ["video", "slow", "many"])
def test_command_says_what_is_wrong(
    case, world_model, masked, dataset_folder, tmp_path, monkeypatch, capsys
):
    video = tmp_path / "clip.mp4"
    write_video(video, clip()[0], 0.6 if case == "slow" else 0.25)
    given, model, expected = {
        "video": (video, world_model, "bare video"),
        "slow": (video, masked, "no stride gives a step of 0.25 s"),
        "many": (dataset_folder, world_model, "holds 32 episodes"),
    }[case]
    assert run(monkeypatch, given, "--model", model, "--output", tmp_path / "out") == 1
    assert expected in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_watching_bounds_its_memory(masked, monkeypatch):
    """Windows are encoded a few at a time, with the same result."""
    watcher = open_watcher(masked)
    frames, _ = clip(steps=14)
    whole = watcher.watch(frames).values
    monkeypatch.setattr(surprise, "WINDOWS", 2)
    np.testing.assert_allclose(watcher.watch(frames).values, whole, rtol=1e-4, atol=1e-6)
