"""One recorded episode as robomimic's file, a folder of videos and a folder of pictures."""

from __future__ import annotations

import pickle
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from jepa_gym.training.data.episodes import CorruptEpisodeError
from jepa_gym.training.data.sources import open_source
from jepa_gym.training.data.sources.robomimic import hand_states

from ...conftest import make_dataset
from ..foreign import as_robomimic, as_videos

ROWS = [0, 3, 3, 11]


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("foreign") / "own", train=3)


@pytest.fixture
def robomimic(own, tmp_path) -> Path:
    return as_robomimic(own, tmp_path / "image.hdf5")


def test_robomimic_holds_the_same(own, robomimic):
    ours, theirs = open_source(own), pickle.loads(pickle.dumps(open_source(robomimic)))
    assert (theirs.format, theirs.state_convention) == ("robomimic", "hand")
    assert theirs.cameras == ("left", "wrist") and theirs.ids() == ["demo_0", "demo_1", "demo_2"]
    for our_id, their_id in zip(ours.ids(), theirs.ids(), strict=True):
        a, b = ours.recording(our_id), theirs.recording(their_id)
        np.testing.assert_array_equal(a.times_s, b.times_s)
        np.testing.assert_allclose(a.states, b.states, atol=1e-12)  # through world and quaternions
        np.testing.assert_array_equal(a.rewards, b.rewards)
        assert b.actions is None and b.metadata == {"task": "Lift"}
        assert theirs.files(their_id) == [robomimic]
        for camera in ("left", "wrist"):
            assert theirs.frame_count(their_id, camera) == 12
            frames = theirs.frames(their_id, camera, ROWS)
            np.testing.assert_array_equal(frames, ours.frames(our_id, camera, ROWS))


def test_robosuite_observes_what_our_suite_calls_the_hand():
    """Position, quaternion and fingers, taken from the arm as robosuite's observables do."""
    env = gym.make("FrankaReach-v0", obs_mode="state")
    env.reset(seed=3)
    arm = env.unwrapped.arm
    arm.place(
        np.array([0.5, 0.1, 0.2]), Rotation.from_euler("xyz", [0.2, -0.1, 0.7]).as_matrix(), 0.3
    )
    w, *xyz = arm.data.body("right_hand").xquat
    fingers = [arm.data.joint(f"gripper_finger_joint{number}").qpos[0] for number in (1, 2)]
    states = hand_states(
        position=arm.data.site("grip").xpos[None],  # where robosuite has its `grip_site`
        quaternion=np.array([[*xyz, w]]),
        fingers=np.array([fingers]),
        base=(np.zeros(3), Rotation.identity()),
    )
    np.testing.assert_allclose(states[0], arm.state(), atol=1e-6)
    env.close()


def test_robomimic_without_pictures_is_refused(robomimic):
    with h5py.File(robomimic, "a") as file:
        for camera in ("left", "wrist"):
            del file[f"data/demo_0/obs/{camera}_image"]
    with pytest.raises(ValueError, match=r"holds no pictures .*dataset_states_to_obs"):
        open_source(robomimic)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"robots": ["Sawyer"]}, r"recorded with \['Sawyer'\]"),
        ({"control_freq": 0}, "no demonstration file"),
        ({"control_freq": "fast"}, "no demonstration file"),
    ],
)
def test_robomimic_of_others_is_refused(own, tmp_path, change, message):
    file = as_robomimic(own, tmp_path / "other.hdf5", **change)
    with pytest.raises(ValueError, match=message):
        open_source(file)


