"""Splits: held-out values that training never shows, gaps inside its ranges and rims beyond."""

from __future__ import annotations

import itertools

import mujoco
import numpy as np
import pytest

from jepa_gym.envs.physics.objects import OBJECTS
from jepa_gym.envs.physics.stage import Stage
from jepa_gym.envs.physics.workbench import WORKSPACE_HIGH_M, WORKSPACE_LOW_M
from jepa_gym.envs.pictures.cameras import CAMERAS
from jepa_gym.envs.pictures.generated import PREFIX, SEEDS
from jepa_gym.envs.splits import (
    FACTORS,
    SPLITS,
    Choices,
    Ranges,
    Textures,
    sample_factors,
    sample_variation,
    split_objects,
    split_values,
)
from jepa_gym.envs.variations import RANGES, SURFACES, Variation

DRAWS = 3000


def zones_of(name: str) -> dict:
    """Return the zones of a factor; a factor without a beyond has two."""
    factor = FACTORS[name]
    zones = {"train": factor.train, "held out": factor.held_out}
    return zones if factor.far is None else zones | {"far": factor.far}


@pytest.mark.parametrize("name", FACTORS)
def test_no_value_of_a_zone_is_ever_drawn_in_another(name):
    zones, rng = zones_of(name), np.random.default_rng(0)
    for mine, values in zones.items():
        others = [zones[zone] for zone in zones if zone != mine]
        for value in (values.draw(rng) for _ in range(DRAWS)):
            assert value in values
            assert not any(value in other for other in others), (mine, value)


@pytest.mark.parametrize("name", FACTORS)
def test_gaps_lie_inside_and_rims_outside(name):
    zones = zones_of(name)
    if not isinstance(zones["train"], Ranges):
        return
    inside = zones["train"].intervals
    low, high = inside[0][0], inside[-1][1]
    assert len(inside) > 1, "a gap parts the training values"
    assert all(low < start < end < high for start, end in zones["held out"].intervals)
    for start, end in zones["far"].intervals if "far" in zones else ():
        assert end < low or start > high


@pytest.mark.parametrize("name", FACTORS)
def test_zones_keep_a_distance(name):
    """Held-out values at the edge of a gap would be training values in all but name."""
    zones = [zone for zone in zones_of(name).values() if isinstance(zone, Ranges)]
    whole = [end for zone in zones for interval in zone.intervals for end in interval]
    for one, other in itertools.combinations(zones, 2):
        for (a, b), (c, d) in itertools.product(one.intervals, other.intervals):
            assert max(c - b, a - d) >= 0.005 * (max(whole) - min(whole))


def test_generated_textures_of_zones_have_seeds_of_their_own():
    ranges = list(SEEDS.values())
    assert all(high <= low for (_, high), (low, _) in itertools.pairwise(ranges))
    for name in SURFACES:
        zones = zones_of(name)
        seeds = [zone.seeds for zone in zones.values() if isinstance(zone, Textures)]
        assert seeds == ranges
        named = [set(zone.named) for zone in zones.values()]
        assert not any(one & other for one, other in itertools.combinations(named, 2))


def test_the_plain_look_is_one_of_training():
    plain = Variation()
    for name in FACTORS:
        if hasattr(plain, name):
            assert getattr(plain, name) in FACTORS[name].train or name == "object_texture"
    for name in ("camera_magnification", "light_saturation"):
        assert {"camera_magnification": 1.0, "light_saturation": 0.0}[name] in FACTORS[name].train
    assert len(plain.distractors) in FACTORS["distractor_count"].train


def test_what_a_split_may_draw_is_allowed():
    for name, (low, high) in RANGES.items():
        for values in zones_of(name).values() if name in FACTORS else ():
            assert all(low <= start and end <= high for start, end in values.intervals)


def test_splits_leave_training_where_their_name_says():
    groups = {factor.group for factor in FACTORS.values()}
    assert SPLITS["train"] == {}
    assert SPLITS["all"] == dict.fromkeys(groups, "held out")
    for split in ("object", "camera", "appearance"):
        assert SPLITS[split] == {split: "held out"}
    for split in ("camera", "appearance"):
        assert SPLITS[f"{split}-far"] == {split: "far"}
    assert set(split_objects("train")) | set(split_objects("object")) == set(OBJECTS)
    assert split_values("camera", "light") == FACTORS["light"].train
    assert split_values("appearance-far", "light") == FACTORS["light"].far
    assert split_values("appearance-far", "object_hue") == FACTORS["object_hue"].held_out
    with pytest.raises(ValueError, match="Did you mean `camera`"):
        split_values("cameras", "light")


