from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from jepa_gym.checkpoint import safetensors_file
from jepa_gym.commands import Terminated
from jepa_gym.training.engine.checkpoint import Checkpoints
from jepa_gym.training.engine.config import SETTINGS_NAME
from jepa_gym.training.engine.monitors import CollapseError, Watched
from jepa_gym.training.engine.network import channels_last
from jepa_gym.training.engine.plan import PLAN_NAME

from ..conftest import ended, forked, read_log
from .toy import config, make


def assert_equal_runs(one, other) -> None:
    ours, theirs = (
        load_file(sorted((run.output / "checkpoints").glob("step-*"))[-1]) for run in (one, other)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    logs = [(run.output / "log.jsonl").read_bytes() for run in (one, other)]
    assert logs[0] == logs[1]


def losses(run) -> list[float]:
    return [line["loss"] for line in read_log(run.output) if "loss" in line]


def test_learns_logs_and_decays(tmp_path):
    run = config(tmp_path)
    progress = make(run).run()
    log = read_log(run.output)
    assert [line["step"] for line in log if "loss" in line] == list(range(1, 61))
    assert sum(losses(run)[-5:]) < 0.2 * sum(losses(run)[:5])
    assert {"absolute", "gradient_norm", "learning_rate"} <= log[0].keys()
    scores = {line["step"]: line["score"] for line in log if "score" in line}
    assert list(scores) == [25, 50, 60]
    assert progress.best_score == min(scores.values()) == scores[progress.best_step]
    assert log[-2]["learning_rate"] < 0.1 * run.learning_rate
    assert json.loads((run.output / PLAN_NAME).read_text())["steps"] == 60
    settings = json.loads((run.output / SETTINGS_NAME).read_text())
    assert settings["learning_rate"] == 0.05 and settings["schedule"]["decay"] == 0.4


def test_tensorboard_shows_the_log_and_the_throughput(tmp_path):
    def kill(step: int) -> None:
        if step == 37:
            os.kill(os.getpid(), signal.SIGKILL)

    run = config(tmp_path)
    assert ended(forked(lambda: make(run, kill).run())) == -signal.SIGKILL
    make(run).run()
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    shown = set(board.Tags()["scalars"])
    assert {"loss", "gradient_norm", "learning_rate", "steps_per_s", "score"} <= shown
    assert {"clips_per_s", "waiting_share", "share_of_peak"} <= shown
    assert all(0 < event.value < 1 for event in board.Scalars("share_of_peak"))
    assert all(0 <= event.value <= 1 for event in board.Scalars("waiting_share"))
    assert [event.step for event in board.Scalars("loss")] == list(range(1, 61))


def test_tensorboard_shows_pictures(tmp_path):
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    make(config(tmp_path), pictures=lambda: {"imagined": picture}).run()
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    shown = board.Images("imagined")
    assert [image.step for image in shown] == [25, 50, 60]
    assert np.array_equal(iio.imread(shown[-1].encoded_image_string), picture)


def test_channels_last_changes_the_layout_alone(tmp_path):
    runs = [config(tmp_path, output=tmp_path / str(n), channels_last=n > 0) for n in (0, 1)]
    trainers = [make(run) for run in runs]
    for trainer in trainers:
        trainer.module.planes = nn.Conv2d(3, 4, 2).requires_grad_(False)
        trainer.module.volumes = nn.Conv3d(3, 4, 2).requires_grad_(False)
    channels_last(trainers[1].module)
    for name, layout in (("planes", torch.channels_last), ("volumes", torch.channels_last_3d)):
        weight = getattr(trainers[1].module, name).weight
        assert weight.is_contiguous(memory_format=layout) and not weight.is_contiguous()
    for run in runs:
        make(run).run()
    assert losses(runs[0]) == losses(runs[1])


def test_a_missing_wandb_is_one_line_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r'pip install "jepa-gym\[wandb\]"'):
        make(config(tmp_path, wandb="arms"))
    assert not (tmp_path / "run").exists()


