"""`jepa-gym instructed-scenes`: the simulator shows what an instruction leads to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jepa_gym.checkpoint.safetensors_file import read_safetensors
from jepa_gym.envs.tasks.grasp import LIFT_M
from jepa_gym.instructions import BESIDE, KINDS, MOVES, region
from jepa_gym.training.collection.explorers import exploration_env
from jepa_gym.training.collection.instructed_scenes import (
    ScenesConfig,
    begin,
    follow,
    pictures,
    record,
)


@pytest.fixture(scope="module")
def env():
    env = exploration_env("grasp", obj="cup", camera="left+wrist", image_size=32)
    yield env
    env.close()


def test_what_follows_satisfies_the_instruction(env):
    seen = set()
    for seed in range(400_000, 400_012):
        begin(env, seed)
        before, start, grasp = env.get_state(), env.arm.state()[:3], env.grasp_point()
        place = env.object_position()
        held = env.object_held()
        for kind in KINDS:
            if follow(env, kind):
                seen.add(kind)
                hand = env.arm.state()
                if kind in (*BESIDE, *MOVES):
                    assert region(kind, start, grasp).distance_m(hand[:3]) < 0.01
                    assert held or np.abs(env.object_position() - place).max() < 1e-3
                elif kind == "put down":
                    assert not env.object_held() and env.object_clearance() < 0.005
                elif kind in ("grasp", "lift"):
                    assert env.object_held()
                    assert (env.object_clearance() > LIFT_M) == (kind == "lift")
                else:
                    assert (hand[6] > 0.5) == (kind == "close")
            env.set_state(before)
    assert seen == set(KINDS)


def test_looking_changes_nothing(env):
    begin(env, 400_001)
    before = env.get_state()["physics"]
    assert len(list(pictures(env))) > 4
    np.testing.assert_array_equal(env.get_state()["physics"], before)


def test_scenes_are_kept_as_latents_and_recording_goes_on(tmp_path):
    config = ScenesConfig(output=tmp_path / "scenes", scenes=2, objects=("box",), workers=1)
    assert record(config) == 2
    path = config.output / "400001.safetensors"
    scene, content = read_safetensors(path)[0], path.read_bytes()
    assert scene["start"].shape == scene["goals"].shape[1:]
    assert len(scene["goals"]) == len(scene["kinds"]) > 4
    assert scene["goal_states"].shape == (len(scene["kinds"]), 7)
    assert bytes(scene["object"].tolist()) == b"box"
    assert (scene["goals"] - scene["start"]).abs().float().mean((1, 2)).min() > 0.02
    path.unlink()
    record(config)
    assert path.read_bytes() == content
    with pytest.raises(ValueError, match="another objects"):
        record(replace(config, objects=("cup",)))
    with pytest.raises(ValueError, match="kept for evaluation"):
        replace(config, seed=999_999)
