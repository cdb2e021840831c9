"""What to do about a missing OpenGL library; imports nothing that needs one."""

from __future__ import annotations

import os

GL_HELP = (
    "No OpenGL library for headless rendering could be used (MUJOCO_GL={backend}). On Debian or "
    "Ubuntu: apt-get install libegl1 libgl1 libgl1-mesa-dri libglib2.0-0, then set MUJOCO_GL=egl; "
    "or apt-get install libosmesa6 and set MUJOCO_GL=osmesa. The original error: {error}"
)


def gl_error(error: object) -> RuntimeError:
    """Return the error that says what to install, for whatever went wrong with OpenGL."""
    backend = os.environ.get("MUJOCO_GL", "unset")
    return RuntimeError(GL_HELP.format(backend=backend, error=error))
