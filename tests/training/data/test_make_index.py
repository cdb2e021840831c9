"""Other people's recordings as datasets; the same clips as from our own layout."""

from __future__ import annotations

import json
import re
import shutil
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import pytest

from jepa_gym.cli import main
from jepa_gym.training.data.clips import ClipSampler
from jepa_gym.training.data.dataset import (
    SPLITS,
    ContentError,
    Dataset,
    read_index,
    split_of,
    write_index,
)
from jepa_gym.training.data.episodes import Episode, write_episode
from jepa_gym.training.data.make_index import IndexConfig, make_index
from jepa_gym.training.data.sources import open_source

from ..conftest import INDEX
from .droid_layout import as_droid
from .foreign import as_robomimic, as_videos

RATE = 1 / 15
SIZE = 32
LENGTHS = (70, 20, 33, 64, 47)
"""Frames at 15 Hz: 17, 5, 8, 16 and 11 at 4 Hz."""
WHERE = "LAB/success/2023-07-07"
SMALL = {"image_size": SIZE, "frames": 4}


def recorded(seed: int, steps: int, shape: tuple[int, int] = (SIZE, SIZE)) -> Episode:
    """A slow hand at 15 Hz; every picture shows its number."""
    states = np.zeros((steps, 7))
    states[:, 0] = 0.3 + 0.01 * np.arange(steps)
    states[:, 3] = 3.1
    states[:, 6] = np.linspace(0, 1, steps)
    frames = np.full((steps, *shape, 3), seed, np.uint8)
    frames += (2 * np.arange(steps, dtype=np.uint8))[:, None, None, None]
    return Episode(
        frames={"left": frames, "right": 255 - frames},
        states=states,
        extrinsics={x: np.full((steps, 6), 0.1 * seed) for x in ("left", "right")},
        timestamps_s=RATE * np.arange(steps),
        metadata={"step_s": RATE},
    )


def make_pair(folder: Path, shape: tuple[int, int] = (SIZE, SIZE)) -> tuple[Path, Path]:
    """The same episodes in our own layout and in raw DROID's; their ids differ."""
    names = [*_ids("train", 3), *_ids("validation", 1), *_ids("test", 1)]
    for number, (name, length) in enumerate(zip(names, LENGTHS, strict=True)):
        own = write_episode(folder / "own" / "episodes" / name, recorded(number, length, shape))
        as_droid(own, folder / "droid" / WHERE / name)
    return folder / "own", folder / "droid"


def _ids(split: str, count: int) -> list[str]:
    """Ids whose split is the same in both layouts, so that clips can be compared."""
    ids = (f"{number:06d}" for number in range(99_999))
    fit = (name for name in ids if split_of(name) == split == split_of(f"{WHERE}/{name}"))
    return list(islice(fit, count))


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    own, droid = make_pair(tmp_path_factory.mktemp("pair"))
    for folder in (own, droid):
        make_index(IndexConfig(data=(folder,), workers=1, **SMALL))
    return own, droid


def test_both_layouts_give_the_same_clips_at_the_same_times(pair):
    own, droid = (Dataset.open(folder) for folder in pair)
    assert (own.index["state_convention"], droid.index["state_convention"]) == ("hand", "droid")
    assert own.index["windows"] == droid.index["windows"] == 4 + 1 + 2 + 4 + 3
    assert droid.index["max_move_m"] == own.index["max_move_m"] == 0.04  # of four recorded moves
    for split in ("train", "validation"):
        a, b = own.load_arrays(split), droid.load_arrays(split)
        assert [name.split("/")[-1] for name in b.ids] == list(a.ids)
        order = np.argsort([name.split("/")[-1] for name in b.ids], kind="stable")
        np.testing.assert_array_equal(a.states, b.states[order])
        np.testing.assert_array_equal(a.actions, b.actions[order])
        np.testing.assert_array_equal(a.extrinsics, b.extrinsics[order])
        for number, other in enumerate(order):
            np.testing.assert_array_equal(a.clip(number, 0, 4), b.clip(int(other), 0, 4))


