"""The OpenGL context for headless rendering: chosen by us, one per process, shared by renderers.

MuJoCo chooses its context class when `mujoco` is imported, and without `MUJOCO_GL` takes one that
needs a desktop. Here the choice is made when the first picture is wanted, whatever was imported
before. All renderers share one context: Mesa compiles its shaders once per context, which would be
90 % of the time that making a renderer takes.
"""

from __future__ import annotations

import atexit
import ctypes
import ctypes.util
import functools
import importlib
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mujoco

from jepa_gym.envs.pictures.gl_help import gl_error

_OFF = ("disable", "disabled", "off", "false", "0")
_DESKTOP = ("glfw", "glx", "enable", "enabled", "on", "true", "1")
SHADER_BYTES = 2**26
"""Free space below which Mesa's cache of shaders is left alone."""
_lock = threading.RLock()
_contexts: list[SharedContext] = []
"""This process's context, last; before it those inherited by a fork, never to be touched again."""


class SharedContext:
    """The process's OpenGL context, and the MuJoCo contexts that live in it.

    A `mujoco.MjrContext` deletes its OpenGL objects, by number, in whatever context is current when
    it is freed or garbage collected: it may wipe out those of another renderer. Here each is held
    until it can be freed where it was made, and outside of `current` our context is not current, so
    that other libraries' renderers in the process cannot do the same to ours.
    """

    def __init__(self) -> None:
        self._gl = _make_gl_context()
        self.egl = importlib.import_module("OpenGL.EGL") if _is_egl(self._gl) else None
        self._process = os.getpid()
        self._held: dict[int, mujoco.MjrContext] = {}
        self._doomed: list[mujoco.MjrContext] = []
        self._is_open = True

    @property
    def usable(self) -> bool:
        """Whether this is the process that made the context, and not its exit."""
        return self._is_open and self._process == os.getpid()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Direct the thread's OpenGL calls to this context; the one before is restored at the end.

        Raises:
            RuntimeError: Called in a forked copy of the process that made the context.
        """
        if not self.usable:
            raise RuntimeError(
                "A renderer works only in the process that made it. Make each environment after "
                "the fork, in the process where it is used."
            )
        with _lock:
            before = self._current_egl()
            self._gl.make_current()
            try:
                while self._doomed:
                    context = self._doomed.pop()
                    context.free()
                    del self._held[id(context)]
                yield
            finally:
                if self.egl is not None:
                    self.egl.eglMakeCurrent(*before)

    def _current_egl(self) -> tuple:
        """Return what `eglMakeCurrent` needs to go back to the thread's present state."""
        egl = self.egl
        if egl is None:
            return ()
        egl.eglBindAPI(egl.EGL_OPENGL_API)  # per thread, and reset by every `eglReleaseThread`
        context = egl.eglGetCurrentContext()
        if not context:
            display = sys.modules["mujoco.egl"].EGL_DISPLAY
            return display, egl.EGL_NO_SURFACE, egl.EGL_NO_SURFACE, egl.EGL_NO_CONTEXT
        surfaces = (egl.eglGetCurrentSurface(kind) for kind in (egl.EGL_DRAW, egl.EGL_READ))
        return egl.eglGetCurrentDisplay(), *surfaces, context

    def hold(self, context: mujoco.MjrContext) -> None:
        """Keep `context`, made while this context was current, until `free`."""
        self._held[id(context)] = context

    def free(self, context: mujoco.MjrContext, *, later: bool = False) -> None:
        """Free `context` now, or before the next use (from `__del__`, which may interrupt one)."""
        if self.usable:
            self._doomed.append(context)
            if not later:
                with self.current():
                    pass

    def close(self) -> None:
        """Free everything, at the end of the process, before MuJoCo shuts the library down."""
        if self.usable:
            self._doomed = list(self._held.values())
            with self.current():
                pass
            self._gl.free()
        self._is_open = False


def shared_context() -> SharedContext:
    """Return the process's context, made at the first call.

    Raises:
        RuntimeError: No usable OpenGL library; the message names the packages to install.
    """
    with _lock:
        if not _contexts or not _contexts[-1].usable:
            _contexts.append(SharedContext())
            _close_at_exit()
        return _contexts[-1]


def _close_all() -> None:
    for context in _contexts:
        # another library may have shut the display down already; then nothing is left to free
        with suppress(Exception):
            context.close()


@functools.cache
def _close_at_exit() -> None:
    # handlers run in reverse order: MuJoCo registered its own while the first context was made
    atexit.register(_close_all)
    if egl := _contexts[-1].egl:
        # MuJoCo's handler would wait in a forked child for threads that only the parent has
        os.register_at_fork(after_in_child=lambda: atexit.unregister(egl.eglTerminate))


def _is_egl(gl: Any) -> bool:
    return type(gl).__module__ == "mujoco.egl"


def _make_gl_context() -> Any:
    try:
        with _mesa_set_up():
            return _context_class()(64, 64)  # pictures go to offscreen buffers of their own size
    except Exception as error:  # the back ends raise half a dozen unrelated types
        raise gl_error(error) from error


def _context_class() -> Callable[[int, int], Any]:
    """Return the `GLContext` that MUJOCO_GL names; unset, EGL, or OSMesa where EGL is missing."""
    backend = os.environ.get("MUJOCO_GL", "").lower().strip()
    if backend in _OFF:
        raise ValueError("MUJOCO_GL switches rendering off")
    if sys.platform != "linux":
        return mujoco.GLContext
    if not backend:
        osmesa_only = not _is_installed("EGL") and _is_installed("OSMesa")
        backend = "osmesa" if osmesa_only else "egl"
    if backend in _DESKTOP:
        backend = "glfw"
    if backend not in ("egl", "osmesa", "glfw"):
        raise ValueError("MUJOCO_GL must be egl, osmesa, glfw or disabled")
    pyopengl = getattr(sys.modules.get("OpenGL.platform"), "PLATFORM", None)
    if backend != "glfw" and pyopengl and not type(pyopengl).__name__.lower().startswith(backend):
        raise ValueError(
            f"PyOpenGL was imported before, for another platform ({type(pyopengl).__name__}); set "
            f"PYOPENGL_PLATFORM={backend} before Python starts"
        )
    return importlib.import_module(f"mujoco.{backend}").GLContext


def _is_installed(library: str) -> bool:
    return ctypes.util.find_library(library) is not None


@contextmanager
def _mesa_set_up() -> Iterator[None]:
    """Set what Mesa reads when a context is made, unless the user has set it.

    Its CPU renderer works in the calling thread: at these sizes its threads cost more than they
    bring, and a fork of a process that has them waits for them forever (Gymnasium's AsyncVectorEnv
    makes one environment before it forks). Its cache of shaders, which saves 0.1 s, is left alone
    where the disk is nearly full: it is mapped into memory, so that the process would die of a bus
    error.
    """
    wanted = {"LP_NUM_THREADS": "0"}
    if not _room_for_shaders():
        wanted["MESA_SHADER_CACHE_DISABLE"] = "true"
    added = [name for name in wanted if name not in os.environ]
    os.environ.update({name: wanted[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _room_for_shaders() -> bool:
    """Tell whether the disk of Mesa's cache has room; a folder that nobody finds has none."""
    named = os.environ.get("MESA_SHADER_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(named) if named else Path.home() / ".cache"
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        return shutil.disk_usage(existing).free >= SHADER_BYTES
    except (OSError, RuntimeError, StopIteration):
        return False
