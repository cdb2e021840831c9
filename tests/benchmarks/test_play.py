"""Driving by hand: the game, its script and film, and the page in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from jepa_gym.benchmarks.play import Arguments, commands_of, main
from jepa_gym.benchmarks.play_game import Game
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.data.episodes import read_episode

STEP_M = 0.045


@pytest.fixture(scope="module")
def game(tmp_path_factory) -> Game:
    return Game("reach", "box", seed=3, folder=tmp_path_factory.mktemp("play"))


def test_the_same_move_is_made_and_imagined(game):
    game.reset(3)
    before = game.moments[0]
    game.do("left")
    after = game.moments[1]
    moved = (after.observation["observation"] - before.observation["observation"])[:3]
    np.testing.assert_allclose(moved, [0, STEP_M, 0], atol=0.01)
    assert before.real_energy == pytest.approx(before.imagined_energy)
    assert after.real_energy != after.imagined_energy
    assert np.abs(after.imagined.astype(int) - after.observation["pixels"]).mean() < 30
    assert game.facts()["step"] == 1 and len(game.facts()["distance_cm"]) == 2


def test_a_branch_that_is_left_is_kept_and_the_next_begins_where_it_did(game):
    game.reset(3)
    for name in ("up", "left", "left"):
        game.do(name)
    first = [moment.observation["pixels"] for moment in game.moments]
    energies = [moment.imagined_energy for moment in game.moments]
    game.do("undo")
    game.do("undo")
    assert game.facts()["step"] == 1
    assert game.abandoned == [
        (1, [m for m in game.abandoned[0][1]], pytest.approx(energies[1:]))
    ] and len(game.abandoned[0][1]) == 3  # fmt: skip
    game.do("left")
    game.do("left")
    for one, two in zip(first, game.moments, strict=True):
        assert np.array_equal(one, two.observation["pixels"]), "the simulator branches exactly"
    assert [moment.imagined_energy for moment in game.moments] == pytest.approx(energies)


def test_imagination_begins_anew_and_the_agent_plans(game):
    game.reset(3)
    game.do("forward")
    game.do("imagine")
    assert game.moments[-1].real_energy == pytest.approx(game.moments[-1].imagined_energy)
    game.do("plan")
    assert "the agent moved" in game.message and game.facts()["step"] == 2
    for _ in range(12):
        game.do("up")
    game.do("plan")  # a guard may refuse a place where the model never was
    assert game.message
    with pytest.raises(ValueError, match=r"no command 'jump'.*forward"):
        game.do("jump")


def test_a_script_records_an_episode_that_training_reads(tmp_path, capsys):
    flags = ["--task", "reach", "--obj", "box", "--output", str(tmp_path / "data")]
    script = "up record left*3 undo close record reset"
    video = tmp_path / "film.mp4"
    assert main([*flags, "--script", script, "--video", str(video)]) == 0
    assert f"wrote {video}" in capsys.readouterr().err
    assert len(iio.imread(video, plugin="pyav")) == 10
    folder = tmp_path / "data" / "episodes" / "play-00000"
    episode = read_episode(folder)
    assert len(episode.states) == 4 and episode.actions[0, 1] == pytest.approx(STEP_M)
    assert episode.sim_state is not None and episode.frames["wrist"].shape == (4, 128, 128, 3)
    assert len(iio.imread(tmp_path / "data" / "play-00000.mp4", plugin="pyav")) == 4
    data = Dataset.open(tmp_path / "data")
    assert data.index["episodes"] == 1 and data.index["cameras"] == ["left", "wrist"]


def test_refuses_what_it_cannot_do(tmp_path):
    assert commands_of("up*2 plan") == ["up", "up", "plan"]
    for script in ("up*0", "up*x", "up*"):
        with pytest.raises(ValueError, match="a count must be in"):
            Arguments(script=script)
    with pytest.raises(ValueError, match="--script"):
        Arguments(video=tmp_path / "film.mp4")
    with pytest.raises(ValueError, match="port"):
        Arguments(port=70000)


@pytest.fixture
def page(tmp_path):
    """The page of a running `jepa-gym play`, in a headless browser."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no browser: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "jepa_gym.benchmarks.play", "--port", "0", "--task", "reach"]
    command += ["--output", str(tmp_path / "data")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = next(iter(line for line in process.stderr if "open http" in line), "")
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert found, line
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
                )
                page = browser.new_page(viewport={"width": 1200, "height": 760})
                page.goto(found[0])
                page.wait_for_selector("body[data-step='0']")
                yield page
                browser.close()
        finally:
            process.terminate()
            process.wait()


def test_in_a_browser_connect_move_branch_and_record(page, tmp_path):
    def command(press: str, step: int) -> None:
        frames = int(page.evaluate("document.body.dataset.frames"))
        page.keyboard.press(press)
        page.wait_for_function(f"Number(document.body.dataset.frames) > {frames}")
        assert page.evaluate("document.body.dataset.step") == str(step)

    def picture(name: str) -> str:
        return page.evaluate(f"document.getElementById('{name}').src")

    first = {name: picture(name) for name in ("goal", "real", "imagined")}
    assert page.evaluate("document.getElementById('real').naturalWidth") == 256
    command("r", 0)
    assert page.locator("#recording").evaluate("x => getComputedStyle(x).visibility") == "visible"
    command("ArrowLeft", 1)
    assert picture("goal") == first["goal"]
    assert picture("real") != first["real"] and picture("imagined") != first["imagined"]
    command("ArrowUp", 2)
    command("z", 1)
    command("p", 2)
    assert "the agent moved" in page.locator("#message").inner_text()
    command("r", 2)
    assert "play-00000" in page.locator("#message").inner_text()
    page.click("#do-reset")
    page.wait_for_selector("body[data-step='0']")
    assert "seed 1" in page.locator("#what").inner_text()
    episode = read_episode(tmp_path / "data" / "episodes" / "play-00000")
    assert len(episode.states) == 3
    assert Path(tmp_path / "data" / "play-00000.mp4").stat().st_size > 1000


def test_another_page_may_not_drive(page):
    address = page.url.removeprefix("http://").rstrip("/")
    page.goto("data:text/html,<title>other</title>")
    opened = page.evaluate(
        "address => new Promise(done => { const s = new WebSocket(`ws://${address}/ws`);"
        "s.onmessage = () => done('told'); s.onerror = () => done('refused'); })",
        address,
    )
    assert opened == "refused"