def all_windows(folder: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Number of the window -> states and frames, whatever split it is in."""
    dataset, found = Dataset.open(folder), {}
    for split in SPLITS:
        arrays = dataset.load_arrays(split)
        for number, row in enumerate(arrays.rows):
            found[int(row)] = arrays.states[number], arrays.clip(number, 0, 6)
    return found


@pytest.mark.parametrize("kind", ["robomimic", "lerobot", "videos"])
def test_every_format_gives_the_same_clips(kind, dataset_folder, tmp_path):
    """Of episodes every 0.25 s at a step of 0.5 s; ids and so splits differ."""
    if kind == "robomimic":
        data = as_robomimic(dataset_folder, tmp_path / "theirs.hdf5")
    elif kind == "videos":
        data = as_videos(dataset_folder, tmp_path / "theirs")
    else:
        pytest.importorskip("pyarrow")
        from jepa_gym.training.data.lerobot_writer import write_lerobot

        data = tmp_path / "theirs"
        write_lerobot(open_source(dataset_folder), read_index(dataset_folder), data)
    settings = {"image_size": 16, "frames": 6, "step_s": 0.5, "workers": 1}
    for name, path in (("own", dataset_folder), ("index", data)):
        make_index(IndexConfig(data=(path,), output=tmp_path / name, **settings))
    ours, theirs = all_windows(tmp_path / "own"), all_windows(tmp_path / "index")
    assert ours.keys() == theirs.keys() and len(ours) == 32
    order = sorted(open_source(data).ids())
    assert len(order) == 32
    names = [f"demo_{number}" for number in range(32)] if kind == "robomimic" else order
    for number, name in enumerate(names):
        states, frames = theirs[order.index(name)]
        np.testing.assert_array_equal(frames, ours[number][1])
        expected = np.zeros((6, 7)) if kind == "videos" else ours[number][0]
        np.testing.assert_allclose(states, expected, atol=1e-6)
    with pytest.raises(ValueError, match="`output` must name a folder"):
        make_index(IndexConfig(data=(next(x for x in data.parent.rglob("*") if x.is_file()),)))


def test_windows_are_a_step_of_physical_time_apart(pair):
    arrays = Dataset.open(pair[1]).load_arrays("train")
    np.testing.assert_allclose(np.diff(arrays.states[..., 0]), 0.04, atol=1e-6)
    brightness = arrays.clips([(0, 0, 4)])[0, :, 0, 0, 0].astype(int)
    assert abs(np.diff(brightness) - 8).max() <= 3  # four recorded frames


def test_what_is_improbable_is_told(pair, tmp_path, capsys):
    """Roll is near pi: right for DROID's flange, a hand that points up in our convention."""
    make_index(IndexConfig(data=(pair[1],), output=tmp_path / "a", workers=1, **SMALL))
    assert "probably wrong" not in capsys.readouterr().err
    make_index(IndexConfig(data=(pair[0],), output=tmp_path / "b", workers=1, **SMALL))
    assert "probably wrong: the hand points up" in capsys.readouterr().err


def test_windows_of_an_episode_lie_in_its_split(pair):
    dataset = Dataset.open(pair[1])
    arrays = {split: dataset.load_arrays(split) for split in SPLITS}
    assert sum(len(x.ids) for x in arrays.values()) == dataset.index["windows"]
    for split, x in arrays.items():
        assert {split_of(name) for name in x.ids} <= {split}
    assert len(set(arrays["train"].ids)) < len(arrays["train"].ids)


def test_short_and_corrupt_episodes_are_left_out_and_told(tmp_path, capsys):
    _, droid = make_pair(tmp_path)
    folders = sorted(path.parent for path in droid.rglob("trajectory.h5"))
    with h5py.File(folders[0] / "trajectory.h5", "a") as file:
        file["observation/robot_state/cartesian_position"][:] *= 1000
    video = next((folders[1] / "recordings" / "MP4").glob("22*.mp4"))
    video.write_bytes(video.read_bytes()[:100])
    with h5py.File(folders[2] / "trajectory.h5", "a") as file:
        file["observation/robot_state/cartesian_position"][:, 3] = 180
    flags = ["--workers", "1", "--image-size", "32", "--frames", "8"]
    assert main(["make-index", str(droid), *flags]) == 0
    told = capsys.readouterr().err
    assert re.search(r"left out, see .*1 x .*must be in metres \(millimetres\?\)", told)
    why = {x["id"]: x["why"] for x in json.loads((droid / "episodes.json").read_text())["left_out"]}
    reasons = [why[folder.relative_to(droid).as_posix()] for folder in folders[:3]]
    assert "millimetres" in reasons[0] and "cannot decode" in reasons[1]
    assert "radians (degrees?)" in reasons[2]
    assert sum("too short" in reason for reason in why.values()) == (len(why) - 3)
    dataset = Dataset.open(droid)
    kept = {name for split in SPLITS for name in dataset.load_arrays(split).ids}
    assert not kept & why.keys() and len(kept) == dataset.index["episodes"]


def test_left_and_right_are_samples_of_their_own(pair, tmp_path):
    make_index(
        IndexConfig(data=(pair[1],), output=tmp_path, cameras=("left", "right"), workers=1, **SMALL)
    )
    both, left = Dataset.open(tmp_path), Dataset.open(pair[1])
    a, b = both.load_arrays("validation"), left.load_arrays("validation")
    half = len(b.ids)
    assert len(a.ids) == 2 * half and both.index["cameras"] == ["left"]
    np.testing.assert_array_equal(a.clip(0, 0, 4), b.clip(0, 0, 4))
    assert abs(255 - a.clip(0, 0, 4).astype(int) - a.clip(half, 0, 4)).max() < 6
    np.testing.assert_array_equal(a.states[:half], a.states[half:])


@pytest.mark.parametrize("crop", ["squash", "square"])
def test_pictures_of_any_size_are_cut_and_resized(tmp_path, crop):
    _, droid = make_pair(tmp_path, shape=(36, 64))
    make_index(IndexConfig(data=(droid,), crop=crop, workers=1, **SMALL))
    arrays = Dataset.open(droid).load_arrays("train")
    assert arrays.frames.shape[1:] == (4, SIZE, SIZE, 3)
    assert Dataset.open(droid, image_size=14).load_arrays("train").frames.shape[2:] == (14, 14, 3)


def test_other_steps_windows_and_views_have_caches_of_their_own(pair, tmp_path):
    shapes = set()
    for number, changes in enumerate(({}, {"step_s": 0.2}, {"frames": 5}, {"crop": "square"})):
        copy = shutil.copytree(pair[1], tmp_path / str(number))
        make_index(IndexConfig(data=(copy,), workers=1, **SMALL | changes))
        Dataset.open(copy).load_arrays("train")
        shapes |= {path.name.split("-")[-1] for path in (copy / "cache").glob("frames-*")}
    assert len(shapes) == 4


def test_what_the_index_says_decides_the_hash(pair, tmp_path):
    copy = shutil.copytree(pair[1], tmp_path / "copy")
    assert Dataset.open(copy).hash == Dataset.open(pair[1]).hash
    index = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps(index | {"crop": "square"}))
    assert Dataset.open(copy).hash != Dataset.open(pair[1]).hash


