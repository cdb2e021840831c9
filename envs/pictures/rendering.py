"""Pictures of the scene: cheap flags for a CPU renderer, several cameras tiled into one frame."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager

import mujoco
import numpy as np

from jepa_gym.envs.pictures.cameras import CAMERAS, camera_aspect
from jepa_gym.envs.pictures.gl_context import shared_context
from jepa_gym.envs.pictures.gl_help import gl_error

CAMERA_NAMES = (*CAMERAS, "wrist")
MIN_SIZE_PX, MAX_SIZE_PX = 16, 1024
MAX_GEOMS = 2000
_COSTLY_FLAGS = (
    mujoco.mjtRndFlag.mjRND_SHADOW,
    mujoco.mjtRndFlag.mjRND_REFLECTION,
    mujoco.mjtRndFlag.mjRND_SKYBOX,
    mujoco.mjtRndFlag.mjRND_HAZE,
)
_DEPTH_FLAGS = (mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR)
"""Without light and textures; depth does not need them."""
_OFFSCREEN = mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value
_GEOM = mujoco.mjtObj.mjOBJ_GEOM.value
_NOT_DRAWN = mujoco.mjtGeom.mjGEOM_NONE.value


def parse_cameras(camera: str) -> tuple[str, ...]:
    """Split `"left+wrist"` into camera names.

    Raises:
        ValueError: If a name is unknown or stands twice; the message lists the allowed ones.
    """
    names = tuple(str(camera).split("+"))
    unknown = [name for name in names if name not in CAMERA_NAMES]
    if unknown or len(set(names)) != len(names):
        raise ValueError(
            f"`camera` must be one of {CAMERA_NAMES} or several joined by '+', got {camera!r}"
        )
    return names


def parse_size(image_size: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    """Return (height, width) in pixels of one camera's picture; an int stands for a square.

    Raises:
        ValueError: Not one or two ints in [16, 1024].
    """
    values = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    try:
        height, width = (operator.index(value) for value in values)
    except (TypeError, ValueError):
        height = width = 0
    if not all(MIN_SIZE_PX <= value <= MAX_SIZE_PX for value in (height, width)):
        raise ValueError(
            "`image_size` must be an int, or the pair (height, width), in "
            f"[{MIN_SIZE_PX}, {MAX_SIZE_PX}] pixels, got {image_size!r}"
        )
    return height, width


class FrameRenderer:
    """Render the cameras of one scene side by side into one frame.

    For every use the right OpenGL context and this renderer's own buffer in it are selected, and
    after it OpenGL is asked whether the pixels were read. No frame of another environment, of an
    earlier time or of uninitialised memory can be handed out.

    What lies outside a camera's view is not drawn; `model.geom_rbound` decides, so keep it true
    when you change a geom's size.

    Args:
        model: The compiled scene. Colours, poses and lights may change at any time; after a change
            of mesh vertices call `upload_mesh`, of a texture `upload_texture`.
        cameras: Names, tiled from left to right.
        size_px: (height, width) of one camera's picture, each 16 to 1024.

    Raises:
        ValueError: Bad size.
        RuntimeError: No usable OpenGL library; the message names the packages to install.
    """

    def __init__(
        self, model: mujoco.MjModel, cameras: tuple[str, ...], size_px: tuple[int, int]
    ) -> None:
        self._context: mujoco.MjrContext | None = None
        self.height, self.width = parse_size(size_px)
        self._model = model
        self._cameras = [_fixed_camera(model.camera(name).id) for name in cameras]
        self._aspects = [camera_aspect(name) for name in cameras]
        self._view = mujoco.MjrRect(0, 0, self.width, self.height)
        self._scene = mujoco.MjvScene(model, MAX_GEOMS)
        for flag in _COSTLY_FLAGS:
            self._scene.flags[flag] = False
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = (0, 1, 0, 0, 0, 0)
        self._option.sitegroup[:] = 0
        self._gl = shared_context()
        with self._gl.current():
            self._context = _make_context(model, self._view)
            self._gl.hold(self._context)

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return a new (height, width * cameras, 3) uint8 RGB frame, upright."""
        pixels = np.empty((self.height, self.width, 3), np.uint8)
        return self._draw(data, pixels, (pixels, None))

    def depth(self, data: mujoco.MjData) -> np.ndarray:
        """Return a new (height, width * cameras) float32 frame: metres along the optical axis.

        It is the distance from the camera's plane, not from the camera, so that a wall that is
        parallel to the picture has one depth.
        """
        buffer = np.empty((self.height, self.width), np.float32)
        for flag in _DEPTH_FLAGS:
            self._scene.flags[flag] = True
        try:
            frame = self._draw(data, buffer, (None, buffer))
        finally:
            for flag in _DEPTH_FLAGS:
                self._scene.flags[flag] = False
        near = self._model.vis.map.znear * self._model.stat.extent
        far = self._model.vis.map.zfar * self._model.stat.extent
        # the buffer holds b = near / (far - near) * (far / depth - 1): 1 at the near plane, 0 at
        # the far one (`mjDEPTH_ZEROFAR`, OpenGL's perspective with reversed depth)
        metres = near * far / (near + frame.astype(np.float64) * (far - near))
        return metres.astype(np.float32)

    def upload_texture(self, texture_id: int) -> None:
        """Draw texture `texture_id` from now on as the model's present picture."""
        with self._selected() as context:
            mujoco.mjr_uploadTexture(self._model, context, texture_id)

    def upload_mesh(self, mesh_id: int) -> None:
        """Draw mesh `mesh_id` from now on with the model's present vertices."""
        with self._selected() as context:
            mujoco.mjr_uploadMesh(self._model, context, mesh_id)

    def close(self) -> None:
        """Free the buffers and meshes in OpenGL's memory; safe to call twice."""
        if self._context is not None:
            self._gl.free(self._context)
            self._context = None

    def __del__(self) -> None:
        if self._context is not None:
            self._gl.free(self._context, later=True)

    @contextmanager
    def _selected(self) -> Iterator[mujoco.MjrContext]:
        """Direct OpenGL to this renderer's objects."""
        if self._context is None:
            raise RuntimeError("This renderer is closed; make a new environment to render.")
        with self._gl.current():
            mujoco.mjr_setBuffer(_OFFSCREEN, self._context)
            yield self._context

    def _draw(self, data: mujoco.MjData, picture: np.ndarray, read: tuple) -> np.ndarray:
        """Draw the cameras one after the other and return their pictures side by side, upright.

        Each is drawn at the buffer's origin: elsewhere rounding moves a few pixels' edges.

        Args:
            data: The state.
            picture: (height, width, ...) scratch memory for one camera.
            read: What `mjr_readPixels` is to fill, (colours, depth), one of them `picture`.
        """
        shape = (self.height, len(self._cameras), self.width, *picture.shape[2:])
        frame = np.empty(shape, picture.dtype)
        with self._selected() as context:
            for index, (camera, aspect) in enumerate(
                zip(self._cameras, self._aspects, strict=True)
            ):
                self._update_scene(data, camera, aspect)
                mujoco.mjr_render(self._view, self._scene, context)
                mujoco.mjr_readPixels(*read, self._view, context)
                frame[:, index] = picture[::-1]
            error = mujoco.mjr_getError()
        if error:
            raise RuntimeError(f"OpenGL reports error {error:#x}: the picture was not rendered.")
        return frame.reshape(self.height, -1, *picture.shape[2:])

    def _update_scene(
        self, data: mujoco.MjData, camera: mujoco.MjvCamera, aspect: float | None
    ) -> None:
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, camera, everything, self._scene
        )
        if aspect is not None:
            for side in self._scene.camera:
                side.frustum_width = aspect * side.frustum_top  # half of the near plane's width
        self._skip_unseen(data, camera.fixedcamid, aspect or self.width / self.height)

    def _skip_unseen(self, data: mujoco.MjData, camera: int, aspect: float) -> None:
        """Take geoms whose bounding sphere lies outside the camera's view out of the scene.

        MuJoCo draws everything, and on a CPU the vertices are the cost; the wrist sees little of
        the arm.
        """
        offset = data.geom_xpos - data.cam_xpos[camera]
        x, y, z = (offset @ data.cam_xmat[camera].reshape(3, 3)).T
        radius = self._model.geom_rbound
        slope_y = np.tan(np.deg2rad(self._model.cam_fovy[camera]) / 2)
        slope_x = slope_y * aspect
        unseen = (z > radius) | (np.abs(x) + z * slope_x > radius * np.hypot(1, slope_x))
        unseen |= np.abs(y) + z * slope_y > radius * np.hypot(1, slope_y)
        unseen &= radius > 0  # a plane has none
        if not unseen.any():
            return
        hidden = set(np.flatnonzero(unseen).tolist())
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.objtype == _GEOM and geom.objid in hidden:
                geom.type = _NOT_DRAWN


def _fixed_camera(camera: int) -> mujoco.MjvCamera:
    view = mujoco.MjvCamera()
    view.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
    view.fixedcamid = camera
    return view


def _make_context(model: mujoco.MjModel, view: mujoco.MjrRect) -> mujoco.MjrContext:
    """Upload the model's meshes and textures and make a buffer of the picture's size."""
    size = model.vis.global_
    before = size.offwidth, size.offheight
    # MuJoCo would first make a buffer of the model's size, which takes longer than the rest
    size.offwidth, size.offheight = MIN_SIZE_PX, MIN_SIZE_PX
    try:
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
    except mujoco.FatalError as error:  # no display, say
        raise gl_error(error) from error
    finally:
        size.offwidth, size.offheight = before
    mujoco.mjr_resizeOffscreen(view.width, view.height, context)
    context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR.value
    return context