def replace(file: h5py.File, name: str, value: np.ndarray) -> None:
    del file[f"data/demo_1/{name}"]
    file[f"data/demo_1/{name}"] = value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("obs/robot0_eef_pos", np.full((12, 3), 400.0), "millimetres"),
        ("obs/robot0_eef_quat", np.full((12, 4), 90.0), "quaternions have lengths 180"),
        ("obs/robot0_gripper_qpos", np.zeros((12, 6)), r"fingers \(T, 2\)"),
        ("obs/robot0_eef_pos", np.zeros((11, 3)), r"position \(T, 3\)"),
        ("obs/robot0_eef_pos", np.full((12, 3), np.nan), "NaN"),
    ],
)
def test_corrupt_demonstrations_are_named(robomimic, name, value, message):
    with h5py.File(robomimic, "a") as file:
        replace(file, name, value)
    with pytest.raises(CorruptEpisodeError, match=message) as caught:
        open_source(robomimic).recording("demo_1")
    assert caught.value.folder == robomimic / "demo_1"


def test_corrupt_pictures_and_scenes_are_named(robomimic):
    source = open_source(robomimic)
    with h5py.File(robomimic, "a") as file:
        replace(file, "obs/left_image", np.zeros((12, 3, 16, 16), np.uint8))
        file["data/demo_1"].attrs["model_file"] = "<mujoco><worldbody/></mujoco>"
        file["data/demo_2"].attrs["model_file"] = "<mujoco>"
    with pytest.raises(CorruptEpisodeError, match=r"left_image .* \(12, 3, 16, 16\)"):
        source.frames("demo_1", "left", [0])
    with pytest.raises(CorruptEpisodeError, match="no body `robot0_base`"):
        source.recording("demo_1")
    with pytest.raises(CorruptEpisodeError, match="cannot be read"):
        source.recording("demo_2")


def test_a_folder_of_videos_holds_the_same(own, tmp_path):
    ours, theirs = open_source(own), open_source(as_videos(own, tmp_path / "videos"))
    assert (theirs.format, theirs.state_convention) == ("videos", None)
    assert theirs.ids() == [f"kitchen/{name}.mp4" for name in ours.ids()]
    for our_id, their_id in zip(ours.ids(), theirs.ids(), strict=True):
        recording = theirs.recording(their_id)
        np.testing.assert_array_equal(recording.times_s, ours.recording(our_id).times_s)
        assert recording.states is None and theirs.frame_count(their_id, "video") == 12
        frames = theirs.frames(their_id, "video", ROWS)
        np.testing.assert_array_equal(frames, ours.frames(our_id, "left", ROWS))


def test_one_video_is_a_source(own, tmp_path):
    file = as_videos(own, tmp_path / "videos") / "kitchen" / "000000.mp4"
    source = open_source(file)
    assert source.ids() == ["000000.mp4"] and source.files("000000.mp4") == [file]
    file.write_bytes(file.read_bytes()[:300])
    for read in (source.recording, lambda name: source.frames(name, "video", [0])):
        with pytest.raises(CorruptEpisodeError, match=r"000000.mp4: cannot be"):
            read("000000.mp4")


def test_a_folder_of_pictures_holds_stills(own, tmp_path):
    frame = open_source(own).frames("000000", "left", [5])[0]
    (tmp_path / "stills" / "a").mkdir(parents=True)
    Image.fromarray(frame).save(tmp_path / "stills" / "a" / "one.PNG")
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    Image.fromarray(frame[::-1, ::-1]).save(tmp_path / "stills" / "two.png", exif=turned)
    (tmp_path / "stills" / "notes.txt").write_text("not a picture")
    (tmp_path / "stills" / "three.jpg").write_bytes(b"damaged")
    source = open_source(tmp_path / "stills")
    assert source.format == "pictures" and source.ids() == ["a/one.PNG", "three.jpg", "two.png"]
    assert source.recording("a/one.PNG").times_s.tolist() == [0.0]
    assert source.frame_count("a/one.PNG", "picture") == 1
    for name in ("a/one.PNG", "two.png"):
        np.testing.assert_array_equal(source.frames(name, "picture", [0, 0]), [frame, frame])
    with pytest.raises(CorruptEpisodeError, match=r"three.jpg: cannot be decoded"):
        source.frames("three.jpg", "picture", [0])
