from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from jepa_gym.training.recipes import masks
from jepa_gym.training.recipes.losses import sigreg, teacher_forcing_and_rollout
from jepa_gym.training.recipes.masks import PUBLISHED, MaskConfig, sample_masks


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sigreg_of_a_gaussian_is_its_expectation():
    # n E|phi_n - phi|^2 = 1 - exp(-u^2); its weighted integral is sqrt(2 pi) - sqrt(2 pi / 3).
    value = sigreg(torch.randn(512, 40, 16, generator=generator()), 64, generator(1))
    assert value.item() == pytest.approx(1.06, abs=0.08)


@pytest.mark.parametrize("spoil", [lambda z: 0 * z, lambda z: 2 * z, lambda z: z + 1, torch.sign])
def test_sigreg_punishes_everything_else(spoil):
    z = torch.randn(512, 4, 4, generator=generator())
    assert sigreg(spoil(z), 64, generator(1)) > 3


def test_sigreg_spreads_a_collapsed_direction():
    z = torch.randn(256, 8, generator=generator())
    z[:, 4:] = z[:, :4]
    z.requires_grad_(True)
    optimizer = torch.optim.Adam([z], lr=0.05)
    for step in range(150):
        optimizer.zero_grad()
        sigreg(z, 32, generator(step)).backward()
        optimizer.step()
    correlation = torch.corrcoef(z.detach().T)[:4, 4:].diagonal()
    assert correlation.abs().max() < 0.7


class Shift:
    """Latents are counters: the next frame is the current one plus the action."""

    def __init__(self):
        self.seen = []

    def predict(self, latents, actions, states):
        self.seen.append((latents, actions, states))
        return latents + actions[..., :1, None]


def test_losses_of_a_perfect_model_are_zero():
    actions = torch.randn(2, 3, 7, generator=generator())
    totals = F.pad(actions[..., 0].cumsum(1), (1, 0))
    latents = totals[..., None, None].expand(-1, -1, 5, 4)
    forced, rollout = teacher_forcing_and_rollout(
        Shift(), latents, actions, torch.zeros(2, 4, 7), F.l1_loss
    )
    assert forced.item() == pytest.approx(0, abs=1e-6)
    assert rollout.item() == pytest.approx(0, abs=1e-6)


def test_rollout_feeds_its_own_first_prediction():
    """The slip of the first published code was to feed another frame."""
    model = Shift()
    latents = torch.randn(2, 4, 5, 4, generator=generator(), requires_grad=True)
    actions, states = torch.randn(2, 3, 7), torch.randn(2, 4, 7)
    _, rollout = teacher_forcing_and_rollout(model, latents, actions, states, F.l1_loss)
    context, used_actions, used_states = model.seen[1]
    assert torch.equal(context[:, 0], latents[:, 0])
    assert torch.equal(context[:, 1], latents[:, 0] + actions[:, 0, :1, None])
    assert torch.equal(used_actions, actions[:, :2])
    assert torch.equal(used_states, states[:, :2])
    expected = (context[:, 1] - latents[:, 1]).abs().mean() / 2
    expected = expected + (context[:, 1] + actions[:, 1, :1, None] - latents[:, 2]).abs().mean() / 2
    assert rollout.item() == pytest.approx(expected.item(), rel=1e-5)
    rollout.backward()
    assert latents.grad[:, 0].abs().sum() > 0


@pytest.mark.parametrize("steps", [1, 3])
def test_rollouts_of_any_length_are_compared_at_every_step_or_at_the_end(steps):
    model = Shift()
    latents = torch.randn(2, 5, 5, 4, generator=generator())
    actions, states = torch.randn(2, 4, 7), torch.randn(2, 5, 7)
    moved = latents[:, :1] + actions[:, :steps, :1, None].cumsum(1)
    errors = (moved - latents[:, 1 : steps + 1]).abs().mean((0, 2, 3))
    for where, expected in (("every", errors.mean()), ("end", errors[-1])):
        _, rollout = teacher_forcing_and_rollout(
            model, latents, actions, states, F.l1_loss, steps, where
        )
        assert rollout.item() == pytest.approx(expected.item(), rel=1e-5)


def test_rollout_needs_three_frames():
    with pytest.raises(ValueError, match="2 steps in clips of 2"):
        teacher_forcing_and_rollout(
            Shift(), torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 7), torch.zeros(1, 2, 7), F.l1_loss
        )


@pytest.mark.parametrize("config", PUBLISHED)
@pytest.mark.parametrize("grid", [(4, 8, 16), (1, 16, 16), (2, 4, 4)])
def test_masks(config, grid):
    context, target = sample_masks(grid, 6, config, generator())
    size = grid[0] * grid[1] * grid[2]
    for seen, hidden in zip(context, target, strict=True):
        seen, hidden = set(seen.tolist()), set(hidden.tolist())
        assert seen and hidden and not seen & hidden
        assert max(seen | hidden) < size
    plane = grid[1] * grid[2]
    whole = {i % plane for i in context[0].tolist()} & {i % plane for i in target[0].tolist()}
    assert not whole  # blocks span the whole clip
    assert torch.equal(context, context.sort(1).values)
    again = sample_masks(grid, 6, config, generator())
    assert torch.equal(again[0], context) and torch.equal(again[1], target)


def test_mask_errors():
    with pytest.raises(ValueError, match="spatial_scale"):
        MaskConfig(blocks=2, spatial_scale=1.0)
    with pytest.raises(ValueError, match="whole 1x1 grid"):
        sample_masks((2, 1, 1), 2, PUBLISHED[1], generator())


def test_sigreg_is_computed_in_float32_under_autocast():
    latents = torch.randn(256, 16, generator=generator())
    plain = sigreg(latents, 32, generator(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sigreg(latents, 32, generator(1)), plain)


def test_blocks_that_hide_everything_are_an_error():
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="200 blocks of 2x2 tokens hid the whole 4x4 grid"):
        masks._plane(4, 4, 2, 2, 200, generator)
