"""The renderer: whose context, which pixels, how far, and that nothing is left behind."""

from __future__ import annotations

import copy
import gc
import os
import re
import shutil
import subprocess
import sys
import threading
import types

import mujoco
import numpy as np
import pytest

from jepa_gym.envs.physics.scene import HOME, scene_model
from jepa_gym.envs.pictures import gl_context, rendering
from jepa_gym.envs.pictures.rendering import FrameRenderer, parse_cameras, parse_size

SIZE = (96, 96)
BALL = """
<mujoco>
  <visual><headlight ambient="1 1 1"/></visual>
  <statistic extent="1"/>
  <worldbody>
    <camera name="left" fovy="50"/>
    <camera name="wrist" pos="0 0 1" fovy="50"/>
    <geom type="sphere" size="0.02" pos="0.2 0.1 -1" rgba="1 1 1 1" group="1"/>
  </worldbody>
</mujoco>
"""


def at_home(obj: str = "box") -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = scene_model(obj)
    data = mujoco.MjData(model)
    data.qpos[:7] = HOME
    mujoco.mj_forward(model, data)
    return model, data


@pytest.fixture
def ball() -> tuple[mujoco.MjModel, mujoco.MjData]:
    """A white ball 1 m in front of the camera, 20 cm to the right and 10 cm above its axis."""
    model = mujoco.MjModel.from_xml_string(BALL)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh Python without MUJOCO_GL, unless it is given."""
    inherited = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


RENDER = """
import numpy as np
from jepa_gym.envs.pictures.rendering import FrameRenderer
from jepa_gym.envs.physics.scene import scene_model
model = scene_model("box")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = FrameRenderer(model, ("left",), (64, 64))
assert renderer.render(data).std() > 20
"""


@pytest.mark.parametrize("first", ["mujoco", "jepa_gym", "OpenGL.GL"])
def test_the_order_of_imports_does_not_matter_and_exit_is_silent(first):
    platform = {"PYOPENGL_PLATFORM": "egl"} if first == "OpenGL.GL" else {}
    check = "import os; assert 'MUJOCO_GL' not in os.environ and 'LP_NUM_THREADS' not in os.environ"
    result = python(f"import {first}\nimport mujoco{RENDER}{check}", **platform)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("backend", "loaded", "message"),
    [
        ("disabled", None, "MUJOCO_GL=disabled.*libegl1.*libosmesa6.*switches rendering off"),
        ("egll", None, "libegl1.*must be egl, osmesa, glfw or disabled"),
        ("osmesa", "EGLPlatform", "MUJOCO_GL=osmesa.*EGLPlatform.*PYOPENGL_PLATFORM=osmesa"),
    ],
)
def test_an_unusable_backend_is_named_with_the_packages(monkeypatch, backend, loaded, message):
    monkeypatch.setenv("MUJOCO_GL", backend)
    monkeypatch.setattr(gl_context, "_contexts", [])
    platform = types.SimpleNamespace(PLATFORM=loaded and type(loaded, (), {})())
    monkeypatch.setitem(sys.modules, "OpenGL.platform", platform)
    with pytest.raises(RuntimeError, match=message):
        gl_context.shared_context()


def test_osmesa_is_tried_where_egl_is_missing(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(gl_context, "_contexts", [])
    monkeypatch.setattr(gl_context, "_is_installed", lambda library: library == "OSMesa")
    monkeypatch.setitem(sys.modules, "OpenGL.platform", None)
    monkeypatch.setitem(sys.modules, "mujoco.osmesa", None)  # its import fails
    with pytest.raises(RuntimeError, match=r"MUJOCO_GL=unset.*libosmesa6.*mujoco\.osmesa"):
        gl_context.shared_context()


def test_a_fork_renders_anew_and_refuses_its_parents_renderer():
    code = f"""