def test_changed_files_are_refused(pair, tmp_path):
    copy = shutil.copytree(pair[1], tmp_path / "copy")
    with h5py.File(next(copy.rglob("trajectory.h5")), "a") as file:
        file["observation/robot_state/gripper_position"][0] = 0.123
    with pytest.raises(ContentError, match="give the command of `jepa-gym make-index` again"):
        Dataset.open(copy).load_arrays("train")
    (copy / "episodes.json").write_text("{}")
    with pytest.raises(ValueError, match=r"episodes\.json is damaged"):
        Dataset.open(copy)


def test_a_damaged_index_is_refused(pair, tmp_path):
    copy = shutil.copytree(pair[0], tmp_path / "copy")
    index = json.loads((copy / "dataset.json").read_text())
    changes = ({"samples": 3}, {"samples": [["left"], ["left", "right"]]}, {"window_frames": "x"})
    bad_source = {"sources": [index["sources"][0] | {"weight": []}]}
    for change in (*changes, {"crop": []}, {"sources": 1}, {"sources": [{}]}, bad_source):
        (copy / "dataset.json").write_text(json.dumps(index | change))
        with pytest.raises(ValueError):
            Dataset.open(copy)


def test_an_index_is_made_anew_with_other_views(pair, tmp_path):
    copy = shutil.copytree(pair[0], tmp_path / "copy")
    for camera in ("right", "left"):
        index = make_index(IndexConfig(data=(copy,), cameras=(camera,), workers=1, **SMALL))
        assert index["cameras"] == (camera,)