def test_wandb_shows_the_same_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    picture = np.zeros((4, 6, 3), np.uint8)
    run = config(tmp_path, wandb="arms")
    make(run, pictures=lambda: {"imagined": picture}).run()
    folders = list((run.output / "wandb").glob("offline-run-*"))
    assert len(folders) == 1 and (run.output / "wandb_id").read_text() in folders[0].name
    assert list(folders[0].glob("*.wandb")) and list(folders[0].rglob("imagined*.png"))


def test_a_line_is_the_mean_of_its_interval(tmp_path):
    every, fourth = config(tmp_path), config(tmp_path, output=tmp_path / "fourth", log_every=4)
    make(every).run()
    make(fourth).run()
    means = torch.tensor(losses(every)).view(15, 4).mean(1)
    torch.testing.assert_close(torch.tensor(losses(fourth)), means, rtol=1e-5, atol=0)


@pytest.mark.parametrize("log_every", [1, 7])
def test_killed_runs_end_like_an_uninterrupted_one(tmp_path, log_every):
    whole = config(tmp_path, log_every=log_every)
    make(whole).run()
    killed = config(tmp_path, output=tmp_path / "killed", log_every=log_every)
    for number in (0, 3, 10, 11, 24, 25, 37, 50, 59):

        def kill(step: int, number: int = number) -> None:
            if step == number:
                os.kill(os.getpid(), signal.SIGKILL)

        assert ended(forked(lambda kill=kill: make(killed, kill).run())) == -signal.SIGKILL
    make(killed).run()
    assert_equal_runs(whole, killed)


def test_killed_while_it_saves(tmp_path, monkeypatch):
    whole, killed = config(tmp_path), config(tmp_path, output=tmp_path / "killed")
    make(whole).run()
    save_file = safetensors_file.save_file

    def killed_at_30(tensors, path, metadata):
        if json.loads(metadata["facts"])["progress"]["step"] == 30:
            path.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        save_file(tensors, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(safetensors_file, "save_file", killed_at_30)
        assert ended(forked(lambda: make(killed).run())) == -signal.SIGKILL
    folder = killed.output / "checkpoints"
    assert any(path.read_bytes() == b"half" for path in folder.iterdir())
    make(killed).run()
    assert_equal_runs(whole, killed)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"step-0000000{step}.safetensors" for step in (50, 60)
    ]


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_signals_save_and_stop(tmp_path, number, error):
    whole, stopped = config(tmp_path), config(tmp_path, output=tmp_path / "stopped")
    make(whole).run()

    def stop(step: int) -> None:
        if step == 33:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt) as raised:
        make(stopped, stop).run()
    assert type(raised.value) is error
    again = make(stopped)
    assert again.progress.step == 34, "the step in flight is finished"
    again.run()
    assert_equal_runs(whole, stopped)


def test_a_finished_run_says_so_and_goes_on_with_more_steps(tmp_path, capsys):
    run = config(tmp_path)
    first = make(run).run()
    log = (run.output / "log.jsonl").read_bytes()
    assert make(run).run() == first
    assert "is finished: 60 of 60 steps" in capsys.readouterr().err
    assert (run.output / "log.jsonl").read_bytes() == log
    assert make(replace(run, steps=80)).run().step == 80
    assert read_log(run.output)[-1]["step"] == 80
    assert (run.output / "log.jsonl").read_bytes().startswith(log)


def test_the_best_state_is_what_remains(tmp_path):
    run = config(tmp_path)
    scores, weights = iter([3.0, 1.0, 2.0]), []

    def evaluate() -> dict[str, float]:
        weights.append(trainer.module.skip.weight.detach().clone())
        return {"score": next(scores)}

    trainer = make(run, evaluate=evaluate)
    assert trainer.run().best_step == 50
    assert torch.equal(trainer.module.skip.weight, weights[1])
    resumed = make(run)
    resumed.run()
    assert torch.equal(resumed.module.skip.weight, weights[1])


def test_refuses_other_settings_and_other_data(tmp_path):
    run = config(tmp_path)
    make(run).run()
    make(replace(run, threads=2, save_every=5, data=tmp_path / "elsewhere" / ".." / "data"))
    with pytest.raises(ValueError, match=r"learning_rate was 0\.05, is 0\.1"):
        make(replace(run, learning_rate=0.1))
    with pytest.raises(ValueError, match=r"schedule was .*decay"):
        make(replace(run, schedule=replace(run.schedule, decay=0.1)))
    with pytest.raises(ValueError, match="content of data is another"):
        make(run, inputs={"data": "b" * 64})


