"""The attentive pooler of V-JEPA 2's frozen evaluation, and the heads on it.

A few self-attention blocks without positions, then learned queries that attend to the tokens.

Reference: V-JEPA 2 (arXiv 2506.09985); `src/models/attentive_pooler.py`,
`evals/action_anticipation_frozen/models.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from jepa_gym.models.transformer import INIT_STD, Blocks, CrossAttentionBlock, init_transformer

POOLER_EPS = 1e-5
"""Of the pooler's layer norms; the encoder's is 1e-6."""


class AttentivePooler(nn.Module):
    """Pools any number of tokens into one vector for each learned query."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        depth: int = 4,
        num_queries: int = 1,
        mlp_ratio: float = 4.0,
    ) -> None:
        """Create the pooler.

        Args:
            embed_dim: Width D of the tokens.
            num_heads: Attention heads.
            depth: Blocks: `depth` - 1 of self-attention, and the one of the queries.
            num_queries: Learned queries Q.
            mlp_ratio: Hidden width of an MLP over `embed_dim`.

        Raises:
            ValueError: When `depth` or `num_queries` is below 1.
        """
        super().__init__()
        if depth < 1 or num_queries < 1:
            raise ValueError(
                f"`depth` and `num_queries` must be at least 1, got {depth} and {num_queries}"
            )
        self.query_tokens = nn.Parameter(torch.zeros(1, num_queries, embed_dim))
        self.cross_attention_block = CrossAttentionBlock(
            embed_dim, num_heads, mlp_ratio, eps=POOLER_EPS
        )
        self.blocks = Blocks(depth - 1, embed_dim, num_heads, mlp_ratio, eps=POOLER_EPS)
        init_transformer(self, self.blocks)
        nn.init.trunc_normal_(self.query_tokens, std=INIT_STD)
        with torch.no_grad():  # scaled as the last block of self-attention
            self.cross_attention_block.mlp.fc2.weight.div_(math.sqrt(2.0 * max(1, depth - 1)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) tokens to (B, Q, D).

        Raises:
            ValueError: When the tokens are of another width.
        """
        embed_dim = self.query_tokens.shape[-1]
        if tokens.ndim != 3 or tokens.shape[-1] != embed_dim:
            raise ValueError(f"`tokens` must be (B, N, {embed_dim}), got {tuple(tokens.shape)}")
        for block in self.blocks:
            tokens = block(tokens, None)
        return self.cross_attention_block(self.query_tokens.expand(len(tokens), -1, -1), tokens)


class AttentiveClassifier(nn.Module):
    """A pooler of one query, and a linear layer to classes."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_classes: int,
        depth: int = 4,
        mlp_ratio: float = 4.0,
    ) -> None:
        """Create the classifier; arguments as for `AttentivePooler`."""
        super().__init__()
        self.pooler = AttentivePooler(embed_dim, num_heads, depth, mlp_ratio=mlp_ratio)
        self.linear = nn.Linear(embed_dim, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) tokens to (B, classes) logits."""
        return self.linear(self.pooler(tokens)[:, 0])


class AnticipationHead(nn.Module):
    """A pooler of three queries, and a linear layer for each of verb, noun and action."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        verbs: int,
        nouns: int,
        actions: int,
        depth: int = 4,
        mlp_ratio: float = 4.0,
    ) -> None:
        """Create the head.

        Args:
            embed_dim: Width D of the tokens.
            num_heads: Attention heads.
            verbs: Classes of verbs.
            nouns: Classes of nouns.
            actions: Classes of pairs of both.
            depth: As for `AttentivePooler`.
            mlp_ratio: As for `AttentivePooler`.
        """
        super().__init__()
        self.pooler = AttentivePooler(
            embed_dim, num_heads, depth, num_queries=3, mlp_ratio=mlp_ratio
        )
        self.verb_classifier = nn.Linear(embed_dim, verbs)
        self.noun_classifier = nn.Linear(embed_dim, nouns)
        self.action_classifier = nn.Linear(embed_dim, actions)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Score what comes next.

        Args:
            tokens: (B, N, D): the encoder's tokens, then those predicted for the future.

        Returns:
            Logits ``verb`` (B, verbs), ``noun`` (B, nouns) and ``action`` (B, actions).
        """
        verb, noun, action = self.pooler(tokens).unbind(1)
        return {
            "verb": self.verb_classifier(verb),
            "noun": self.noun_classifier(noun),
            "action": self.action_classifier(action),
        }
