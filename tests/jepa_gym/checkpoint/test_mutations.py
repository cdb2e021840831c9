"""Thousands of ways to damage a file of a model: an error that says so, or the same weights.

`JEPA_GYM_MUTATIONS=20` makes every test draw twenty times as many.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import time

import numpy as np
import pytest
import torch

from jepa_gym.checkpoint import export, published
from jepa_gym.checkpoint.decoder import read_decoder, write_decoder
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.safetensors_file import read_safetensors, write_safetensors
from jepa_gym.checkpoint.start_frames import read_starts
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.models import MaskedPredictor, VideoTransformer
from jepa_gym.world_model import WorldModel

TIMES = int(os.environ.get("JEPA_GYM_MUTATIONS", "1"))
PER_FILE = 25
DOCUMENTED = (CheckpointError, FileNotFoundError, ValueError)
SLOWEST_S = 20.0
WIDTH = 64


class Evil:
    """Unpickling it would leave a trace."""

    def __reduce__(self):
        return os.mkdir, (os.environ["JEPA_GYM_TRACE"],)


def flip(content, rng):
    """Flip one bit anywhere."""
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def flip_start(content, rng):
    """Flip up to three bits where headers and configurations are."""
    for _ in range(rng.randint(1, 3)):
        content[rng.randrange(min(len(content), 4000))] ^= 1 << rng.randrange(8)


def flip_end(content, rng):
    """Flip a bit where archives keep their list."""
    content[-1 - rng.randrange(min(len(content), 600))] ^= 1 << rng.randrange(8)


def cut(content, rng):
    """Lose the end."""
    del content[rng.randrange(len(content)) :]


def lose(content, rng):
    """Lose a piece in the middle."""
    start = rng.randrange(len(content))
    del content[start : start + rng.randint(1, 64)]


def zero(content, rng):
    """A page of zeros, as disks leave it after a crash."""
    start = rng.randrange(len(content))
    end = min(start + 512, len(content))
    content[start:end] = bytes(end - start)


def exchange(content, rng):
    """Exchange one number in text for another one."""
    digits = [place for place, byte in enumerate(content[:4000]) if 48 <= byte <= 57]
    if digits:
        content[rng.choice(digits)] = rng.choice(b"0123456789-eE.")


def grow(content, rng):
    """Make a number in text very long."""
    digits = [place for place, byte in enumerate(content[:4000]) if 48 <= byte <= 57]
    if digits:
        place = rng.choice(digits)
        content[place:place] = str(rng.randrange(10**12)).encode()


def replace_all(content, rng):
    """Something else altogether."""
    content[:] = rng.choice(
        [
            b"",
            b"{}",
            b"[]",
            b"null",
            b"[" * 100_000,
            b"<!DOCTYPE html><html>",
            b"PK\x03\x04" + bytes(60),
            (10**9).to_bytes(8, "little") + b"{" + bytes(50),
            pickle.dumps(Evil()),
        ]
    )


MUTATIONS = (flip, flip, flip_start, flip_end, cut, lose, zero, exchange, grow, replace_all)


@pytest.fixture(scope="module")
def small():
    """A world model of the published architecture, small enough to be read a thousand times."""
    torch.manual_seed(0)
    config = WorldModelConfig(
        frame=FrameSpec(32, 48, ("left",)),
        encoder=EncoderConfig("vit", WIDTH, 1, 1, 2.0, WIDTH, 16, "v2"),
        predictor=PredictorConfig(WIDTH, 1, 1, 2.0, "v2"),
        action_scale=(1.0,) * 7,
    )
    return WorldModel(config).eval()


def state(module):
    return {name: x.clone() for name, x in module.state_dict().items()}


def same(got, wanted):
    return got.keys() == wanted.keys() and all(torch.equal(got[n], wanted[n]) for n in got)


def damage(folder, names, read, wanted, seed, count=PER_FILE):
    """Damage files of a folder, each alone; `read` raises a documented error or returns `wanted`.

    Returns:
        How many were refused.
    """
    rng, refused = random.Random(seed), 0
    for name in names:
        path = folder / name
        content = path.read_bytes()
        for _ in range(count * TIMES):
            mutated, mutation = bytearray(content), rng.choice(MUTATIONS)
            mutation(mutated, rng)
            path.write_bytes(mutated)
            start = time.perf_counter()
            try:
                got = read()
            except DOCUMENTED as error:
                refused += 1
                assert "\n" not in str(error) or "nothing was loaded" in str(error)
                assert error.__cause__ is None
            else:
                assert same(got, wanted), f"{mutation.__name__} changed {name} silently"
            assert time.perf_counter() - start < SLOWEST_S
        path.write_bytes(content)
    assert same(read(), wanted)
    return refused


@pytest.fixture(autouse=True)
def no_code_runs(tmp_path, monkeypatch):
    trace = tmp_path / "trace"
    monkeypatch.setenv("JEPA_GYM_TRACE", str(trace))
    monkeypatch.setenv("JEPA_GYM_CACHE", str(tmp_path / "cache"))
    yield
    assert not trace.exists()


def test_checkpoint_folders(small, tmp_path):
    small.save_pretrained(tmp_path / "model", {})
    names = ("model.safetensors", "config.json")

    def read():
        loaded = WorldModel.from_pretrained(tmp_path / "model")
        assert loaded.config == small.config
        return state(loaded)

    assert damage(tmp_path / "model", names, read, state(small), 0) > PER_FILE


def test_official_files(small, tmp_path):
    path = tmp_path / "vjepa2-ac.pt"
    export.official(path, small.encoder, small.predictor)

    def read():
        return state(WorldModel.from_pretrained(path))

    assert damage(tmp_path, [path.name], read, state(small), 1, 2 * PER_FILE) > PER_FILE


def test_exported_folders(small, tmp_path):
    export.world_model(tmp_path / "out", small)

    def read():
        return state(WorldModel.from_pretrained(tmp_path / "out"))

    assert damage(tmp_path / "out", ["config.json"], read, state(small), 5) > 0


def test_hugging_face_folders(tmp_path):
    encoder = VideoTransformer(64, 1, 1, rope="v2")
    masked = MaskedPredictor((2, 2), 64, 32, 1, 1, rope="v2")
    export.hugging_face(tmp_path / "hf", encoder, masked)

    def read():
        return state(published.load(tmp_path / "hf", "encoder"))

    names = ("model.safetensors", "config.json")
    assert damage(tmp_path / "hf", names, read, state(encoder), 2) > PER_FILE // 2


def test_folders_of_shards(tmp_path):
    encoder, folder = VideoTransformer(64, 1, 1, rope="v2"), tmp_path / "hf"
    export.hugging_face(folder, encoder, MaskedPredictor((2, 2), 64, 32, 1, 1, rope="v2"))
    tensors, _ = read_safetensors(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    where = {name: files[number % 2] for number, name in enumerate(sorted(tensors))}
    for file in files:
        write_safetensors(folder / file, {n: tensors[n] for n in where if where[n] == file}, {})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))

    def read():
        return state(published.load(folder, "encoder"))

    names = (files[0], "model.safetensors.index.json")
    assert damage(folder, names, read, state(encoder), 6) > PER_FILE // 2


def test_start_frames(checkpoint):
    def read():
        starts = read_starts(checkpoint)
        return {
            name: torch.from_numpy(np.asarray(getattr(starts, name)))
            for name in ("frames", "states", "goal_frames", "goal_states")
        }

    assert damage(checkpoint, ["start_frames.npz"], read, read(), 3) > PER_FILE // 2


def test_decoders(model, drawing, tmp_path):
    path = write_decoder(tmp_path, drawing, model, {"command": "none"})

    def read():
        return state(read_decoder(tmp_path, model))

    assert damage(tmp_path, [path.name], read, state(drawing), 4) > PER_FILE // 2
