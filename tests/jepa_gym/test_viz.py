"""Pictures of the default model: sizes, where the minimum is, what is refused."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest

from jepa_gym import WorldModel, make_env, viz
from jepa_gym.checkpoint.start_frames import read_starts


@pytest.fixture(scope="module")
def model():
    return WorldModel.from_pretrained("default")


@pytest.fixture(scope="module")
def observation(model):
    starts = read_starts(model.folder)
    return {
        "pixels": starts.frames[0],
        "goal_pixels": starts.goal_frames[0],
        "observation": starts.states[0].astype(np.float32),
    }, starts.goal_states[0, :3] - starts.states[0, :3]


def test_the_minimum_of_a_landscape_is_on_the_way_to_the_goal(model, observation):
    seen, way = observation
    spans = [np.linspace(-0.075, 0.075, 9)] * 2
    energies = viz.energy_grid(model, seen, ("x", "y"), spans)
    assert energies.shape == (9, 9)
    best = np.unravel_index(energies.argmin(), energies.shape)
    move = np.array([spans[0][best[0]], spans[1][best[1]]])
    assert move @ way[:2] > 0
    held = viz.energy_grid(model, seen, ("gripper", "z"), [np.zeros(1), np.zeros(1)])
    centre = energies[4, 4]
    assert held[0, 0] == pytest.approx(centre, abs=1e-5)
    figure = viz.landscape(model, seen, ("x", "z"), points=5)
    picture = viz.pixels_of(figure)
    assert picture.dtype == np.uint8 and picture.std() > 20
    assert figure.axes[0].get_ylabel() == "dz, cm"
    with pytest.raises(ValueError, match="`axes` must be two of"):
        viz.landscape(model, seen, ("x", "roll"))


def test_latents_are_drawn_and_coloured(model, observation):
    seen, _ = observation
    frames = np.stack([seen["pixels"], seen["goal_pixels"]])
    drawn = viz.decoded(model, model.encode(frames[None])[0])
    assert drawn.shape == frames.shape and drawn.dtype == np.uint8
    apart = np.abs(drawn[:, None].astype(int) - frames).mean((2, 3, 4))
    assert (apart.argmin(1) == [0, 1]).all()  # each is more like its own frame than the other
    colours = viz.latent_map(model, frames, scale=4)
    rows, columns = model.config.grid
    assert colours.shape == (2, 4 * rows, 4 * columns, 3) and colours.std() > 20


def test_tiles():
    one, other = np.zeros((2, 3, 3), np.uint8), np.full((2, 3, 3), 9, np.uint8)
    sheet = viz.tiled([[one, other], [other, one]], gap=1, scale=2)
    assert sheet.shape == (9, 13, 3)
    assert (sheet[:4, :6] == 0).all() and (sheet[:4, 7:] == 9).all() and (sheet[4] == 255).all()
    with pytest.raises(ValueError, match="of one size"):
        viz.tiled([[one, other[:1]]])


def test_curves_have_units():
    figure = viz.curves({"real": [1.0, 0.5], "imagined": [1.0, 0.7]}, "energy", until=0)
    panel = figure.axes[0]
    assert panel.get_xlabel() == "step" and panel.get_ylabel() == "energy"
    assert [len(line.get_xdata()) for line in panel.lines] == [1, 1]


def test_a_model_without_decoder_says_how_to_get_one(model, tmp_path):
    model.save_pretrained(tmp_path, {})
    with pytest.raises(ValueError, match="jepa-gym decode"):
        viz.decoded(WorldModel.from_pretrained(tmp_path), np.zeros((1, 8, 160), np.float32))


def test_the_environment_is_not_needed(model, observation):
    env = make_env(model, "reach", obs_mode="both")
    seen, _ = env.reset(seed=1)
    assert viz.energy_grid(model, seen, ("x", "y"), [np.zeros(1), np.zeros(2)]).shape == (1, 2)


def test_cheap_paths_are_drawn_last_and_those_without_a_cost_not():
    picture = np.full((20, 30, 3), 255, np.uint8)
    line = np.array([[5.0, 10.0], [25.0, 10.0]])
    other = line + [0, 5]
    drawn = viz.paths_in_picture(
        picture, np.stack([line, line, other]), np.array([2.0, 1.0, np.inf])
    )
    assert drawn.shape == (60, 90, 3)
    alone = viz.paths_in_picture(picture, line[None], np.zeros(1))
    assert (drawn[31] != 255).any() and (drawn[43:] == 255).all()
    assert alone.shape == drawn.shape and (alone != drawn).any(), "the colour tells the cost"


def test_a_film_for_a_page():
    frames = np.zeros((3, 8, 12, 3), np.uint8)
    frames[1] = 255
    read = iio.imread(viz.gif(frames), extension=".gif")
    assert read.shape[:3] == (3, 8, 12) and read[1].mean() > 200 > read[2].mean()


def test_every_line_has_a_colour_of_its_own():
    panel = viz.curves({"real": [1.0, 2.0], "a": [2.0, 1.0], "b": [1.0, 1.0]}, "cm").axes[0]
    assert len({line.get_color() for line in panel.lines}) == 3