@pytest.mark.parametrize("split", SPLITS)
def test_variations_hold_values_of_their_split_alone(split):
    """What an episode shows, not only what is drawn for it: hue, saturation and zoom derived."""
    rng = np.random.default_rng(1)
    counts, shapes = (split_values(split, f"distractor_{name}") for name in ("count", "shape"))
    for _ in range(DRAWS // 2):
        look = sample_variation(split, rng)
        for name in FACTORS:
            if name in RANGES or (name in SURFACES and name != "object_texture"):
                assert getattr(look, name) in split_values(split, name), name
        if look.object_texture is not None:
            assert look.object_texture in split_values(split, "object_texture")
        magnification = look.camera_zoom / look.camera_distance
        assert near(magnification, split_values(split, "camera_magnification"))
        assert near(1 - min(look.light_rgb), split_values(split, "light_saturation"))
        assert len(look.distractors) in counts
        assert all(thing.shape in shapes for thing in look.distractors)


def near(value: float, values) -> bool:
    """Return whether a number that was computed from a drawn one is of these values."""
    return any(value + step in values for step in (-1e-9, 0.0, 1e-9))


@pytest.mark.parametrize("split", SPLITS)
def test_draws_are_seeded_and_round_trip(split):
    first = [sample_variation(split, np.random.default_rng(seed)) for seed in range(30)]
    again = [sample_variation(split, np.random.default_rng(seed)) for seed in range(30)]
    assert first == again and len(set(first)) == 30
    assert all(Variation().replaced(look.to_dict()) == look for look in first)


def test_every_part_of_a_range_is_drawn():
    values = Ranges(((0.0, 1.0), (2.0, 5.0)))
    rng = np.random.default_rng(0)
    drawn = np.array([values.draw(rng) for _ in range(4000)])
    assert np.mean(drawn <= 1) == pytest.approx(0.25, abs=0.03)
    assert drawn.min() < 0.01 and drawn.max() > 4.99
    assert 1.5 not in values and 2.0 in values
    assert "b" in Choices(("a", "b")) and "c" not in Choices(("a", "b"))


def test_training_shows_many_textures_and_plain_surfaces():
    rng = np.random.default_rng(0)
    drawn = [sample_factors("train", rng)["table_texture"] for _ in range(1000)]
    generated = [name for name in drawn if name is not None and name.startswith(PREFIX)]
    assert len(set(generated)) == len(generated) > 600
    assert 60 < drawn.count(None) < 150


CORNERS = np.array(list(itertools.product(*zip(WORKSPACE_LOW_M, WORKSPACE_HIGH_M, strict=True))))


@pytest.mark.parametrize(("split", "edge"), [("train", 1.0), ("camera", 1.0), ("camera-far", 1.1)])
def test_the_workspace_stays_in_the_picture(split, edge):
    """Its corners, projected by the exterior cameras; DROID's own cuts it off by default."""
    stage, rng = Stage("box", "plain", (), (64, 64)), np.random.default_rng(2)
    for _ in range(300):
        drawn = sample_factors(split, rng)
        names = ("camera_azimuth_deg", "camera_elevation_deg", "camera_distance")
        zoom = drawn["camera_magnification"] * drawn["camera_distance"]
        stage.show(Variation(**{name: drawn[name] for name in names}, camera_zoom=zoom))
        for name in set(CAMERAS) - {"droid"}:
            assert np.abs(projected(stage.model, name)).max() < edge, (name, drawn)


def projected(model, name: str) -> np.ndarray:
    """Return the corners (8, 2) as a camera of the world sees them, 1 at the picture's edges."""
    camera, axes = model.camera(name).id, np.zeros(9)
    mujoco.mju_quat2Mat(axes, model.cam_quat[camera])
    offset = (CORNERS - model.cam_pos[camera]) @ axes.reshape(3, 3)
    assert (offset[:, 2] < 0).all()
    return offset[:, :2] / -offset[:, 2:] / np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