def test_mixtures(pair, tmp_path):
    other = tmp_path / "other"
    for name in (*_ids("train", 8)[3:], *_ids("validation", 2)):
        write_episode(other / "episodes" / name, recorded(200, 66))
    config = IndexConfig(
        data=(pair[0], other),
        output=tmp_path / "mix",
        weights=(0.9, 0.1),
        workers=1,
        **SMALL,
    )
    make_index(config)
    dataset = Dataset.open(tmp_path / "mix")
    arrays = dataset.load_arrays("train")
    assert arrays.weights is not None and abs(arrays.weights.sum() - 1) < 1e-9
    sampler = ClipSampler(arrays, 2, 2000, seed=0)
    spans = sampler.spans(0)
    bright = [arrays.clip(*span)[0, 0, 0, 0] >= 195 for span in spans[:400]]
    assert 0.05 < np.mean(bright) < 0.16
    assert spans == ClipSampler(arrays, 2, 2000, seed=0).spans(0)
    assert dataset.hash != Dataset.open(pair[0]).hash


def test_copies_are_left_out(pair, tmp_path):
    """A copy under another name could be in another split."""
    folder = shutil.copytree(pair[1], tmp_path / "droid")
    one = next(path.parent for path in folder.rglob("trajectory.h5"))
    shutil.copytree(one, folder / "ZAB" / "success" / "again")
    index = make_index(IndexConfig(data=(folder,), workers=1, **SMALL))
    assert index["episodes"] == 5
    left_out = json.loads((folder / "episodes.json").read_text())["left_out"]
    assert [(x["id"], x["why"]) for x in left_out] == [("ZAB/success/again", f"a copy of {one}")]


def test_a_set_of_unequal_episodes_says_what_to_do(tmp_path):
    for seed, steps in enumerate((12, 14, 16)):
        write_episode(tmp_path / "episodes" / f"{seed:06d}", recorded(seed, steps))
    write_index(tmp_path, INDEX | {"cameras": ["left"], "step_s": RATE})
    with pytest.raises(ValueError, match=r"12 to 16 frames.*make-index .* --frames 16"):
        Dataset.open(tmp_path).load_arrays("train")


def test_errors(pair, tmp_path):
    def index(data=(pair[1],), **changes):
        return make_index(IndexConfig(data=data, output=tmp_path / "o", workers=1, **changes))

    with pytest.raises(ValueError, match=r"every 0\.067 s.*0\.1 s within 10%"):
        index(step_s=0.1)
    with pytest.raises(ValueError, match=r"5 x too short: .* less than 99 frames"):
        index(frames=99)
    with pytest.raises(ValueError, match="mean `right`"):
        index(cameras=("rihgt",))
    with pytest.raises(ValueError, match="droid and of the hand"):
        index(data=pair)
    with pytest.raises(ValueError, match="`weights` must be as many"):
        index(weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="`output` must name a folder"):
        IndexConfig(data=pair)
    with pytest.raises(ValueError, match="mean `squash`"):
        index(crop="sqash")
    with pytest.raises(FileNotFoundError, match=r"for data of others, `jepa-gym make-index"):
        Dataset.open(tmp_path)


def test_the_index_of_a_collection_is_not_overwritten(dataset_folder):
    with pytest.raises(ValueError, match="written by `jepa-gym collect`"):
        make_index(IndexConfig(data=(dataset_folder,), workers=1, **SMALL))
