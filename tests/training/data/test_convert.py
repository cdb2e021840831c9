from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from filelock import FileLock

from jepa_gym.cli import main
from jepa_gym.training.data import convert as module
from jepa_gym.training.data.convert import ConvertConfig, convert
from jepa_gym.training.data.dataset import SPLITS, Dataset, split_of, write_index
from jepa_gym.training.data.episodes import CorruptEpisodeError, write_episode
from jepa_gym.training.data.make_index import IndexConfig, make_index
from jepa_gym.training.data.sources import open_source

from ..conftest import INDEX, make_episode
from .droid_layout import as_droid
from .foreign import as_robomimic, as_videos

STEPS, FRAMES = 12, 5


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """Four training episodes of a hand that points down, numbers that float32 holds."""
    folder = tmp_path_factory.mktemp("convert") / "own"
    for number in range(4):
        episode = make_episode(number)
        episode.states[:, 3:6] = np.linspace([0.1, -0.1, -1.5], [-0.1, 0.1, 1.5], STEPS)
        episode.states = episode.states.astype(np.float32).astype(np.float64)
        write_episode(folder / "episodes" / f"{number:06d}", episode)
    write_index(folder, INDEX)
    return folder


def config_of(data: Path, output: Path, **change) -> ConvertConfig:
    fixed = {"image_size": 8, "frames": FRAMES, "workers": 1}
    return ConvertConfig(data, output, **(fixed | change))


@pytest.fixture(scope="module")
def formats(own, tmp_path_factory) -> dict[str, Path]:
    """The same episodes in every format."""
    folder = tmp_path_factory.mktemp("formats")
    for path in sorted((own / "episodes").iterdir()):
        as_droid(path, folder / "droid" / path.name)
    assert main(["convert", str(own), str(folder / "lerobot"), "--to", "lerobot"]) == 0
    return {
        "jepa-gym": own,
        "droid": folder / "droid",
        "lerobot": folder / "lerobot",
        "robomimic": as_robomimic(own, folder / "image.hdf5"),
        "videos": as_videos(own, folder / "videos"),
    }


def test_all_formats_give_the_same_clips(formats, tmp_path):
    """To the bit: pictures are decoded from the same H.264 packets, or stored as they are."""
    clips, states, times = {}, {}, {}
    for name, path in formats.items():
        camera = "video" if name == "videos" else "left"
        index = IndexConfig(
            (path,), tmp_path / name, cameras=(camera,), image_size=8, step_s=0.5, frames=FRAMES,
            state_convention="hand", workers=1,
        )  # fmt: skip
        make_index(index)
        dataset = Dataset.open(tmp_path / name)
        frames, windows = dataset._open_frames()
        clips[name], states[name] = np.asarray(frames), windows.states.astype(np.float32)
        source = open_source(path)
        seconds = [source.recording(x).times_s for x in windows.ids.tolist()]
        times[name] = np.stack([x[rows] for x, rows in zip(seconds, windows.rows, strict=True)])
    assert clips["jepa-gym"].shape == (4, FRAMES, 8, 8, 3)
    for name in formats:
        np.testing.assert_array_equal(clips[name], clips["jepa-gym"], err_msg=name)
        np.testing.assert_allclose(times[name], times["jepa-gym"], atol=1e-9, err_msg=name)
    np.testing.assert_array_equal(times["lerobot"], times["jepa-gym"])
    for name in ("droid", "lerobot"):
        np.testing.assert_array_equal(states[name], states["jepa-gym"])
    # through the frame of the world, quaternions and the fingers' joints
    np.testing.assert_allclose(states["robomimic"], states["jepa-gym"], atol=1e-6)


