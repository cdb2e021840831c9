"""The published planner's energies, written plainly: what `planning_speed.py` compares with.

Every step runs the predictor over all frames so far, the context is repeated for every sample, a
dense mask hides the future, every layer computes its rotation of queries and keys anew, and poses
are composed by SciPy, sample by sample. Layers are those of PyTorch, with the weights of the model
at hand. What the published code does needlessly beyond that (projecting the conditioning tokens
three times, attention masks copied in every call) is left out.

Reference: V-JEPA 2 (arXiv 2506.09985), `notebooks/utils/mpc_utils.py`,
`src/models/ac_predictor.py`, `src/models/utils/modules.py`.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from jepa_gym import poses
from jepa_gym.models import ActionConditionedPredictor
from jepa_gym.normalisation import layer_norm
from jepa_gym.world_model import WorldModel


@torch.inference_mode()
def energies(
    model: WorldModel, latents: Tensor, states: Tensor, actions: Tensor, goal: Tensor
) -> Tensor:
    """Return the energies (1, S) of the last frames that actions (1, S, H, 7) lead to.

    Args:
        model: A world model on the CPU.
        latents: (1, T, N, D) context.
        states: (1, T, 7) of it.
        actions: (1, S, H, 7) candidates, physical units.
        goal: (1, N, D).
    """
    samples = actions.shape[1]
    past = poses.difference(states[:, :-1], states[:, 1:])
    known, at, done = (x.repeat(samples, *[1] * (x.ndim - 1)) for x in (latents, states, past))
    for action in actions[0].split(1, 1):
        done = torch.cat([done, action], 1)
        given = model.normaliser.actions(done), model.normaliser.states(at)
        new = layer_norm(predict(model.predictor, known, *given)[:, -1:])
        known = torch.cat([known, new], 1)
        at = torch.cat([at, compose(at[:, -1], action[:, 0])[:, None]], 1)
    return (known[:, -1] - goal).abs().mean((1, 2))[None]


def predict(
    predictor: ActionConditionedPredictor, latents: Tensor, actions: Tensor, states: Tensor
) -> Tensor:
    """Return the next latents (S, T, N, D) of all frames; see the predictor's own `forward`."""
    frames, patches = latents.shape[1:3]
    conditions = [linear(predictor.action_encoder, actions)]
    conditions.append(linear(predictor.state_encoder, states))
    embedded = linear(predictor.predictor_embed, latents)
    x = torch.cat([torch.stack(conditions, 2), embedded], 2).flatten(1, 2)
    frame = torch.arange(frames).repeat_interleave(patches + 2)
    mask = frame[:, None] >= frame
    positions = torch.zeros(frames, patches + 2, 3, dtype=torch.long)
    positions[:, 2:, 1:] = torch.cartesian_prod(*map(torch.arange, predictor.grid))
    positions = positions.flatten(0, 1)
    positions[:, 0] = frame
    for block in predictor.predictor_blocks:
        qkv = linear(block.attn.qkv, block.norm1(x)).unflatten(-1, (3, block.attn.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (S, heads, tokens, head_dim)
        q, k = rotate(q, positions), rotate(k, positions)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + linear(block.attn.proj, seen.transpose(1, 2).flatten(2))
        hidden = F.gelu(linear(block.mlp.fc1, block.norm2(x)))
        x = x + linear(block.mlp.fc2, hidden)
    x = x.unflatten(1, (frames, -1))[:, :, 2:]
    return linear(predictor.predictor_proj, predictor.predictor_norm(x))


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotate queries or keys (S, heads, tokens, head_dim), as published, in their precision.

    Positions are (tokens, 3), or (S, heads, tokens, 3). That is the kind ``v2`` of
    `jepa_gym.models.rope`.
    """
    width = 2 * (x.shape[-1] // 3 // 2)
    parts = []
    for axis in range(3):
        part = x[..., axis * width : (axis + 1) * width]
        steps = torch.arange(width // 2, dtype=x.dtype) / (width / 2)
        angles = positions[..., axis, None] * (1 / 10000**steps)
        angles = torch.cat([angles, angles], -1)  # (..., tokens, width)
        first, second = part.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([-second, first], -1).flatten(-2)
        parts.append(part * angles.cos() + turned * angles.sin())
    return torch.cat([*parts, x[..., 3 * width :]], -1)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a layer as PyTorch does, whatever its class would do."""
    return F.linear(x, layer.weight, layer.bias)


def compose(states: Tensor, actions: Tensor) -> Tensor:
    """Return the states (S, 7) after actions (S, 7), by SciPy, sample by sample."""
    after = []
    for state, action in zip(states.numpy(), actions.numpy(), strict=True):
        turn = Rotation.from_euler("xyz", action[3:6]) * Rotation.from_euler("xyz", state[3:6])
        gripper = np.clip(state[6:] + action[6:], 0, 1)
        after.append(np.concatenate([state[:3] + action[:3], turn.as_euler("xyz"), gripper]))
    return torch.from_numpy(np.stack(after)).to(states)
