"""The published trainings, written plainly: what `training_speed.py` compares with.

What a step does is what the published code does: pre-training encodes the whole clip with the
moving average, then cuts the whole clip into tubelets once more for every mask, and its predictor
sorts the tokens by position and back; post-training encodes every frame of every clip anew, and its
rollout predicts the first frame a second time. Every layer computes its rotation of queries and
keys anew, for every head where tokens are chosen by a mask. The optimiser goes through the
parameters one by one and every step waits for its loss. Layers are those of PyTorch, with the
weights of the model at hand.

The published configurations recompute all activations in the backward pass, a third more
arithmetic, and project the conditioning tokens three times; both are left out here.

Reference: V-JEPA 2 (arXiv 2506.09985), `app/vjepa/train.py`, `app/vjepa_droid/train.py`,
`src/models/predictor.py`, `src/models/ac_predictor.py`, `src/models/utils/modules.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from jepa_gym.benchmarks.plain_planner import linear, predict, rotate
from jepa_gym.models import MaskedPredictor, VideoTransformer
from jepa_gym.models.transformer import Block
from jepa_gym.normalisation import layer_norm
from jepa_gym.training.engine.task import Batch
from jepa_gym.training.recipes.masked_model import MaskedModel
from jepa_gym.world_model import WorldModel


def masked_loss(model: MaskedModel, batch: Batch) -> Tensor:
    """Return the loss of pre-training; see `MaskedModel.loss`.

    Args:
        model: With rotary positions of the published kind, ``v2``.
        batch: `frames` (B, T, Y, X, 3) uint8, and the masks of `MaskedModel.draw_masks`.
    """
    video = rearrange(model.normaliser.pixels(batch["frames"]), "b t y x c -> b c t y x")
    with torch.no_grad():
        whole = layer_norm(encode(model.target_encoder, video))
    total, kinds = torch.zeros(()), sum(name.startswith("seen") for name in batch)
    for kind in range(kinds):
        seen, hidden = batch[f"seen_{kind}"], batch[f"hidden_{kind}"]
        context = encode(model.encoder, video, seen)
        given = fill_in(model.predictor, context, seen, hidden)
        total = total + (given - chosen(whole, hidden)).abs().mean()
    return total / kinds


def action_loss(model: WorldModel, batch: Batch) -> Tensor:
    """Return the loss of post-training, teacher forcing and a rollout of two steps.

    Args:
        model: With an encoder of kind `vit`, which gets no gradient.
        batch: `frames` (B, T, Y, X, 3) uint8, or their latents (B, T, N, D); `actions`, `states`.
    """
    frames, states = batch["frames"], batch["states"]
    latents = frames.float()
    if frames.ndim == 5:
        assert isinstance(model.encoder, VideoTransformer)
        pixels = rearrange(model.normaliser.pixels(frames), "b t y x c -> (b t) c y x")
        video = repeat(pixels, "n c y x -> n c two y x", two=2)
        with torch.no_grad():
            encoded = layer_norm(encode(model.encoder, video))
        latents = rearrange(encoded, "(b t) n d -> b t n d", t=frames.shape[1])
    given = model.normaliser.actions(batch["actions"]), model.normaliser.states(states)
    forced = layer_norm(predict(model.predictor, latents[:, :-1], given[0], given[1][:, :-1]))
    context = torch.cat([latents[:, :1], forced[:, :1]], 1)
    second = predict(model.predictor, context, given[0][:, :2], given[1][:, :2])[:, 1:]
    imagined = torch.cat([forced[:, :1], layer_norm(second)], 1)
    return F.l1_loss(forced, latents[:, 1:]) + F.l1_loss(imagined, latents[:, 1:3])


def take_step(
    loss: Tensor, optimizer: torch.optim.Optimizer, pair: Sequence[nn.Module], momentum: float
) -> float:
    """Step along the gradient of a loss and return it.

    Args:
        loss: What is minimised.
        optimizer: Over what is trained.
        pair: An encoder and its moving average, or nothing.
        momentum: Of the average.
    """
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if pair:
        fast, slow = (list(module.parameters()) for module in pair)
        with torch.no_grad():
            torch._foreach_mul_(slow, momentum)
            torch._foreach_add_(slow, fast, alpha=1 - momentum)
    return loss.item()


def optimizer(module: nn.Module, rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW as the published code makes it; only matrices decay."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate)


def encode(encoder: VideoTransformer, video: Tensor, ids: Tensor | None = None) -> Tensor:
    """Return the features of a video's tokens, or of some of them; see the encoder's `forward`."""
    x = encoder.patch_embed(video)
    frames, rows, columns = x.shape[2:]
    x = x.flatten(2).transpose(1, 2)
    if ids is None:
        ids = torch.arange(frames * rows * columns)[None]
    else:
        x = chosen(x, ids)
    for block in encoder.blocks:
        x = transform(block, x, ids, (rows, columns))
    return encoder.norm(x)


def fill_in(predictor: MaskedPredictor, context: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
    """Return the features (B, M, D) of hidden tokens; see the predictor's own `forward`."""
    x = linear(predictor.predictor_embed, context)
    grid = predictor.grid
    token = predictor.mask_tokens[0].repeat(len(x), int(hidden.max()) + 1, 1)
    x = torch.cat([x, chosen(token, hidden).to(x.dtype)], 1)
    ids = torch.cat([seen, hidden], 1)
    order = ids.argsort(1)
    x, ids = chosen(x, order), ids.gather(1, order)
    for block in predictor.predictor_blocks:
        x = transform(block, x, ids, grid)
    x = chosen(predictor.predictor_norm(x), order.argsort(1))[:, seen.shape[1] :]
    return linear(predictor.predictor_proj, x)


def transform(block: Block, x: Tensor, ids: Tensor, grid: tuple[int, int]) -> Tensor:
    """Map tokens (B, K, width) with ids (B or 1, K) in a grid through a block."""
    heads, (rows, columns) = block.attn.num_heads, grid
    qkv = linear(block.attn.qkv, block.norm1(x)).unflatten(-1, (3, heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, tokens, head_dim)
    place = ids % (rows * columns)
    positions = torch.stack([ids // (rows * columns), place // columns, place % columns], -1)
    if len(ids) > 1:
        positions = positions[:, None].repeat(1, heads, 1, 1)
    q, k = rotate(q, positions), rotate(k, positions)
    attended = F.scaled_dot_product_attention(q, k, v)
    x = x + linear(block.attn.proj, attended.transpose(1, 2).flatten(2))
    return x + linear(block.mlp.fc2, F.gelu(linear(block.mlp.fc1, block.norm2(x))))


def chosen(x: Tensor, ids: Tensor) -> Tensor:
    """Return the tokens (B, K, D) of x (B, N, D) that ids (B, K) name, as published."""
    return x.gather(1, ids.unsqueeze(-1).repeat(1, 1, x.shape[-1]))