import mujoco, os, signal{RENDER}
picture = renderer.render(data)
child = os.fork()
if child == 0:
    signal.alarm(30)
    try:
        renderer.render(data)
    except RuntimeError as error:
        assert "fork" in str(error)
    renderer.close()
    own = FrameRenderer(model, ("left",), (64, 64))
    assert np.array_equal(own.render(data), picture)
    raise SystemExit(0)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(renderer.render(data), picture)
"""
    result = python(code)
    assert (result.returncode, result.stderr) == (0, "")


def test_other_libraries_renderers_and_ours_leave_each_other_alone():
    """Rendering, closing and collection, in both directions; exit is silent."""
    code = f"""
import os, gc
os.environ["MUJOCO_GL"] = "egl"
import mujoco{RENDER}
from OpenGL import EGL
picture = renderer.render(data)
other = mujoco.Renderer(model, 64, 64)
other.update_scene(data, "left")
theirs = other.render()
here = EGL.eglGetCurrentContext().address
assert np.array_equal(renderer.render(data), picture)
renderer.close()
assert EGL.eglGetCurrentContext().address == here
assert np.array_equal(other.render(), theirs)
renderer = FrameRenderer(model, ("left",), (64, 64))
del other
gc.collect()
assert np.array_equal(renderer.render(data), picture)

