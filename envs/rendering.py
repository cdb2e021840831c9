"""Pictures of the scene: cheap flags for a CPU renderer, several cameras tiled into one frame."""

from __future__ import annotations

import atexit
import functools
import os
import weakref

import mujoco
import numpy as np

from jepa_gym.envs.scene import CAMERAS

CAMERA_NAMES = (*CAMERAS, "wrist")
MAX_SIZE_PX = 1024
_COSTLY_FLAGS = (
    mujoco.mjtRndFlag.mjRND_SHADOW,
    mujoco.mjtRndFlag.mjRND_REFLECTION,
    mujoco.mjtRndFlag.mjRND_SKYBOX,
    mujoco.mjtRndFlag.mjRND_HAZE,
)
GL_HELP = (
    "No OpenGL library for headless rendering could be used (MUJOCO_GL={backend}). On Debian or "
    "Ubuntu: apt-get install libegl1 libgl1 libgl1-mesa-dri libglib2.0-0, then set MUJOCO_GL=egl; "
    "or apt-get install libosmesa6 and set MUJOCO_GL=osmesa. The original error: {error}"
)
_OPEN: weakref.WeakSet[FrameRenderer] = weakref.WeakSet()


@functools.cache
def _close_at_exit() -> None:
    """Close what is open before MuJoCo's own exit handler shuts the GL library down.

    Handlers run in reverse order, so this is to be called after MuJoCo made its first context.
    """
    atexit.register(lambda: [renderer.close() for renderer in list(_OPEN)])


def parse_cameras(camera: str) -> tuple[str, ...]:
    """Split `"left+wrist"` into camera names; ValueError that lists the allowed ones otherwise."""
    names = tuple(str(camera).split("+"))
    unknown = [name for name in names if name not in CAMERA_NAMES]
    if unknown or len(set(names)) != len(names):
        raise ValueError(
            f"`camera` must be one of {CAMERA_NAMES} or several joined by '+', got {camera!r}"
        )
    return names


class FrameRenderer:
    """Render the cameras of one scene side by side into one frame.

    Each renderer owns its OpenGL context and makes it current before every use, and each picture is
    read into a fresh array that is checked to have been written. No frame of another environment,
    of an earlier time or of uninitialised memory can be handed out.

    Args:
        model: the compiled scene.
        cameras: names, tiled from left to right.
        size_px: height and width of one camera's picture, 16 to 1024.

    Raises:
        ValueError: bad size.
        RuntimeError: no usable OpenGL library; the message names the packages to install.
    """

    def __init__(self, model: mujoco.MjModel, cameras: tuple[str, ...], size_px: int) -> None:
        if not isinstance(size_px, int) or not 16 <= size_px <= MAX_SIZE_PX:
            raise ValueError(f"`image_size` must be an int in [16, {MAX_SIZE_PX}], got {size_px!r}")
        self.size_px = size_px
        self.cameras = [model.camera(name).id for name in cameras]
        try:
            self._renderer = mujoco.Renderer(model, height=size_px, width=size_px)
        except Exception as error:  # mujoco's GL back ends raise half a dozen unrelated types
            backend = os.environ.get("MUJOCO_GL", "unset")
            raise RuntimeError(GL_HELP.format(backend=backend, error=error)) from error
        _close_at_exit()
        _OPEN.add(self)
        for flag in _COSTLY_FLAGS:
            self._renderer.scene.flags[flag] = False
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = (0, 1, 0, 0, 0, 0)
        self._option.sitegroup[:] = 0

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return a new (size, size * cameras, 3) uint8 RGB frame, upright."""
        frame = np.empty((self.size_px, self.size_px * len(self.cameras), 3), np.uint8)
        for index, camera in enumerate(self.cameras):
            self._renderer.update_scene(data, camera=camera, scene_option=self._option)
            start = index * self.size_px
            frame[:, start : start + self.size_px] = self._renderer.render()
        return frame

    def close(self) -> None:
        """Free the OpenGL context; safe to call twice."""
        self._renderer.close()
