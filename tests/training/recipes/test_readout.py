"""A readout tells states from latents, costs take it, and it is saved with the model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from jepa_gym.agents.cost import CostSettings, PlanCost
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.training.recipes.readout import fit_readout
from jepa_gym.world_model import WorldModel


def model() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(
        WorldModelConfig(
            frame=FrameSpec(height=16, width=32),
            encoder=EncoderConfig(
                kind="vit", embed_dim=24, depth=1, num_heads=2, latent_dim=24, patch_size=8
            ),
            predictor=PredictorConfig(embed_dim=24, depth=1, num_heads=2),
        )
    ).eval()


def arrays(seed: int, episodes: int = 12, length: int = 6) -> ClipArrays:
    """Frames whose brightness along the columns follows the state."""
    rng = np.random.default_rng(seed)
    states = np.zeros((episodes, length, 7), np.float32)
    states[..., [0, 1, 2, 6]] = rng.uniform(0, 1, size=(episodes, length, 4))
    frames = np.zeros((episodes, length, 16, 32, 3))
    for column, number in enumerate((0, 1, 2, 6)):
        frames[..., 8 * column : 8 * column + 4, :] = states[..., number, None, None, None]
    frames = (255 * frames).astype(np.uint8)
    names = tuple(map(str, range(episodes)))
    return ClipArrays(frames, np.arange(episodes), names, states, states[:, 1:])


def test_a_fitted_readout_tells_states_apart_and_is_saved(tmp_path):
    world_model = model()
    figures = fit_readout(world_model, arrays(0, 60), arrays(1), weight=0.5, steps=300)
    assert figures["readout hand, cm"] < 10  # of states all over a metre: a guess has 48
    assert figures["readout closedness"] < 0.1
    shown = arrays(2)
    latents = world_model.encode(shown.frames[:1])
    difference = world_model.state_difference(latents, latents[:, 0])
    assert difference[0, 0] < 1e-5 and (difference[0, 1:] > 0.1).all()
    world_model.save_pretrained(tmp_path / "m", {})
    again = WorldModel.from_pretrained(tmp_path / "m")
    assert again.readout_weight == 0.5
    torch.testing.assert_close(again.state_difference(latents, latents[:, 0]), difference)


def test_the_cost_of_a_plan_takes_the_weighted_difference():
    world_model = model()
    fit_readout(world_model, arrays(0), arrays(1), weight=0.5, steps=2)
    shown = arrays(2)
    latents = world_model.encode(shown.frames[:2, :2])
    states = torch.from_numpy(shown.states[:2, :1])
    actions = torch.randn(2, 3, 2, 7) * 0.05

    def cost(**settings) -> torch.Tensor:
        settings = CostSettings(offset_free=False, stops=False, **settings)
        goal = latents[:, 1]
        return PlanCost(world_model, latents[:, :1], states, goal, None, 2, settings)(actions)

    last = world_model.rollout(latents[:, :1], states, actions)[:, :, -1]
    added = 0.5 * world_model.state_difference(last, latents[:, 1])
    torch.testing.assert_close(cost(readout_weight=0.5), cost() + added)


def test_latents_in_place_of_frames_give_the_same_readout():
    of_frames, of_latents = model(), model()
    train, validation = arrays(0), arrays(1)
    latents = [replace(x, frames=of_latents.encode(x.frames).numpy()) for x in (train, validation)]
    figures = fit_readout(of_frames, train, validation, weight=0.5, steps=20)
    assert figures == pytest.approx(fit_readout(of_latents, *latents, weight=0.5, steps=20))


def test_without_a_readout_there_is_no_difference():
    world_model = model()
    assert world_model.readout_weight == 0
    latents = torch.zeros(1, 2, 8, 24)
    with pytest.raises(ValueError, match="no readout"):
        world_model.state_difference(latents, latents[:, 0])
