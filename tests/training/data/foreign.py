"""Our own recordings, as others would have written them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from jepa_gym.training.data.sources import open_source

BASE_M, BASE_QUAT = (-0.56, 0.1, 0.912), (0.0, 0.0, np.sin(0.2), np.cos(0.2))
"""Where robosuite's robot stands in the world; the quaternion is x y z w."""
MODEL = """<mujoco><worldbody><body name="table"/><body name="robot0_mount" pos="-0.56 0.1 0.5">
<body name="robot0_base" pos="0 0 0.412" quat="{3} {0} {1} {2}"><body name="robot0_link0"/></body>
</body></worldbody></mujoco>"""


def as_robomimic(own: Path, file: Path, **change) -> Path:
    """Write all episodes of one of our datasets as robomimic would, with their decoded pictures."""
    source = open_source(own)
    with h5py.File(file, "w") as data:
        group = data.create_group("data")
        settings = {"control_freq": 4, "robots": ["Panda"]}
        group.attrs["env_args"] = json.dumps(
            {"env_name": "Lift", "type": 1, "env_kwargs": settings | change}
        )
        for number, name in enumerate(source.ids()):
            recording = source.recording(name)
            states, steps = recording.states, len(recording.times_s)
            demo = group.create_group(f"demo_{number}")
            demo.attrs["model_file"] = MODEL.format(*BASE_QUAT)
            turn = Rotation.from_quat(BASE_QUAT)
            hand = turn * Rotation.from_euler("xyz", states[:, 3:6])
            width = 0.08 * (1 - states[:, 6])
            demo["obs/robot0_eef_pos"] = turn.apply(states[:, :3]) + BASE_M
            demo["obs/robot0_eef_quat"] = (hand * Rotation.from_euler("x", np.pi)).as_quat()
            demo["obs/robot0_gripper_qpos"] = np.column_stack([width / 2, -width / 2])
            for camera in source.cameras:
                frames = source.frames(name, camera, range(steps))
                demo.create_dataset(f"obs/{camera}_image", data=frames, compression="gzip")
            demo["actions"] = np.zeros((steps, 7))
            demo["rewards"] = np.append(recording.rewards, 0.0)
    return file


def as_videos(own: Path, folder: Path, camera: str = "left") -> Path:
    """Copy the videos of a camera, as somebody's folder of videos."""
    (folder / "kitchen").mkdir(parents=True)
    for episode in sorted((own / "episodes").iterdir()):
        video = episode / "recordings" / "MP4" / f"{camera}.mp4"
        shutil.copyfile(video, folder / "kitchen" / f"{episode.name}.mp4")
    return folder
