"""From pixels to predictions: what happens later changes nothing before, to the last bit."""

from __future__ import annotations

import pytest
import torch

from jepa_gym.world_model import WorldModel


@pytest.mark.parametrize("kind", ["conv", "vit"])
def test_later_frames_actions_and_states_do_not_leak(tiny_config, kind):
    torch.manual_seed(0)
    model = WorldModel(tiny_config(kind)).eval().requires_grad_(False)
    for name, part in model.predictor.named_parameters():
        if name.endswith("weight"):
            part.mul_(5)  # fresh weights would leave little to compare
    frames = torch.randint(0, 256, (2, 4, 32, 64, 3), dtype=torch.uint8)
    actions, states = torch.randn(2, 2, 4, 7) * 0.05
    latents = model.encode(frames)
    future = model.predict(latents, actions, states)
    for time in (1, 2, 3):
        changed = frames.clone()
        changed[:, time] = 255 - changed[:, time]
        encoded = model.encode(changed)
        others = [t for t in range(4) if t != time]
        assert torch.equal(encoded[:, others], latents[:, others])
        for given in (
            (encoded, actions, states),
            (latents, moved(actions, time), states),
            (latents, actions, moved(states, time)),
        ):
            after = model.predict(*given)
            assert torch.equal(after[:, :time], future[:, :time])
            assert not torch.equal(after[:, time], future[:, time])


def moved(x, time):
    x = x.clone()
    x[:, time] += 0.1
    return x
