"""Probes on anyone's videos: tables of labels, clips at their times, both kinds of probe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_gym.checkpoint.probe import Probe
from jepa_gym.models import AttentiveClassifier
from jepa_gym.training.data.videos import write_video
from jepa_gym.training.recipes import probe
from jepa_gym.training.recipes.probe_videos import Sampling, read_table, video_examples

SPLITS = ("train", "train", "validation", "test")
SIDE = 32


def video(path: Path, seconds: float, brightness: int) -> None:
    """Ten pictures a second; the left half tells when it is, the right half what it is."""
    frames = np.zeros((round(10 * seconds), SIDE, SIDE, 3), np.uint8)
    frames[:, :, : SIDE // 2] = (5 * np.arange(len(frames)))[:, None, None, None]
    frames[:, :, SIDE // 2 :] = brightness
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, 0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Dark and bright videos; the table has a row for each."""
    folder = tmp_path_factory.mktemp("videos")
    rows = ["path,label,split"]
    for number in range(16):
        name = f"{number % 2}/clip {number}.mp4"
        video(folder / name, 2.0, (40, 220)[number % 2])
        rows.append(f"{name},{('dark', 'bright')[number % 2]},{SPLITS[number // 2 % 4]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def config(folder: Path, output: Path, **changes) -> probe.ProbeConfig:
    fields = {
        "data": folder,
        "labels": folder / "labels.csv",
        "output": output,
        "model": "random",
        "frames": 4,
        "image_size": SIDE,
        "steps": 40,
        "batch_size": 8,
        "rates": (1.0,),
        "decays": (1.0,),
        "threads": 1,
        "device": "cpu",
    }
    return probe.ProbeConfig(**fields | changes)


def test_a_folder_of_videos_is_classified(folder, tmp_path):
    probe.train(config(folder, tmp_path))
    found = json.loads((tmp_path / "probe.json").read_text())
    assert found["test"]["label"]["top1"]["value"] == 100.0
    assert found["clips"] == {"train": 8, "validation": 4, "test": 4}
    assert found["test"]["label"]["recordings"] == 4
    assert Probe.from_pretrained(tmp_path).spec.outputs == {"label": ("bright", "dark")}


def test_classes_without_a_training_clip_are_counted(folder, tmp_path, capsys):
    table = tmp_path / "table.csv"
    lines = (folder / "labels.csv").read_text().splitlines()
    last = max(n for n, line in enumerate(lines) if line.endswith(",test"))
    lines[last] = lines[last].replace("bright", "dazzling")
    table.write_text("\n".join(lines))
    probe.train(config(folder, tmp_path, labels=table, steps=2))
    found = json.loads((tmp_path / "probe.json").read_text())
    assert found["test"]["label"]["clips"] == 3
    assert found["clips of unknown classes"]["test"] == {"label": 1}
    assert "1 clips are of classes that no training clip has" in capsys.readouterr().err


def test_epic_kitchens_columns_are_anticipated(folder, tmp_path):
    rows = ["video_id,start_timestamp,stop_timestamp,verb,verb_class,noun,noun_class,split"]
    for number in range(16):
        split = SPLITS[number // 2 % 4]
        rows.append(
            f"clip {number},00:00:01.50,00:00:01.90,w,{number % 2},n,{number % 2 + 3},{split}"
        )
    table = tmp_path / "epic.csv"
    table.write_text("\n".join(rows))
    run = config(folder, tmp_path / "run", labels=table, target="anticipation", ahead_s=0.5)
    probe.train(run)
    spec = Probe.from_pretrained(tmp_path / "run").spec
    assert spec.outputs == {"verb": ("0", "1"), "noun": ("3", "4"), "action": ("0 3", "1 4")}
    assert spec.tokens == (2 + 1) * 4  # two tubelets of the clip, one that is predicted
    found = json.loads((tmp_path / "run" / "probe.json").read_text())["test"]
    assert found["noun"]["top1"]["value"] == 100.0


def times(examples) -> list[float]:
    """When the pictures of the first clip were taken, seconds."""
    clip = examples["train"].frames([0])[0]
    return (clip[:, 16, 4, 0] / 50).round(1).tolist()


@pytest.mark.parametrize(
    ("row", "sampling", "expected"),
    [
        (",", {}, [0.5, 0.8, 1.0, 1.2]),  # the middle of 0 to 1.9 s
        ("1.0,1.4", {}, [1.0, 1.2, 1.4, 1.4]),  # its last picture is repeated
        ("0:00:01.6,", {"ahead_s": 0.5}, [0.3, 0.6, 0.8, 1.1]),  # ends 0.5 s before
        ("0.5,", {"ahead_s": 0.3}, [0.0, 0.0, 0.0, 0.2]),  # its first picture is repeated
    ],
)
def test_clips_are_taken_where_the_table_says(folder, tmp_path, row, sampling, expected):
    names = ["0/clip 0.mp4"] + ["0/clip 2.mp4"] * 2
    lines = [
        f"{x},a,b,a,{row},{s}" for x, s in zip(names, ("train", "validation", "test"), strict=True)
    ]
    table = tmp_path / "table.csv"
    table.write_text("path,verb,noun,label,start_s,stop_s,split\n" + "\n".join(lines))
    sampled = Sampling(frames=4, fps=4, image_size=28, **sampling)
    assert times(video_examples(folder, table, sampled)[0]) == pytest.approx(expected, abs=0.11)


def test_views_are_judged_together(folder, tmp_path):
    run = config(folder, tmp_path, segments=2, crops=3)
    probe.train(run)
    found = json.loads((tmp_path / "probe.json").read_text())
    assert found["test"]["label"]["top1"]["value"] == 100.0
    assert found["clips"] == {"train": 8, "validation": 4, "test": 4}
    test = probe.video_data(run).examples["test"]
    assert len(test) == 24 and test.views == 6
    clips = test.frames(range(6))
    early, late = clips[:3, 0, 4, 4, 0], clips[3:, 0, 4, 4, 0]
    assert (early < 40).all() and (late > 45).all()  # the left half brightens with time
    with pytest.raises(ValueError, match="classification of videos"):
        config(folder, tmp_path, labels=None, crops=3)


def test_the_published_list_is_read(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("a b.mp4 7\nc.mp4 3\n")
    rows = read_table(table, ["x/a b.mp4", "c.mp4"], anticipated=False)
    assert [(row.video, row.words[0]) for row in rows] == [("x/a b.mp4", "7"), ("c.mp4", "3")]
    many = [f"{n}.mp4" for n in range(400)]
    table.write_text("".join(f"{x} 1\n" for x in many))
    splits = [row.split for row in read_table(table, many, anticipated=False)]
    shares = [splits.count(x) / 400 for x in ("train", "validation", "test")]
    assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.05)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\nnone.mp4,a\n", "line 2: there is no video 'none.mp4'"),
        ("path,kind\na.mp4,a\n", "line 2: there is no 'label'; its columns are path, kind"),
        ("path,label,split\na.mp4,a,tests\n", "Did you mean `test`"),
        ("path,label,start_s\na.mp4,a,-1\n", "line 2: a time must be at least 0"),
        ("path,label\n", "holds no labels"),
        ("", "holds no labels"),
    ],
)
def test_mistakes_in_a_table_name_the_line(tmp_path, text, words):
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        read_table(table, ["a.mp4"], anticipated=False)


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="--labels names a CSV"):
        probe.train(config(folder, tmp_path, labels=folder / "nothing.csv"))
    with pytest.raises(ValueError, match="leave `target` out"):
        config(folder, tmp_path, target="hand")
    with pytest.raises(ValueError, match="those of recorded episodes"):
        config(folder, tmp_path, held_out_objects=("cup",))
    table = tmp_path / "table.csv"
    table.write_text("path,label,split\n0/clip 0.mp4,a,train\n")
    with pytest.raises(ValueError, match="none of the 1 clips is in the validation split"):
        probe.train(config(folder, tmp_path, labels=table))
    with pytest.raises(ValueError, match="line 2: there is no 'start_s'"):
        table.write_text("path,verb,noun\n0/clip 0.mp4,a,b\n")
        probe.train(replace(config(folder, tmp_path, target="anticipation"), labels=table))


