"""Variations: splits that cannot overlap, looks that do what they say and leave no trace."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jepa_gym.envs.physics import objects, scene
from jepa_gym.envs.physics.objects import OBJECTS
from jepa_gym.envs.physics.stage import Stage
from jepa_gym.envs.pictures.cameras import camera_azimuth_deg
from jepa_gym.envs.pictures.textures import TEXTURES
from jepa_gym.envs.variations import (
    FACTORS,
    SPLITS,
    Choices,
    Distractor,
    Ranges,
    Variation,
    sample_variation,
    split_objects,
    split_values,
)

CLUTTER = {"distractors": [{"shape": shape} for shape in ("capsule", "ellipsoid", "cylinder")]}


def meet(first, second) -> bool:
    """Return whether two sets or two unions of intervals share a value."""
    if isinstance(first, Choices):
        return bool(set(first.values) & set(second.values))
    return any(a <= d and c <= b for a, b in first.intervals for c, d in second.intervals)


@pytest.mark.parametrize("name", FACTORS)
def test_train_and_held_out_values_never_meet(name):
    factor = FACTORS[name]
    assert not meet(factor.train, factor.held_out)
    assert not meet(factor.held_out, factor.train)
    rng = np.random.default_rng(0)
    if isinstance(factor.train, Choices):
        drawn = {factor.train.draw(rng) for _ in range(500)}
        assert not drawn & {factor.held_out.draw(rng) for _ in range(500)}
        return
    for mine, other in ((factor.train, factor.held_out), (factor.held_out, factor.train)):
        for value in (mine.draw(rng) for _ in range(500)):
            assert any(low <= value <= high for low, high in mine.intervals)
            assert not any(low <= value <= high for low, high in other.intervals)


def test_meeting_ranges_are_recognised():
    assert meet(Ranges(((0, 1), (3, 4))), Ranges(((3.5, 5),)))
    assert meet(Ranges(((0, 1),)), Ranges(((1, 2),)))
    assert meet(Choices(("a", None)), Choices((None,)))


def test_splits_hold_out_what_their_name_says():
    groups = {factor.group for factor in FACTORS.values()}
    assert SPLITS["train"] == frozenset()
    assert SPLITS["all"] == groups
    for split in ("object", "camera", "appearance"):
        assert SPLITS[split] == {split}
    assert set(split_objects("train")) | set(split_objects("object")) == set(OBJECTS)
    assert split_values("camera", "light") == FACTORS["light"].train
    with pytest.raises(ValueError, match="'train', 'object'"):
        split_values("cameras", "light")


@pytest.mark.parametrize("split", SPLITS)
def test_draws_are_seeded_and_round_trip(split):
    first = [sample_variation(split, np.random.default_rng(seed)) for seed in range(30)]
    again = [sample_variation(split, np.random.default_rng(seed)) for seed in range(30)]
    assert first == again and len(set(first)) == 30
    assert all(Variation().replaced(look.to_dict()) == look for look in first)
    elevations = split_values(split, "camera_elevation_deg").intervals
    for look in first:
        assert any(low <= look.camera_elevation_deg <= high for low, high in elevations)
        assert look.table_texture in split_values(split, "table_texture").values
        assert len(look.distractors) in split_values(split, "distractor_count").values


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
    for field in dir(reference):
        value = getattr(reference, field)
        if isinstance(value, np.ndarray):
            assert np.array_equal(value, getattr(stage.model, field)), field
