"""The network of instructions at toy size, and the agent that follows them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from jepa_gym.agents import make_agent
from jepa_gym.checkpoint.beside import INSTRUCTION, encoder_hash
from jepa_gym.checkpoint.safetensors_file import write_safetensors
from jepa_gym.cli import main
from jepa_gym.instructions import KINDS, TEMPLATES, held_out, word_numbers
from jepa_gym.training.recipes import instruct
from jepa_gym.world_model import WorldModel

from ..conftest import SIZE, read_log
from .test_decode import checkpoint as checkpoint

TOLD = ("up", "down", "grasp")
MOVED = [(0.0, 0.0, 0.1), (0.0, 0.0, -0.1), (0.05, 0.0, 0.0)]
"""How far the hand moves after each, in metres."""


@pytest.fixture
def scenes(checkpoint, tmp_path):
    """Scenes in which every instruction adds a pattern of its own to the latent."""
    model = WorldModel.from_pretrained(checkpoint)
    shape = (model.config.num_tokens, model.config.encoder.latent_dim)
    drawn = torch.Generator().manual_seed(0)
    patterns = torch.randn((len(KINDS), *shape), generator=drawn)
    kinds = torch.tensor([KINDS.index(kind) for kind in TOLD])
    folder = tmp_path / "scenes"
    folder.mkdir()
    (folder / "scenes.json").write_text(json.dumps({"encoder": encoder_hash(model)}))
    for number in range(160):
        start = torch.nn.functional.layer_norm(torch.randn(shape, generator=drawn), shape[-1:])
        goals = torch.nn.functional.layer_norm(start + patterns[kinds], shape[-1:])
        scene = {"start": start.half(), "goals": goals.half(), "kinds": kinds}
        scene["goal_states"] = torch.tensor([[*move, 0, 0, 0, 0] for move in MOVED])
        scene |= {"state": torch.zeros(7), "object": torch.tensor(list(b"cup"), dtype=torch.uint8)}
        write_safetensors(folder / f"{number:06d}.safetensors", scene, {})
    return folder


def test_learns_what_words_lead_to_and_an_agent_follows(checkpoint, scenes):
    config = instruct.InstructConfig(
        data=scenes, checkpoint=str(checkpoint), steps=150, batch_size=32, threads=1
    )
    progress = instruct.train(config)
    told = [x for x in read_log(checkpoint / "instruct") if "goal_loss" in x]
    assert told[-1]["goal_loss"] < 0.5 * told[-1]["still_loss"]
    assert told[-1]["move_cm"] < 2 and told[-1]["kind_right"] > 0.95
    assert instruct.train(config).step == progress.step
    model = WorldModel.from_pretrained(checkpoint)
    network = INSTRUCTION.own(model)
    latents = torch.randn(1, model.config.num_tokens, model.config.encoder.latent_dim)
    ways = [TEMPLATES["up"][0], held_out("up"), held_out("down")]
    words = torch.from_numpy(np.stack([word_numbers(way) for way in ways]))
    meaning = network(latents.expand(3, -1, -1), torch.zeros(3, 7), words)
    goals = meaning.goals
    same, other = ((goals[0] - goals[n]).abs().mean() for n in (1, 2))
    assert same < 0.5 * other, "a new way of saying it leads to the same"
    agent = make_agent("instructed", model=model, agent="mpc-cem")
    rng = np.random.default_rng(0)
    seen = {
        "pixels": rng.integers(256, size=(2, SIZE, 2 * SIZE, 3), dtype=np.uint8),
        "observation": np.zeros((2, 7)),
        "instruction": ["move the hand up by ten centimetres", "grasp the cup"],
    }
    seen["instruction"][0] = TEMPLATES["up"][0]
    actions, memory = agent.predict(seen)
    later = seen | {"pixels": seen["pixels"][::-1]}
    _, same_goal = agent.predict(later, memory)
    # understood at the start, and kept: where to move, and what a grasp looks like
    np.testing.assert_allclose(memory.places[0], [0, 0, 0.1], atol=0.03)
    np.testing.assert_array_equal(same_goal.places, memory.places)
    np.testing.assert_array_equal(same_goal.goals[1], memory.goals[1])
    recorded = network.recorded.float().numpy()
    assert (recorded == memory.goals[1]).all((1, 2)).any(), "a grasp looks as one that was recorded"
    _, new_goal = agent.predict(later | {"instruction": TEMPLATES["down"][0]}, memory)
    np.testing.assert_allclose(new_goal.places, [[0, 0, -0.1]] * 2, atol=0.03)
    one = {key: value[1] for key, value in seen.items()}
    alone, _ = agent.predict(one)
    np.testing.assert_allclose(alone, actions[1], atol=1e-5)
    with pytest.raises(ValueError, match="needs the observation's entry `instruction`"):
        agent.predict({key: seen[key] for key in ("pixels", "observation")})
    with pytest.raises(ValueError, match="has the word 'teapot'"):
        agent.predict(seen | {"instruction": "grasp the teapot"})


def test_refuses_other_scenes_and_a_model_without(checkpoint, scenes, tmp_path, capsys):
    with pytest.raises(ValueError, match="jepa-gym instruct"):
        make_agent("instructed", model=WorldModel.from_pretrained(checkpoint))
    (scenes / "scenes.json").write_text(json.dumps({"encoder": "another"}))
    config = instruct.InstructConfig(data=scenes, checkpoint=str(checkpoint), steps=2)
    with pytest.raises(ValueError, match="latents of another world model"):
        instruct.train(config)
    with pytest.raises(FileNotFoundError, match="instructed-scenes"):
        instruct.train(replace(config, data=tmp_path))
    assert main(["instruct", "--data", str(tmp_path), "--checkpoint", str(checkpoint)]) == 1
    assert "instructed-scenes" in capsys.readouterr().err
