"""Variations: looks that do what they say and leave no trace."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jepa_gym.envs.physics import objects, scene
from jepa_gym.envs.physics.objects import OBJECTS
from jepa_gym.envs.physics.stage import Stage
from jepa_gym.envs.pictures.cameras import camera_azimuth_deg
from jepa_gym.envs.pictures.textures import TEXTURES
from jepa_gym.envs.variations import Distractor, Variation

CLUTTER = {"distractors": [{"shape": shape} for shape in ("capsule", "ellipsoid", "cylinder")]}


def pictures(env, **factors) -> np.ndarray:
    return env.reset(seed=3, options={"variation": factors})[0]["pixels"].astype(int)


@pytest.mark.parametrize(
    "factors",
    [
        {"object_rgb": (0.1, 0.8, 0.1)},
        {"object_texture": TEXTURES[0]},
        {"object_scale": 0.85},
        {"table_texture": TEXTURES[1]},
        {"background_texture": TEXTURES[2]},
        {"table_texture": "generated-17"},
        {"robot_texture": "generated-19"},
        {"object_texture": "generated-20"},
        {"light_rgb": (1.0, 0.8, 0.7)},
        {"light_elevation_deg": -30.0},
        {"camera_zoom": 0.8},
        {"light": 0.6},
        {"light_azimuth_deg": 120.0},
        {"camera_azimuth_deg": 15.0},
        {"camera_elevation_deg": 10.0},
        {"camera_distance": 0.85},
        {"start_yaw_rad": 0.3},
        CLUTTER,
    ],
)
def test_every_factor_shows_and_leaves_no_trace(make, factors):
    env = make("FrankaGrasp-v0", obj="cup").unwrapped
    plain = pictures(env)
    changed = np.abs(pictures(env, **factors) - plain).max(-1) > 8
    assert changed.mean() > 0.001, "the factor must be visible"
    assert np.array_equal(pictures(env), plain), "the next episode must not see it"


def test_camera_factors_move_the_camera_about_its_target(make):
    env = make("FrankaReach-v0", image_size=32).unwrapped
    assert camera_azimuth_deg("left") == pytest.approx(49.05, abs=0.01)
    target = np.array(scene.CAMERAS["left"].target)
    env.reset(seed=0)
    before = env.data.camera("left").xpos - target
    env.reset(seed=0, options={"variation": {"camera_azimuth_deg": -14.05}})
    after = env.data.camera("left").xpos - target
    assert np.rad2deg(np.arctan2(after[1], after[0])) == pytest.approx(35.0, abs=0.01)
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before))
    assert after[2] == pytest.approx(before[2])
    wrist = env.data.camera("wrist").xpos.copy()
    env.reset(seed=0)
    assert np.allclose(env.data.camera("wrist").xpos, wrist)


@pytest.mark.parametrize("name", ["box", "cup", "milk"])
def test_scaling_in_place_equals_compiling_the_smaller_object(monkeypatch, name):
    stage = Stage(name, "plain", (), (64, 64))
    stage.show(Variation(object_scale=0.9))
    entry = OBJECTS[name]

    def build(spec, body):
        entry.build(spec, body)
        for geom in body.geoms:
            geom.size, geom.pos = np.multiply(geom.size, 0.9), np.multiply(geom.pos, 0.9)
            if geom.meshname:
                mesh = spec.mesh(geom.meshname)
                if mesh.name not in scaled:
                    mesh.scale = np.multiply(mesh.scale, 0.9)
                    scaled.add(mesh.name)

    scaled: set[str] = set()
    smaller = dataclasses.replace(entry, build=build)
    monkeypatch.setitem(objects.OBJECTS, "smaller", smaller)
    compiled = scene.scene_model.__wrapped__("smaller")
    # where the object waits before it is placed, and how its mesh came from its file
    ignored = {"qpos0", "qpos_spring", "body_pos", "cam_poscom0", "light_poscom0"}
    ignored |= {"mesh_scale", "mesh_pos"}
    for field in dir(compiled):
        value = getattr(compiled, field)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and field not in ignored:
            assert np.allclose(value, getattr(stage.model, field), rtol=1e-5, atol=1e-7), field


def test_a_texture_is_shown_as_it_is_whatever_was_shown_before(make):
    """The slot of a surface holds pictures of two sizes, one after the other."""
    env, fresh = (make("FrankaReach-v0", image_size=64).unwrapped for _ in range(2))
    for name in ("generated-1", "wood", "generated-2", "generated-1"):
        look = {"table_texture": name, "background_texture": name, "object_texture": name}
        shown = pictures(env, **look)
    assert np.array_equal(shown, pictures(fresh, **look))


def test_the_floor_is_as_the_walls_unless_it_is_said(make):
    env = make("FrankaReach-v0").unwrapped
    look = {"camera_distance": 1.4, "background_texture": "wood"}  # from afar the floor shows
    both = pictures(env, **look)
    assert np.array_equal(both, pictures(env, **look, floor_texture="wood"))
    assert not np.array_equal(both, pictures(env, **look, floor_texture="generated-18"))
    env.reset(seed=3, options={"variation": {"floor_texture": "wood"}})
    wall = env.model.geom("back_wall").id
    assert env.model.geom_matid[wall] == -1


def test_zoom_and_distance_keep_the_size_of_what_the_camera_looks_at(make):
    env = make("FrankaReach-v0", image_size=128).unwrapped
    camera = env.model.camera("left").id

    def size() -> float:
        away = np.linalg.norm(env.data.cam_xpos[camera] - scene.CAMERAS["left"].target)
        return 1 / (away * np.tan(np.deg2rad(env.model.cam_fovy[camera]) / 2))

    env.reset(seed=0)
    before = size()
    env.reset(seed=0, options={"variation": {"camera_distance": 1.4, "camera_zoom": 1.4}})
    assert size() == pytest.approx(before)
    env.reset(seed=0, options={"variation": {"camera_zoom": 1.4}})
    assert size() == pytest.approx(1.4 * before)


def test_lamps_turn_and_rise_about_the_table(make):
    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    env.reset(seed=0)
    offset = env.model.light_pos - [0.4, 0, 0]
    env.reset(
        seed=0, options={"variation": {"light_azimuth_deg": 90.0, "light_elevation_deg": -20.0}}
    )
    moved, direction = env.model.light_pos - [0.4, 0, 0], env.model.light_dir
    assert np.allclose(np.linalg.norm(moved, axis=1), np.linalg.norm(offset, axis=1))
    for before, after in zip(offset, moved, strict=True):
        rise = [np.arctan2(v[2], np.hypot(*v[:2])) for v in (before, after)]
        assert np.rad2deg(rise[1] - rise[0]) == pytest.approx(-20.0)
        assert before[:2] @ after[:2] == pytest.approx(0.0, abs=1e-9)
    assert np.allclose(direction, -moved / np.linalg.norm(moved, axis=1, keepdims=True))


@pytest.mark.parametrize(
    "name", ["generated-", "generated-x", "generated-007", "generated--1", f"generated-{10**9}", 3]
)
def test_names_of_no_texture_are_refused(name):
    with pytest.raises(ValueError, match="`robot_texture` must be"):
        Variation(robot_texture=name)


def test_distractors_stay_where_they_stand(make):
    env = make("FrankaPickPlace-v0", obs_mode="state", obj="box").unwrapped
    env.reset(seed=2, options={"variation": CLUTTER})

    def places() -> np.ndarray:
        return np.array([env.data.body(f"distractor_{slot}").xpos for slot in range(3)])

    before = places()
    for _ in range(18):
        env.step(env.expert_action())
    assert env.task_info()["is_success"]
    assert np.abs(places() - before).max() < 2e-3
    gaps = np.linalg.norm(before[:, None, :2] - before[None, :, :2], axis=-1)
    assert gaps[np.triu_indices(3, 1)].min() > 0.12
    assert np.linalg.norm(before[:, :2] - env.goal_position()[:2], axis=-1).min() > 0.1


def test_distractors_fall_and_collide(make):
    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    thing = {"shape": "box", "size_m": (0.02, 0.02, 0.02), "position": (0.6, 0.25)}
    env.reset(seed=2, options={"variation": {"distractors": [thing]}})
    start = env.model.joint("distractor_0").qposadr[0]
    env.data.qpos[start + 2] = 0.1
    for _ in range(3):
        env.step(np.zeros(7))
    assert env.data.body("distractor_0").xpos[2] == pytest.approx(0.02, abs=1e-3)
    assert env.data.body("distractor_2").xpos[2] < -2


def test_what_rolls_comes_to_rest(make):
    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    thing = {"shape": "ellipsoid", "size_m": (0.02, 0.02, 0.02), "position": (0.5, 0.3)}
    env.reset(seed=2, options={"variation": {"distractors": [thing]}})
    dof = env.model.joint("distractor_0").dofadr[0]
    env.data.qvel[dof : dof + 6] = [0.1, 0.0, 0.0, 0.0, 5.0, 0.0]  # it rolls without sliding
    for _ in range(8):
        env.step(np.zeros(7))
    assert env.data.body("distractor_0").xpos[0] > 0.501
    assert np.linalg.norm(env.data.qvel[dof : dof + 3]) < 0.005


def test_branching_restores_the_look(make):
    env = make("FrankaReach-v0", image_size=64, split="appearance").unwrapped
    env.reset(seed=1)
    state, frame = env.get_state(), env.frame()
    env.reset(seed=2)
    assert not np.array_equal(env.frame(), frame)
    env.set_state(state)
    assert np.array_equal(env.frame(), frame)


def test_fixed_and_given_factors_win_over_drawn_ones(make):
    env = make("FrankaReach-v0", obs_mode="state", split="train", variation={"light": 1.9})
    _, info = env.reset(seed=0)
    assert info["variation"]["light"] == 1.9
    _, info = env.reset(seed=0, options={"variation": {"light": 0.4}})
    assert info["variation"]["light"] == 0.4


def test_variation_accepts_its_own_class(make):
    look = Variation(light=1.3, distractors=(Distractor("cylinder", position=(0.6, 0.2)),))
    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    env.reset(seed=0, options={"variation": look})
    assert env.variation == look
    assert np.allclose(env.data.body("distractor_0").xpos[:2], (0.6, 0.2))


def test_a_stage_without_change_is_the_shared_model():
    stage = Stage("box", "textured", (), (64, 64))
    stage.show(Variation(table_texture=TEXTURES[0]))
    stage.show(Variation())
    reference = scene.scene_model("box", "textured")
    left_over = {"tex_data"}  # of surfaces that show it no more
    for field in dir(reference):
        value = getattr(reference, field)
        if isinstance(value, np.ndarray) and field not in left_over:
            assert np.array_equal(value, getattr(stage.model, field)), field
