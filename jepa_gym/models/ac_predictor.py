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

import torch
from torch import Tensor, nn

from jepa_gym.models.kv_cache import BlockCache, KVCache, decode_block, decode_first_block, splits
from jepa_gym.models.rope import Rotation, frame_rotation
from jepa_gym.models.transformer import NORM_EPS, Blocks, attention, init_transformer

EXTRINSICS_DIM = 6


class ActionConditionedPredictor(nn.Module):
    """Predicts the next frame's latents from latents, actions and states."""

    def __init__(
        self,
        grid: tuple[int, int],
        latent_dim: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
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
            embed_dim: Width of the blocks.
            depth: Number of blocks.
            num_heads: Attention heads.
            mlp_ratio: Hidden width of an MLP over `embed_dim`.
            rope: ``interleaved``, or ``v2`` for published weights.
            use_extrinsics: Whether a frame has a token for the camera's pose. The layer
                `extrinsics_encoder` exists either way, as in the published checkpoint.
            action_dim: Numbers of an action and of a state.
            use_states: Whether a frame has a token for the state. jepa-wms' retrained V-JEPA 2-AC
                has none, nor the layer for it; states are then taken and ignored.
        """
        super().__init__()
        self.grid, self.num_tokens, self.rope = grid, grid[0] * grid[1], rope
        self.embed_dim, self.head_dim, self.mlp_ratio = embed_dim, embed_dim // num_heads, mlp_ratio
        self.use_extrinsics, self.use_states = use_extrinsics, use_states
        self.extra_tokens = 1 + use_states + use_extrinsics
        self.predictor_embed = nn.Linear(latent_dim, embed_dim)
        self.action_encoder = nn.Linear(action_dim, embed_dim)
        if use_states:
            self.state_encoder = nn.Linear(action_dim, embed_dim)
        self.extrinsics_encoder = nn.Linear(EXTRINSICS_DIM, embed_dim)
        self.predictor_blocks = Blocks(depth, embed_dim, num_heads, mlp_ratio)
        self.predictor_norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.predictor_proj = nn.Linear(embed_dim, latent_dim)
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
    ) -> KVCache:
        """Return the cache of fully known frames.

        Args:
            latents: (B, T, N, D); T may be 0, for an empty cache.
            actions: (B, T, 7).
            states: (B, T, 7).
            extrinsics: As in `forward`.
        """
        frames = latents.shape[1]
        if not frames:
            return KVCache(0, (BlockCache(None),) * len(self.predictor_blocks))
        x = self._tokens(latents, actions, states, extrinsics).flatten(1, 2)
        rope, mask = self._rotation(0, frames, x.device), self._mask(frames, x.device)
        blocks = []
        for block in self.predictor_blocks:
            queries, keys, values = block.attn.tokens(block.norm1(x), rope)
            blocks.append(BlockCache((keys.contiguous(), values.contiguous())))
            if len(blocks) < len(self.predictor_blocks):  # nobody reads the last block's output
                queries, keys, values = (y.transpose(1, 2) for y in (queries, keys, values))
                x = x + block.attn.proj(attention(queries, keys, values, mask))
                x = x + block.mlp(block.norm2(x))
        return KVCache(frames, tuple(blocks))

    def decode(
        self,
        latents: Tensor,
        actions: Tensor,
        states: Tensor,
        cache: KVCache,
        extrinsics: Tensor | None = None,
        following: int | None = None,
    ) -> tuple[Tensor, KVCache]:
        """Add one frame to each candidate and predict the next one.

        Args:
            latents: (B, S, N, D) of the added frame, or (B, 1, N, D) when all candidates share it.
            actions: (B, S, 7).
            states: (B, S, 7), or (B, 1, 7) when all candidates share it.
            cache: The earlier frames, from `start_cache` or `decode`.
            extrinsics: (B, S, 6) or (B, 1, 6), exactly when the model uses them.
            following: How many frames will be decoded after this one, where that is known; memory
                for them is taken at the first, and with 0 the cache returned is `cache`.

        Returns:
            The next latents (B, S, N, D), and the cache with the added frame.
        """
        action, common = self._frame(latents, actions, states, extrinsics)
        samples, room = actions.shape[1], None
        if following is not None:
            room = following * (1 + common.shape[2])
        rope = self._rotation(cache.frames, 1, action.device)
        first, grown = cache.blocks[0], []
        if common.shape[1] == 1 < samples and first.own is None and splits(action):
            block = self.predictor_blocks[0]
            x, first = decode_first_block(block, action, common[:, 0], rope, first.shared, room)
            grown.append(first)
        else:
            x = torch.cat([action[:, :, None], common.expand(-1, samples, -1, -1)], 2).flatten(0, 1)
        for number in range(len(grown), len(self.predictor_blocks)):
            last = number == len(self.predictor_blocks) - 1
            x, seen = decode_block(
                self.predictor_blocks[number],
                x,
                rope,
                cache.blocks[number],
                room,
                skip=self.extra_tokens if last else 0,
            )
            if following != 0:
                grown.append(seen)
        out = self._read(x[:, -self.num_tokens :].unflatten(0, (-1, samples)))
        return out, cache if following == 0 else KVCache(cache.frames + 1, tuple(grown))

    def _tokens(
        self, latents: Tensor, actions: Tensor, states: Tensor, extrinsics: Tensor | None
    ) -> Tensor:
        """Return the (B, T, extra + N, embed_dim) tokens."""
        action, common = self._frame(latents, actions, states, extrinsics)
        return torch.cat([action[:, :, None], common], 2)

    def _frame(
        self, latents: Tensor, actions: Tensor, states: Tensor, extrinsics: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the action tokens (B, T, embed_dim) and the others.

        The others are (B, T, extra - 1 + N, embed_dim), or (B, 1, ...) when they are the same for
        all. T stands for S when decoding.
        """
        self._check(latents, actions, states, extrinsics)
        conditions = [self.state_encoder(states)] if self.use_states else []
        if extrinsics is not None:
            conditions.append(self.extrinsics_encoder(extrinsics))
        parts = [self.predictor_embed(latents), *(x[:, :, None] for x in conditions)]
        times = max(x.shape[1] for x in parts)
        patches, *rest = (x.expand(-1, times, -1, -1) for x in parts)
        return self.action_encoder(actions), torch.cat([*rest, patches], 2)

    def _check(
        self, latents: Tensor, actions: Tensor, states: Tensor, extrinsics: Tensor | None
    ) -> None:
        if self.use_extrinsics != (extrinsics is not None):
            raise ValueError(
                f"the predictor was built with use_extrinsics={self.use_extrinsics}, "
                f"but extrinsics are {'missing' if extrinsics is None else 'given'}"
            )
        if latents.ndim != 4 or latents.shape[2] != self.num_tokens:
            raise ValueError(
                f"`latents` must be (B, T, {self.num_tokens}, D), got {tuple(latents.shape)}"
            )
        frames = (1, actions.shape[1]) if actions.ndim == 3 else ()
        if (
            actions.ndim != 3
            or states.ndim != 3
            or states.shape[1] not in frames
            or (actions.shape[::2] != states.shape[::2])
        ):
            raise ValueError(
                "`actions` and `states` must both be (B, T, 7), "
                f"got {tuple(actions.shape)} and {tuple(states.shape)}"
            )
        if latents.shape[0] != actions.shape[0] or latents.shape[1] not in frames:
            raise ValueError(
                "`latents` and `actions` must agree in batch and time, "
                f"got {tuple(latents.shape)} and {tuple(actions.shape)}"
            )

    def _latents(self, x: Tensor) -> Tensor:
        """Read the patch tokens of (B, T, extra + N, embed_dim)."""
        return self._read(x[:, :, self.extra_tokens :])

    def _read(self, x: Tensor) -> Tensor:
        return self.predictor_proj(self.predictor_norm(x))

    def _rotation(self, first: int, frames: int, device: torch.device) -> Rotation:
        return frame_rotation(
            first, frames, self.extra_tokens, self.grid, self.head_dim, self.rope, device
        )

    def _mask(self, frames: int, device: torch.device) -> Tensor | None:
        """Return the frame-causal mask, True where a row may see a column."""
        if frames == 1:
            return None
        per_frame = self.extra_tokens + self.num_tokens
        frame = torch.arange(frames, device=device).repeat_interleave(per_frame)
        return frame[:, None] >= frame[None, :]
