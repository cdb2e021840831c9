from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from jepa_gym.models import linear
from jepa_gym.models.linear import Linear


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Linear(128, 256)


@pytest.fixture
def calls(monkeypatch):
    """Record the calls of oneDNN."""
    if linear._ONEDNN is None:
        pytest.skip("this PyTorch has one matrix library only")
    made, operator = [], linear._ONEDNN
    monkeypatch.setattr(linear, "_ONEDNN", lambda *given: made.append(given) or operator(*given))
    return made


LARGE, SMALL = (2, 256, 128), (2, 255, 128)


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("shape", [LARGE, SMALL])
def test_same_numbers(layer, shape, gelu):
    x = torch.randn(shape)
    expected = F.linear(x, layer.weight, layer.bias)
    expected = F.gelu(expected) if gelu else expected
    with torch.no_grad():
        torch.testing.assert_close(layer(x, gelu), expected, rtol=1e-5, atol=1e-5)
        turned = x.transpose(0, 1)
        torch.testing.assert_close(
            layer(turned, gelu), expected.transpose(0, 1), rtol=1e-5, atol=1e-5
        )


def test_chosen_for_large_inputs_without_gradients(layer, calls):
    with torch.inference_mode():
        layer(torch.randn(LARGE), gelu=True)
        assert len(calls) == 1
        layer(torch.randn(SMALL))
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(torch.randn(LARGE)).dtype == torch.bfloat16
        layer.double()(torch.randn(LARGE, dtype=torch.float64))
    assert len(calls) == 1


@pytest.mark.parametrize("gelu", [False, True])
def test_gradients_are_those_of_pytorch(layer, calls, gelu):
    plain = nn.Linear(128, 256)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(LARGE)
    layer(x, gelu).square().mean().backward()
    out = plain(x)
    (F.gelu(out) if gelu else out).square().mean().backward()
    assert not calls
    assert torch.equal(layer.weight.grad, plain.weight.grad)
    assert torch.equal(layer.bias.grad, plain.bias.grad)