# as robosuite does: objects freed when their own context may no longer be current
gl = mujoco.GLContext(64, 64)
gl.make_current()
context = mujoco.MjrContext(model, 50)
gl.free()
assert np.array_equal(renderer.render(data), picture)
context.free()
assert np.array_equal(renderer.render(data), picture)
"""
    result = python(code)
    assert (result.returncode, result.stderr) == (0, "")


def test_renderers_of_two_models_do_not_disturb_each_other():
    scenes = {obj: at_home(obj) for obj in ("box", "cup")}
    alone = {}
    for obj, (model, data) in scenes.items():
        renderer = FrameRenderer(model, ("left", "wrist"), SIZE)
        alone[obj] = renderer.render(data), renderer.depth(data)
        renderer.close()
    assert not np.array_equal(alone["box"][0], alone["cup"][0])
    kept = {
        obj: FrameRenderer(model, ("left", "wrist"), SIZE) for obj, (model, _) in scenes.items()
    }
    for turn in range(4):
        dropped = FrameRenderer(scenes["cup"][0], ("left",), (32, 48))
        dropped.render(scenes["cup"][1])
        if turn % 2:
            dropped.close()
        del dropped
        gc.collect()
        for obj, (_, data) in scenes.items():
            assert np.array_equal(kept[obj].render(data), alone[obj][0])
            assert np.array_equal(kept[obj].depth(data), alone[obj][1])
    for renderer in kept.values():
        renderer.close()


def test_a_renderer_works_in_other_threads():
    model, data = at_home()
    renderer = FrameRenderer(model, ("left",), SIZE)
    expected, seen = renderer.render(data), []

    def work():
        own = FrameRenderer(model, ("left",), SIZE)
        own_data = mujoco.MjData(model)
        own_data.qpos[:] = data.qpos
        mujoco.mj_forward(model, own_data)
        for _ in range(5):
            seen.extend((renderer.render(data), own.render(own_data)))
        own.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 30 and all(np.array_equal(frame, expected) for frame in seen)
    renderer.close()


def test_close_twice_then_an_error():
    model, data = at_home()
    renderer = FrameRenderer(model, ("left",), SIZE)
    renderer.close()
    renderer.close()
    with pytest.raises(RuntimeError, match="closed"):
        renderer.render(data)


def test_a_lost_buffer_is_an_error_and_not_an_old_picture():
    from OpenGL import GL

    model, data = at_home()
    renderer = FrameRenderer(model, ("left",), SIZE)
    renderer.render(data)
    with renderer._selected() as context:
        GL.glDeleteFramebuffers(1, [context.offFBO])
    with pytest.raises(RuntimeError, match="OpenGL reports error"):
        renderer.render(data)
    renderer.close()


def test_every_frame_is_a_new_array_of_the_right_shape():
    model, data = at_home()
    renderer = FrameRenderer(model, ("left", "wrist"), (48, 80))
    first, second = renderer.render(data), renderer.render(data)
    assert first.shape == (48, 160, 3) and first.dtype == np.uint8
    assert first.flags.c_contiguous and not np.shares_memory(first, second)
    assert np.array_equal(first, second)
    depth = renderer.depth(data)
    assert depth.shape == (48, 160) and depth.dtype == np.float32
    left, wrist = (FrameRenderer(model, (name,), (48, 80)) for name in ("left", "wrist"))
    assert np.array_equal(first, np.hstack([left.render(data), wrist.render(data)]))
    assert np.array_equal(depth, np.hstack([left.depth(data), wrist.depth(data)]))
    assert np.array_equal(renderer.render(data), first), "depth leaves the colours alone"
    for made in (renderer, left, wrist):
        made.close()


def test_depth_of_the_table_is_the_geometrys():
    """A ray through a pixel's centre meets the table's plane where the depth picture says."""
    model, data = at_home()
    data.qpos[model.joint("object").qposadr[0] :][:2] = 0.5, -0.3
    mujoco.mj_forward(model, data)
    height, width = 120, 160
    renderer = FrameRenderer(model, ("left",), (height, width))
    depth = renderer.depth(data)
    renderer.close()
    camera = data.camera("left")
    slope = np.tan(np.deg2rad(model.camera("left").fovy[0]) / 2)
    row, column = np.mgrid[:height, :width]
    x = (2 * (column + 0.5) / width - 1) * slope * width / height
    y = (1 - 2 * (row + 0.5) / height) * slope
    rays = np.stack([x, y, -np.ones_like(x)], -1) @ camera.xmat.reshape(3, 3).T
    table = -camera.xpos[2] / rays[..., 2]
    meets = camera.xpos + table[..., None] * rays
    top = (np.abs(meets[..., 0] - 0.4) < 0.58) & (np.abs(meets[..., 1]) < 0.68) & (table > 0)
    error = (depth - table)[top]
    assert top.mean() > 0.4
    assert np.median(np.abs(error)) < 0.0005
    assert np.mean(np.abs(error) < 0.001) > 0.6, "bare table"
    assert error.max() < 0.001, "the arm stands before the table, nothing behind it"


@pytest.mark.parametrize(
    ("aspect", "size"), [(None, (128, 128)), (None, (96, 192)), (1.35, (128, 128)), (2.0, (64, 96))]
)
def test_aspect_decides_where_a_point_falls(ball, monkeypatch, aspect, size):
    monkeypatch.setattr(rendering, "camera_aspect", lambda name: aspect)
    renderer = FrameRenderer(ball[0], ("left",), size)
    white = renderer.render(ball[1])[..., 0] > 128
    renderer.close()
    rows, columns = np.nonzero(white)
    slope = np.tan(np.deg2rad(25))
    field = size[1] / size[0] if aspect is None else aspect
    assert (columns.mean() + 0.5) / size[1] == pytest.approx(
        0.5 + 0.5 * 0.2 / slope / field, abs=0.006
    )
    assert (rows.mean() + 0.5) / size[0] == pytest.approx(0.5 - 0.5 * 0.1 / slope, abs=0.006)


def test_what_is_left_out_would_not_have_been_seen(monkeypatch):
    """Geoms outside the view are skipped; not one pixel may differ from drawing everything."""
    model, data = at_home("cup")
    rng = np.random.default_rng(0)
    cameras = ("left", "wrist")
    plain = FrameRenderer(model, cameras, (64, 64))
    for _ in range(15):
        data.qpos[:7] = np.array(HOME) + rng.uniform(-0.4, 0.4, 7)
        mujoco.mj_forward(model, data)
        skipped = plain.render(data)
        with monkeypatch.context() as patch:
            patch.setattr(FrameRenderer, "_skip_unseen", lambda *_: None)
            assert np.array_equal(skipped, plain.render(data))
    plain.close()


def test_changed_vertices_are_drawn_after_upload():
    model, data = at_home()
    own = copy.copy(model)
    renderer = FrameRenderer(own, ("left",), SIZE)
    before = renderer.render(data)
    own.mesh_vert[:] *= 1.3
    assert np.array_equal(renderer.render(data), before)
    for mesh in range(own.nmesh):
        renderer.upload_mesh(mesh)
    assert (np.abs(renderer.render(data).astype(int) - before) > 30).mean() > 0.01
    renderer.close()


NO_LIBRARY = """
import ctypes, ctypes.util, os, sys

