"""Raw DROID's layout, made of our own recordings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py

from jepa_gym.training.data.episodes import DROID_TIME, OWN_FIELDS

SERIALS = {"left": "22008760", "right": "24400334", "wrist": "18026681"}


def as_droid(episode: Path, folder: Path, first_ms: int = 1_688_748_143_000) -> Path:
    """Copy one of our episodes as DROID would have it: serials, milliseconds, nothing of ours."""
    shutil.copytree(episode, folder)
    own = folder / f"metadata_{episode.name}.json"
    metadata = json.loads(own.read_text())
    own.unlink()
    known = {"uuid": f"LAB+5d05c5aa+{episode.name}", "trajectory_length": 0}
    known["trajectory_length"] = metadata["trajectory_length"]
    with h5py.File(folder / "trajectory.h5", "a") as file:
        times_s = file["timestamp_s"][:]
        for key in OWN_FIELDS.keys() & file.keys():
            del file[key]
        file[DROID_TIME] = (first_ms + 1000 * times_s).round().astype("int64")
        for camera, serial in SERIALS.items():
            video = folder / "recordings" / "MP4" / f"{camera}.mp4"
            if video.is_file():
                video.rename(video.with_stem(serial))
                poses = "observation/camera_extrinsics"
                file.move(f"{poses}/{camera}_left", f"{poses}/{serial}_left")
                known[f"{camera}_mp4_path"] = f"lab/2023-07-07/recordings/MP4/{serial}.mp4"
    (folder / f"metadata_{known['uuid']}.json").write_text(json.dumps(known))
    return folder