def test_a_published_probe_is_tested_as_it_is(folder, tmp_path):
    torch.manual_seed(0)
    heads = {str(n): AttentiveClassifier(192, 16, 3, depth=2) for n in range(2)}
    with torch.no_grad():
        heads["1"].linear.weight.zero_()
        heads["1"].linear.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))  # always says 1
    weights = [{f"module.{k}": v for k, v in head.state_dict().items()} for head in heads.values()]
    torch.save({"classifiers": weights, "epoch": 20}, tmp_path / "probe.pt")
    table = tmp_path / "numbers.csv"
    text = (folder / "labels.csv").read_text()
    table.write_text(text.replace(",bright,", ",1,").replace(",dark,", ",2,"))
    run = config(folder, tmp_path / "run", labels=table, head=str(tmp_path / "probe.pt"))
    probe.train(run)
    found = json.loads((tmp_path / "run" / "probe.json").read_text())
    assert list(found["errors on validation clips"]) == ["classifiers.0", "classifiers.1"]
    assert found["errors on validation clips"]["classifiers.1"] == 50.0
    loaded = Probe.from_pretrained(tmp_path / "run")
    assert loaded.spec.outputs == {"label": ("0", "1", "2")} and loaded.spec.depth == 2
    with pytest.raises(ValueError, match="labels that the probe does not know \\(bright, dark\\)"):
        probe.train(replace(run, labels=folder / "labels.csv"))
    with pytest.raises(ValueError, match="is tested on `labels`"):
        config(folder, tmp_path, head="x", labels=None)