os.environ["MUJOCO_GL"] = sys.argv[1]
ctypes.util.find_library = lambda name: None

class Library(ctypes.CDLL):
    def __init__(self, name, *more, **kwargs):
        if "GL" in str(name) or "Mesa" in str(name):
            raise OSError(f"{name}: cannot open shared object file")
        super().__init__(name, *more, **kwargs)

ctypes.CDLL, ctypes.cdll = Library, ctypes.LibraryLoader(Library)
import gymnasium as gym, jepa_gym
gym.make("FrankaReach-v0", image_size=32)
"""


@pytest.mark.parametrize("backend", ["egl", "osmesa", "glfw"])
def test_a_missing_library_is_one_clear_line(backend):
    """MuJoCo loads the library that MUJOCO_GL names at its import, and PyOpenGL stumbles."""
    command = [sys.executable, "-c", NO_LIBRARY, backend]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert re.match(
        rf"RuntimeError: No OpenGL library .*MUJOCO_GL={backend}.*apt-get install libegl1",
        said.splitlines()[-1],
    )


def test_sizes():
    assert parse_size(128) == (128, 128) == parse_size(np.int64(128))
    assert parse_size((96, 128)) == parse_size([96, 128]) == (96, 128)
    for bad in (15, 1025, 128.0, "128", None, (128,), (128, 128, 3), (128, 8), (128, 64.5), [], -1):
        with pytest.raises(ValueError, match=r"image_size.*\[16, 1024\]"):
            parse_size(bad)


def test_camera_names():
    assert parse_cameras("left+wrist") == ("left", "wrist")
    for bad in ("lef", "left+left", "left+", ""):
        with pytest.raises(ValueError, match=r"left.*wrist"):
            parse_cameras(bad)


def test_making_and_dropping_renderers_leaves_no_memory_behind():
    model, data = at_home()

    def resident_mib() -> float:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def use(count: int) -> None:
        for index in range(count):
            renderer = FrameRenderer(model, ("left",), SIZE)
            renderer.render(data)
            if index % 2:
                renderer.close()

    use(10)
    before = resident_mib()
    use(60)
    assert resident_mib() - before < 15


@pytest.mark.parametrize(("free", "left_alone"), [(10**6, True), (10**9, False)])
def test_a_nearly_full_disk_gets_no_shaders(monkeypatch, tmp_path, free, left_alone):
    """Mesa maps its cache into memory: on a full disk the process would die of a bus error."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not made yet"))
    monkeypatch.delenv("MESA_SHADER_CACHE_DIR", raising=False)
    monkeypatch.delenv("MESA_SHADER_CACHE_DISABLE", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free))
    with gl_context._mesa_set_up():
        assert ("MESA_SHADER_CACHE_DISABLE" in os.environ) == left_alone
    assert "MESA_SHADER_CACHE_DISABLE" not in os.environ


def test_what_the_user_set_for_mesa_stays(monkeypatch):
    monkeypatch.setenv("LP_NUM_THREADS", "2")
    with gl_context._mesa_set_up():
        assert os.environ["LP_NUM_THREADS"] == "2"
    assert os.environ["LP_NUM_THREADS"] == "2"
