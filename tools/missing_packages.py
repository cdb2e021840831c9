"""Print the Debian packages that this machine lacks, one a line: package, tab, reason.

Looks for what pip cannot install: the libraries for rendering without a screen, and what building
evdev from source takes (robosuite -> pynput -> evdev, which has no wheel). It tries the thing
itself rather than asking dpkg, so that libraries from elsewhere count. Standard library only: it
runs before anything is installed. With the argument `tests`, it names what tests alone need.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

EGL_PLATFORM_DEVICE_EXT = 0x313F
MAX_EGL_DEVICES = 16


def loads(library: str) -> bool:
    """Tell whether the dynamic linker finds and loads `library`."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def egl_works() -> bool:
    """Tell whether some EGL device initialises, in the way MuJoCo and robosuite ask for it."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return False
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    addresses = [
        egl.eglGetProcAddress(name) for name in (b"eglQueryDevicesEXT", b"eglGetPlatformDisplayEXT")
    ]
    if not all(addresses):
        return False
    pointer = ctypes.c_void_p
    query_devices = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, pointer, pointer)(addresses[0])
    get_display = ctypes.CFUNCTYPE(pointer, ctypes.c_uint, pointer, pointer)(addresses[1])
    devices = (pointer * MAX_EGL_DEVICES)()
    count = ctypes.c_int()
    if not query_devices(MAX_EGL_DEVICES, devices, ctypes.byref(count)):
        return False
    egl.eglInitialize.argtypes = [pointer, pointer, pointer]
    for device in devices[: count.value]:
        display = get_display(EGL_PLATFORM_DEVICE_EXT, device, None)
        if display and egl.eglInitialize(display, None, None):
            return True
    return False


def missing_rendering() -> dict[str, str]:
    """Return package -> reason for the libraries that `import cv2` and rendering load."""
    missing = {}
    if not loads("libGL.so.1"):
        missing["libgl1"] = "libGL.so.1 (imported by robosuite through OpenCV)"
    if not loads("libgthread-2.0.so.0"):
        missing["libglib2.0-0"] = "libgthread-2.0.so.0 (imported by robosuite through OpenCV)"
    # jepa_gym.envs falls back on OSMesa by the same rule.
    osmesa_only = not loads("libEGL.so.1") and loads("libOSMesa.so.8")
    backend = os.environ.get("MUJOCO_GL", "osmesa" if osmesa_only else "egl").lower()
    if backend == "osmesa" and not loads("libOSMesa.so.8"):
        missing["libosmesa6"] = "libOSMesa.so.8 (MUJOCO_GL=osmesa)"
    if backend == "egl":
        reason = "rendering without a screen: no EGL device initialises"
        if not loads("libEGL.so.1"):
            missing["libegl1"] = f"{reason}, libEGL.so.1 is missing"
            missing["libgl1-mesa-dri"] = reason
        elif not egl_works():
            missing["libegl-mesa0"] = missing["libgl1-mesa-dri"] = reason
    return missing


def missing_build() -> dict[str, str]:
    """Return package -> reason for what compiling evdev against this Python needs."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        reason = f"the C compiler `{compiler}`, to build evdev (CC=... chooses another)"
        needed: dict[str, str] = dict.fromkeys(("gcc", "libc6-dev", "linux-libc-dev"), reason)
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            needed[python_package("dev")] = "Python.h, to build evdev"
        return needed
    headers = {
        "limits.h": "libc6-dev",
        "linux/input.h": "linux-libc-dev",
        "Python.h": python_package("dev"),
    }
    return {
        package: f"{header}, to build evdev"
        for header, package in headers.items()
        if not compiles(compiler, f"#include <{header}>\n")
    }


def compiles(compiler: str, source: str) -> bool:
    """Tell whether `compiler` accepts `source` with the headers of this Python."""
    include = f"-I{sysconfig.get_path('include')}"
    command = [compiler, include, "-fsyntax-only", "-x", "c", "-"]
    return subprocess.run(command, input=source.encode(), capture_output=True).returncode == 0


def python_package(suffix: str) -> str:
    """Return the Debian name of a part of this Python, such as python3.11-venv."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}-{suffix}"


def missing_packages() -> dict[str, str]:
    """Return every missing Debian package with the reason; empty where the set-up can go on."""
    missing = {}
    if shutil.which("make") is None:
        missing["make"] = "make"
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        missing[python_package("venv")] = "the venv module of Python"
    if sys.platform != "linux":
        return missing
    return missing | missing_rendering() | missing_build()


def missing_for_tests() -> dict[str, str]:
    """Return package -> reason for what tests alone need; without it they are skipped."""
    if shutil.which("chromium") is None:
        return {"chromium": "a browser, to test `jepa-gym play`"}
    return {}


if __name__ == "__main__":
    tests_alone = sys.argv[1:] == ["tests"]
    for name, why in (missing_for_tests() if tests_alone else missing_packages()).items():
        print(f"{name}\t{why}")