def test_minutes_choose_the_steps_once(tmp_path):
    run = config(tmp_path, steps=None, minutes=0.01)
    steps = make(run).run().step
    plan = json.loads((run.output / PLAN_NAME).read_text())
    assert plan["steps"] == steps and plan["step_s"] > 0
    assert make(run).run().step == steps, "measured once"
    each = plan["step_s"] + plan["evaluation_s"] / run.eval_every
    more = int(1.2 / each)  # by the rate that was measured then
    assert make(replace(run, minutes=0.02)).run().step == more > steps


def test_measuring_leaves_no_trace(tmp_path, capsys):
    plain, measured = config(tmp_path), config(tmp_path, output=tmp_path / "measured")
    make(plain).run()
    trainer = make(measured)
    trainer.dry_run()
    assert not measured.output.exists()
    text = capsys.readouterr().err
    for part in ("x 8x4 float32", "parameters", "MiB", "60: 2 warming up", "s a step", "done"):
        assert part in text
    trainer.run()
    assert_equal_runs(plain, measured)


def test_accumulation_takes_the_same_steps(tmp_path):
    runs = [config(tmp_path, output=tmp_path / str(n), accumulate=n) for n in (1, 4)]
    for run in runs:
        make(run, noise=0).run()
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), abs=1e-5)
    with pytest.raises(ValueError, match="multiple of processes"):
        make(config(tmp_path, output=tmp_path / "other", accumulate=3))


def test_stops_at_a_loss_that_is_not_finite_and_keeps_the_last_good_state(tmp_path):
    run = config(tmp_path, log_every=100)

    def spoil(step: int) -> None:
        if step == 14:
            with torch.no_grad():
                trainer.module.skip.bias.fill_(float("nan"))

    trainer = make(run, spoil)
    with pytest.raises(FloatingPointError, match="before step 20"):
        trainer.run()
    assert make(run).progress.step == 10


def test_a_collapsed_representation_stops_the_run(tmp_path):
    flat = Watched(torch.ones(8, 3, 4), torch.ones(8, 3, 4), torch.ones(8, 3, 4))
    with pytest.raises(CollapseError, match="step 25: the representation has collapsed"):
        make(config(tmp_path), watch=lambda: flat).run()
    assert read_log(tmp_path / "run")[-1]["dead_channels"] == 1


def test_two_runs_do_not_share_a_folder(tmp_path):
    run, statuses = config(tmp_path), []

    def second() -> None:
        with pytest.raises(ValueError, match="by another process"):
            make(run).run()

    def meet(step: int) -> None:
        if step == 5:
            statuses.append(ended(forked(second)))

    make(run, meet).run()
    assert statuses == [0]


def test_weight_decay_follows_its_course(tmp_path):
    run = config(tmp_path, weight_decay=0.04, final_weight_decay=0.4)
    trainer, seen = None, []

    def note(step: int) -> None:
        seen.append([group["weight_decay"] for group in trainer.optimizer.param_groups])

    trainer = make(run, note)
    trainer.run()
    decays = [row[0] for row in seen]
    assert decays[:31:30] == pytest.approx([0.04, 0.22]) and 0.39 < decays[-1] < 0.4
    assert {row[1] for row in seen} == {0.0}


def test_a_run_starts_from_the_checkpoint_of_another_also_when_it_measures(tmp_path):
    first = config(tmp_path)
    make(first).run()
    tensors, _ = Checkpoints(first.output, 1).load()
    ends = []
    for name, measures in (("plain", False), ("measured", True)):
        trainer = make(config(tmp_path, output=tmp_path / name, learning_rate=0.01))
        trainer.start_from(tensors)
        assert trainer.module.skip.weight.equal(tensors["module.skip.weight"])
        if measures:
            trainer.dry_run()
        trainer.run()
        ends.append(Checkpoints(tmp_path / name, 1).load()[0])
    assert ends[0]["optimizer.step.skip.weight"] == 120
    assert all(ends[0][name].equal(x) for name, x in ends[1].items())
