"""The table of instructions: judged by the simulator, and what is compared with what."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from jepa_gym.benchmarks import instructions, look
from jepa_gym.benchmarks.instructions import Arguments, run
from jepa_gym.checkpoint.beside import INSTRUCTION
from jepa_gym.checkpoint.sources import locate
from jepa_gym.instructions import KINDS, LONGEST, WORDS
from jepa_gym.models import InstructionModel
from jepa_gym.world_model import WorldModel


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """The shipped model with an instruction model that knows nothing: its goal is what is seen."""
    folder = tmp_path_factory.mktemp("told") / "model"
    shutil.copytree(locate("default"), folder)
    model = WorldModel.from_pretrained(folder)
    sizes = model.config
    torch.manual_seed(0)
    shape = (sizes.num_tokens, sizes.encoder.latent_dim)
    network = InstructionModel(*shape, len(WORDS), LONGEST, len(KINDS), recorded=1)
    for layer in (network.change, network.move):
        torch.nn.init.zeros_(layer.weight)
    INSTRUCTION.write(folder, network, model, {})
    return folder


def test_a_true_picture_leads_there_and_words_that_mean_nothing_do_not(
    model_folder, tmp_path, capsys
):
    output = tmp_path / "told"
    rows = run(
        Arguments(
            rows=("reach", "lift"),
            goals=("words", "image"),
            objects=("box",),
            episodes=2,
            seed=90_000,
            checkpoint=str(model_folder),
            output=output,
            workers=1,
        )
    )
    found = {(row["row"], row["goal"]): row["success"] for row in rows}
    assert found["reach", "words"] == found["lift", "words"] == 0
    assert found["reach", "image"] == 1
    records = [json.loads(line) for line in (output / "episodes.jsonl").read_text().splitlines()]
    reached = [r for r in records if r["row"] == "reach" and r["goal"] == "image"]
    assert all(r["distance_m"] <= 0.04 for r in reached)
    kinds = [[r["kind"] for r in records if r["goal"] == goal] for goal in ("words", "image")]
    assert kinds[0] == kinds[1], "the same episodes"
    assert "told by" in capsys.readouterr().out and (output / "table.md").is_file()


def test_kinds_are_drawn_among_those_that_can_be_followed():
    env = instructions.environment("default", "grasp", obj="box", protocol="one", obs_mode="both")
    core = env.unwrapped
    for seed in range(90_000, 90_006):
        env.reset(seed=seed, options=instructions.START)
        kind = instructions.draw_kind(core, "reach", seed)
        before = core.get_state()["physics"]
        assert instructions.true_picture(core, kind).shape == (128, 256, 3)
        np.testing.assert_array_equal(core.get_state()["physics"], before)


def test_a_film_shows_what_the_words_lead_to(model_folder, tmp_path, capsys):
    told = look.Arguments(
        task="grasp", checkpoint=str(model_folder), seed=90_000, output=tmp_path / "told.gif",
        instruction="put the hand above the cup",
    )  # fmt: skip
    seen = look.play(told)
    assert seen.success is not None and not seen.success[-1]
    assert len(seen.goals) == len(seen.real) and seen.energies["real"][0] < 0.05
    look.run(told)
    assert "no success after" in capsys.readouterr().err and told.output.stat().st_size > 10_000


def test_refuses_what_it_cannot_measure():
    with pytest.raises(ValueError, match="needs `data`"):
        Arguments(goals=("retrieved",))
    with pytest.raises(ValueError, match="`rows`"):
        Arguments(rows=("fly",))
