"""Windows on the simulation: `render_mode="human"`, and MuJoCo's own viewer."""

from __future__ import annotations

import os
import sys
from typing import Any

import mujoco
import numpy as np

from jepa_gym.envs.pictures.rendering import FrameRenderer

VIEW_PX = 480
"""Height and width of one camera's picture in a window."""


class Window:
    """A window that shows the cameras of a scene, larger than what is observed.

    Whoever closes it goes on without it.

    Args:
        cameras: Names, from left to right.
        title: Above the window.
        frames_per_second: Pace; a step that took less time is waited for.

    Raises:
        ImportError: Without pygame.
        RuntimeError: Without a display.
    """

    def __init__(self, cameras: tuple[str, ...], title: str, frames_per_second: float) -> None:
        try:
            import pygame
        except ImportError as error:
            raise ImportError(
                'render_mode="human" needs pygame: pip install "jepa-gym[sim]"'
            ) from error
        self._pygame: Any = pygame
        self._cameras, self._pace = cameras, frames_per_second
        self._frames: FrameRenderer | None = None
        try:
            pygame.display.init()
            self._screen: Any = pygame.display.set_mode((VIEW_PX * len(cameras), VIEW_PX))
        except pygame.error as error:
            pygame.display.quit()
            raise RuntimeError(
                f'render_mode="human" needs a display ({error}); without one take '
                'render_mode="rgb_array", `jepa-gym play` in a browser, or SDL_VIDEODRIVER=dummy.'
            ) from error
        pygame.display.set_caption(title)
        self._clock = pygame.time.Clock()

    @property
    def open(self) -> bool:
        """Whether there is a window."""
        return self._screen is not None

    def look_at(self, model: mujoco.MjModel) -> None:
        """Show this model from now on, with its present colours, textures and meshes."""
        self._free()
        if self.open:
            self._frames = FrameRenderer(model, self._cameras, (VIEW_PX, VIEW_PX))

    def show(self, data: mujoco.MjData) -> None:
        """Draw a state and wait until its time is over."""
        if not self.open or self._frames is None:
            return
        pygame = self._pygame
        if any(event.type == pygame.QUIT for event in pygame.event.get()):
            self.close()
            return
        picture = np.ascontiguousarray(self._frames.render(data).swapaxes(0, 1))
        self._screen.blit(pygame.surfarray.make_surface(picture), (0, 0))
        pygame.display.flip()
        self._clock.tick(self._pace)

    def close(self) -> None:
        """Close the window; safe to call twice."""
        self._free()
        if self.open:
            self._screen = None
            self._pygame.display.quit()

    def _free(self) -> None:
        if self._frames is not None:
            self._frames.close()
            self._frames = None


def passive_viewer(model: mujoco.MjModel, data: mujoco.MjData) -> Any:
    """Open MuJoCo's own viewer on a running simulation.

    Args:
        model: The scene.
        data: Its state; call `sync()` of the viewer after each step.

    Returns:
        The handle of `mujoco.viewer.launch_passive`, a context manager.

    Raises:
        RuntimeError: Without a display.
    """
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in displays):
        raise RuntimeError(
            f"MuJoCo's viewer needs a display, and neither {' nor '.join(displays)} is set; over "
            'ssh take `ssh -X`, or without a display render_mode="rgb_array" or `jepa-gym play` '
            "in a browser."
        )
    import mujoco.viewer

    return mujoco.viewer.launch_passive(model, data)
