"""The action-conditioned predictor of V-JEPA 2-AC, with a cache of frames.

Tokens of a frame: [action, (state,) (camera extrinsics,) patches row by row]; a token sees its own
frame and all earlier ones. The patches of frame t give the latents of frame t + 1, directly, not
as a residual.

Deviations from the published code: the mask is built for the length in use; columns count 0, 1, ..
on every grid (the published code scales them by rows / columns, which is 1 for the square pictures
its weights were trained on); frames can be decoded one by one from a cache, with the same result.

Reference: V-JEPA 2 (arXiv 2506.09985) section 3; `src/models/ac_predictor.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jepa_gym.models.blocks import NORM_EPS, Block, init_transformer
from jepa_gym.models.rope import frame_rotation

EXTRINSICS_DIM = 6


@dataclass(frozen=True)
class FrameCache:
    """Keys and values of past frames, per block.

    Attributes:
        frames: Number of frames held.
        shared: Per block (keys, values) of the frames all candidates have in common, each
            (B, heads, tokens, head_dim).
        own: The same for each candidate's own frames, (B * S, heads, tokens, head_dim); empty
            before the first `decode`.
    """

    frames: int
    shared: tuple[tuple[Tensor, Tensor], ...]
    own: tuple[tuple[Tensor, Tensor], ...] = ()

    def past(self, block: int, samples: int) -> list[tuple[Tensor, Tensor]]:
        """Return the parts of what a candidate of `block` sees, (B * S, heads, tokens, hd) each.

        The shared part of a batch of one is expanded without a copy.
        """
        parts = []
        if self.shared:
            keys, values = (
                x[:, None].expand(-1, samples, -1, -1, -1).flatten(0, 1) for x in self.shared[block]
            )
            parts.append((keys, values))
        if self.own:
            parts.append(self.own[block])
        return parts


class ActionConditionedPredictor(nn.Module):
    """Predicts the next frame's latents from latents, actions and states."""

    def __init__(
        self,
        grid: tuple[int, int],
        latent_dim: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        rope: str = "interleaved",
        use_extrinsics: bool = False,
        action_dim: int = 7,
        use_states: bool = True,
    ) -> None:
        """Create the predictor.

        Args:
            grid: Rows and columns of patch tokens of a frame.
            latent_dim: Width D of the latents.
            width: Width of the blocks.
            depth: Number of blocks.
            heads: Attention heads.
            mlp_ratio: Hidden width of an MLP over `width`.
            rope: ``interleaved``, or ``v2`` for published weights.
            use_extrinsics: Whether a frame has a token for the camera's pose. The layer
                `extrinsics_encoder` exists either way, as in the published checkpoint.
            action_dim: Numbers of an action and of a state.
            use_states: Whether a frame has a token for the state. jepa-wms' retrained V-JEPA 2-AC
                has none, nor the layer for it; states are then taken and ignored.
        """
        super().__init__()
        self.grid, self.head_dim, self.rope = grid, width // heads, rope
        self.use_extrinsics, self.use_states = use_extrinsics, use_states
        self.extra_tokens = 1 + use_states + use_extrinsics
        self.predictor_embed = nn.Linear(latent_dim, width)
        self.action_encoder = nn.Linear(action_dim, width)
        if use_states:
            self.state_encoder = nn.Linear(action_dim, width)
        self.extrinsics_encoder = nn.Linear(EXTRINSICS_DIM, width)
        self.predictor_blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.predictor_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.predictor_proj = nn.Linear(width, latent_dim)
        init_transformer(self, self.predictor_blocks)

    def forward(
        self, latents: Tensor, actions: Tensor, states: Tensor, extrinsics: Tensor | None = None
    ) -> Tensor:
        """Predict, for every frame, the next one.

        Args:
            latents: (B, T, N, D) or (B, T * N, D).
            actions: (B, T, 7) what is done at each frame.
            states: (B, T, 7).
            extrinsics: (B, T, 6) camera poses, exactly when the model uses them.

        Returns:
            The predicted latents of frames 1 .. T, in the layout of `latents`.

        Raises:
            ValueError: When shapes disagree, or extrinsics are missing or superfluous.
        """
        flat = latents.ndim == 3
        if flat:
            latents = latents.unflatten(1, (actions.shape[1], -1))
        frames = latents.shape[1]
        x = self._tokens(latents, actions, states, extrinsics).flatten(1, 2)
        rope, mask = self._rotation(0, frames, x.device), self._mask(frames, x.device)
        for block in self.predictor_blocks:
            x = block(x, rope, mask)
        out = self._latents(x.unflatten(1, (frames, -1)))
        return out.flatten(1, 2) if flat else out

    def start_cache(
        self, latents: Tensor, actions: Tensor, states: Tensor, extrinsics: Tensor | None = None
    ) -> FrameCache:
        """Return the cache of fully known frames.

        Args:
            latents: (B, T, N, D); T may be 0, for an empty cache.
            actions: (B, T, 7).
            states: (B, T, 7).
            extrinsics: As in `forward`.
        """
        frames = latents.shape[1]
        if not frames:
            return FrameCache(0, ())
        x = self._tokens(latents, actions, states, extrinsics).flatten(1, 2)
        rope, mask = self._rotation(0, frames, x.device), self._mask(frames, x.device)
        pairs = []
        for block in self.predictor_blocks:
            x, keys, values = block.with_keys(x, rope, mask)
            pairs.append((keys, values))
        return FrameCache(frames, tuple(pairs))

    def decode(
        self,
        latents: Tensor,
        actions: Tensor,
        states: Tensor,
        cache: FrameCache,
        extrinsics: Tensor | None = None,
    ) -> tuple[Tensor, FrameCache]:
        """Add one frame to each candidate and predict the next one.

        Args:
            latents: (B, S, N, D) of the added frame, or (B, 1, N, D) when all candidates share it.
            actions: (B, S, 7).
            states: (B, S, 7).
            cache: The earlier frames, from `start_cache` or `decode`.
            extrinsics: (B, S, 6), exactly when the model uses them.

        Returns:
            The next latents (B, S, N, D), and the cache with the added frame.
        """
        samples = actions.shape[1]
        x = self._tokens(latents, actions, states, extrinsics).flatten(0, 1)
        rope = self._rotation(cache.frames, 1, x.device)
        own = []
        for number, block in enumerate(self.predictor_blocks):
            past = cache.past(number, samples)
            x, keys, values = block.with_keys(x, rope, past=past)
            if cache.own:
                before = cache.own[number]
                keys, values = torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)
            own.append((keys, values))
        grown = FrameCache(cache.frames + 1, cache.shared, tuple(own))
        return self._latents(x.unflatten(0, (-1, samples))), grown

    def _tokens(
        self, latents: Tensor, actions: Tensor, states: Tensor, extrinsics: Tensor | None
    ) -> Tensor:
        """Return the (B, T, extra + N, width) tokens; T stands for S when decoding."""
        self._check(latents, actions, states, extrinsics)
        conditions = [self.action_encoder(actions)]
        if self.use_states:
            conditions.append(self.state_encoder(states))
        if extrinsics is not None:
            conditions.append(self.extrinsics_encoder(extrinsics))
        patches = self.predictor_embed(latents).expand(-1, actions.shape[1], -1, -1)
        return torch.cat([torch.stack(conditions, 2), patches], 2)

    def _check(
        self, latents: Tensor, actions: Tensor, states: Tensor, extrinsics: Tensor | None
    ) -> None:
        if self.use_extrinsics != (extrinsics is not None):
            raise ValueError(
                f"the predictor was built with use_extrinsics={self.use_extrinsics}, "
                f"but extrinsics are {'missing' if extrinsics is None else 'given'}"
            )
        num_tokens = self.grid[0] * self.grid[1]
        if latents.ndim != 4 or latents.shape[2] != num_tokens:
            raise ValueError(
                f"`latents` must be (B, T, {num_tokens}, D), got {tuple(latents.shape)}"
            )
        if actions.shape != states.shape or actions.ndim != 3:
            raise ValueError(
                "`actions` and `states` must both be (B, T, 7), "
                f"got {tuple(actions.shape)} and {tuple(states.shape)}"
            )
        if latents.shape[0] != actions.shape[0] or latents.shape[1] not in (1, actions.shape[1]):
            raise ValueError(
                "`latents` and `actions` must agree in batch and time, "
                f"got {tuple(latents.shape)} and {tuple(actions.shape)}"
            )

    def _latents(self, x: Tensor) -> Tensor:
        """Read the patch tokens of (B, T, extra + N, width)."""
        return self.predictor_proj(self.predictor_norm(x[:, :, self.extra_tokens :]))

    def _rotation(self, first: int, frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
        return frame_rotation(
            first, frames, self.extra_tokens, self.grid, self.head_dim, self.rope, device
        )

    def _mask(self, frames: int, device: torch.device) -> Tensor | None:
        """Return the frame-causal mask, True where a row may see a column."""
        if frames == 1:
            return None
        per_frame = self.extra_tokens + self.grid[0] * self.grid[1]
        frame = torch.arange(frames, device=device).repeat_interleave(per_frame)
        return frame[:, None] >= frame[None, :]