def test_all_formats_are_converted_to_the_same(formats, tmp_path):
    videos = {}
    for name in ("jepa-gym", "droid", "lerobot", "robomimic"):
        change = {"state_convention": "hand", "cameras": ("left", "wrist")}
        index = convert(config_of(formats[name], tmp_path / name, **change))
        assert index["episodes"] == 8 and index["cameras"] == ["left", "wrist"]
        assert index["max_move_m"] == pytest.approx(0.075, abs=2e-3)
        videos[name] = [path.read_bytes() for path in sorted((tmp_path / name).rglob("*.mp4"))]
        dataset = Dataset.open(tmp_path / name)
        shapes = [dataset.load_arrays(split).states.shape for split in SPLITS]
        assert sum(shape[0] for shape in shapes) == 8 and shapes[0][1:] == (FRAMES, 7)
        source = open_source(tmp_path / name)
        for episode in source.ids():
            np.testing.assert_allclose(
                source.recording(episode).times_s, 0.25 * np.arange(FRAMES), atol=1e-9
            )
    assert len(videos["jepa-gym"]) == 16
    assert videos["droid"] == videos["lerobot"] == videos["robomimic"] == videos["jepa-gym"]


def test_an_episode_is_thinned_out_and_cut(own, tmp_path):
    convert(config_of(own, tmp_path / "half", step_s=0.5, frames=3))
    before, after = open_source(own), open_source(tmp_path / "half")
    assert after.ids()[:2] == ["000000+w000", "000000+w001"]
    a, b = before.recording("000000"), after.recording("000000+w001")
    np.testing.assert_array_equal(b.states, a.states[[6, 8, 10]])
    np.testing.assert_array_equal(b.times_s, [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(b.rewards, a.rewards[[7, 9]])
    assert b.actions is None  # those of the frames between are lost
    assert b.metadata["converted_from"] == {
        "format": "jepa-gym", "id": "000000", "first_frame": 6
    }  # fmt: skip
    assert b.metadata["kind"] == "random" and b.metadata["step_s"] == 0.5


def test_whole_episodes_keep_what_they_have(own, tmp_path):
    convert(config_of(own, tmp_path / "whole", frames=None, image_size=16))
    before, after = open_source(own), open_source(tmp_path / "whole")
    assert after.ids() == before.ids()
    for name in before.ids():
        a, b = before.recording(name), after.recording(name)
        for key in ("states", "actions", "rewards", "success", "times_s"):
            np.testing.assert_array_equal(getattr(a, key), getattr(b, key))
        np.testing.assert_array_equal(a.extrinsics["wrist"], b.extrinsics["wrist"])
        pictures = [x.frames(name, "left", range(STEPS)).astype(int) for x in (before, after)]
        assert np.abs(pictures[0] - pictures[1]).mean() < 3  # encoded twice


def test_windows_of_a_recording_are_in_one_split():
    for number in range(300):
        name = f"lab/{number:06d}"
        windows = [f"lab__{number:06d}+w{window:03d}" for window in (0, 1, 12, 1000)]
        assert {split_of(x) for x in windows} == {split_of(name)}
        assert split_of(f"{windows[0]}+w003") == split_of(name)  # converted twice


def test_lerobot_and_back(formats, own, tmp_path):
    convert(config_of(formats["lerobot"], tmp_path / "back", frames=None, image_size=16))
    before, after = open_source(own), open_source(tmp_path / "back")
    assert after.ids() == before.ids() and after.state_convention == before.state_convention
    for name in before.ids():
        a, b = before.recording(name), after.recording(name)
        np.testing.assert_array_equal(a.states, b.states)
        np.testing.assert_array_equal(a.times_s, b.times_s)
        np.testing.assert_array_equal(np.float32(a.actions), b.actions)
        pictures = [x.frames(name, "wrist", range(STEPS)).astype(int) for x in (before, after)]
        assert np.abs(pictures[0] - pictures[1]).mean() < 3  # encoded twice


def test_an_interrupted_conversion_goes_on(own, tmp_path, monkeypatch):
    convert(config_of(own, tmp_path / "at-once"))
    write, calls = module.write_episode, []

    def interrupted(folder, episode):
        calls.append(folder)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return write(folder, episode)

    monkeypatch.setattr(module, "write_episode", interrupted)
    config = config_of(own, tmp_path / "twice")
    with pytest.raises(KeyboardInterrupt):
        convert(config)
    with pytest.raises(FileNotFoundError, match="or conversion did not finish"):
        Dataset.open(tmp_path / "twice")
    (tmp_path / "twice" / "episodes" / ".000003+w000.77.tmp").mkdir()  # of a killed process
    convert(config)
    assert len(calls) == len(set(calls)) + 1 == 9  # nothing is written again
    once, twice = (Dataset.open(tmp_path / name).hash for name in ("at-once", "twice"))
    assert once == twice
    with pytest.raises(ValueError, match=r"begun with step_s=0\.25, not 0\.5"):
        convert(config_of(own, tmp_path / "twice", step_s=0.5))


def test_corrupt_episodes_are_skipped_only_when_told(own, tmp_path):
    copy = shutil.copytree(own, tmp_path / "own")
    video = copy / "episodes" / "000001" / "recordings" / "MP4" / "left.mp4"
    video.write_bytes(video.read_bytes()[:300])
    with pytest.raises(CorruptEpisodeError, match="000001"):
        convert(config_of(copy, tmp_path / "new"))
    index = convert(config_of(copy, tmp_path / "new", skip_corrupt=True))
    assert index["episodes"] == 6 and index["left_out"] == {"too short": 0, "corrupt": 1}
    assert "000001" in index["skipped"][0]


def test_what_has_no_states_is_refused(formats, tmp_path):
    with pytest.raises(ValueError, match=r"no states .*`jepa-gym make-index"):
        convert(config_of(formats["videos"], tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_wrong_units_are_refused_before_anything_is_written(own, tmp_path):
    copy = shutil.copytree(own, tmp_path / "own")
    for path in copy.rglob("trajectory.h5"):
        with h5py.File(path, "a") as file:
            file["observation/robot_state/gripper_position"][:] *= 0.08
    with pytest.raises(ValueError, match=r"a width in metres\? .* pass --accept-units"):
        convert(config_of(copy, tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    assert convert(config_of(copy, tmp_path / "new", accept_units=True))["episodes"] == 8


def test_too_short(own, tmp_path):
    with pytest.raises(ValueError, match=r"none of the 4 .* 4 are too short\. Give fewer --frames"):
        convert(config_of(own, tmp_path / "new", frames=40))


def test_another_folder_is_left_alone(own, tmp_path):
    copy = shutil.copytree(own, tmp_path / "own")
    with pytest.raises(ValueError, match="holds other episodes"):
        convert(config_of(own, copy))
    (tmp_path / "busy").mkdir()
    with (
        FileLock(tmp_path / "busy" / ".convert.lock"),
        pytest.raises(ValueError, match="another `jepa-gym convert`"),
    ):
        convert(config_of(own, tmp_path / "busy"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image-size", "15"], "must be even"),
        (["--step-s", "0"], "`step_s` must be positive"),
        (["--step-s", "0.1"], "no stride gives a step of 0.1 s"),
        (["--frames", "1"], "at least 2"),
        (["--to", "rlds"], "`to` must be one of"),
        (["--to", "lerobot", "--step-s", "0.5"], "leave out ['step_s']"),
    ],
)
def test_refusals(own, tmp_path, capsys, words, message):
    assert main(["convert", str(own), str(tmp_path / "new"), "--workers", "1", *words]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: ") and message in told


def test_only_our_own_become_lerobot(formats, tmp_path, capsys):
    words = ["convert", str(formats["droid"]), str(tmp_path / "new"), "--to", "lerobot"]
    assert main(words) == 1
    assert "of the format droid: convert it to a dataset of ours first" in capsys.readouterr().err
