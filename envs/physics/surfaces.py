"""Textures of one scene: filled in when they are shown, since there is no end of them.

A scene holds one texture per kind of surface. Showing another one writes its pixels into the model
and hands them to the renderer, which takes 0.1 to 0.3 ms.
"""

from __future__ import annotations

import mujoco
import numpy as np

from jepa_gym.envs.physics.scene import CUBE_SIDE_PX, CUBES
from jepa_gym.envs.pictures.rendering import FrameRenderer
from jepa_gym.envs.pictures.textures import texture


class Surfaces:
    """What the surfaces of one model show at present.

    Args:
        model: A scene with textures, private to its environment.
        frames: What renders it, if anything does.
    """

    def __init__(self, model: mujoco.MjModel, frames: FrameRenderer | None) -> None:
        self._model, self._frames = model, frames
        self._shown: dict[str, str] = {}

    def material(self, surface: str, name: str) -> int:
        """Return the material that shows a texture on a surface.

        Args:
            surface: One of `scene.SURFACES` or `scene.CUBES`.
            name: What `textures.texture` takes.
        """
        if self._shown.get(surface) != name:
            self._write(self._model.texture(f"surface_{surface}").id, surface, name)
            self._shown[surface] = name
        return self._model.material(f"surface_{surface}").id

    def _write(self, index: int, surface: str, name: str) -> None:
        model, picture = self._model, texture(name)
        if surface in CUBES:
            block = picture.shape[0] // CUBE_SIDE_PX
            blocks = picture.reshape(CUBE_SIDE_PX, block, CUBE_SIDE_PX, block, 3)
            picture = np.tile(blocks.mean((1, 3)).astype(np.uint8), (6, 1, 1))
        start = model.tex_adr[index]
        model.tex_data[start : start + picture.size] = picture.ravel()
        model.tex_height[index], model.tex_width[index] = picture.shape[:2]
        if self._frames is not None:
            self._frames.upload_texture(index)
