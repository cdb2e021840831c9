"""Probes: trained heads on the tokens of an encoder, with what their outputs mean, in one file.

::

    probe = Probe.from_pretrained("runs/probe")
    tokens = model(frames)                    # of the encoder that it was trained on
    probe.predict(tokens)                     # {"label": ["lift", ...]} or {"value": (B, 3) in cm}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.fill import fill
from jepa_gym.checkpoint.safetensors_file import write_safetensors
from jepa_gym.checkpoint.weights import open_weights
from jepa_gym.config import check_size
from jepa_gym.models import AnticipationHead, AttentiveClassifier
from jepa_gym.names import check_choice

PROBE_FILE = "probe.safetensors"
HEADS = ("attentive", "linear")
LABEL, VALUE = "label", "value"
"""What a classifier and a regression call their only output."""
ANTICIPATED = ("verb", "noun", "action")
"""The outputs of anticipation."""


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """What a probe reads, and from what."""

    target: str
    """Name of what it reads."""
    outputs: Mapping[str, tuple[str, ...]]
    """Output -> names of its classes, or of its numbers: `label` of a classifier, `value` of a
    regression, or `verb`, `noun` and `action`."""
    tokens: int
    """Tokens N of a clip."""
    embed_dim: int
    """Width D of a token."""
    head: str = "attentive"
    """`attentive` or `linear` (on all tokens, each where it is)."""
    depth: int = 1
    """Blocks of an attentive head: all but the last one are of self-attention."""
    num_heads: int = 1
    """Attention heads of a block."""
    unit: str = ""
    """Of the numbers of a regression."""
    model: str = ""
    """The encoder, as it was named."""
    frames: int = 1
    """Frames of a clip."""

    def __post_init__(self) -> None:
        """Check names and sizes."""
        check_choice("head", self.head, HEADS)
        if tuple(self.outputs) not in ((LABEL,), (VALUE,), ANTICIPATED):
            raise ValueError(
                f"`outputs` must be {LABEL}, {VALUE}, or {ANTICIPATED}, got {tuple(self.outputs)}"
            )
        for name in ("tokens", "embed_dim", "depth", "num_heads", "frames"):
            check_size(name, getattr(self, name))
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"`embed_dim` must be a multiple of `num_heads`, got {self.embed_dim} and "
                f"{self.num_heads}"
            )
        if self.head == "linear" and tuple(self.outputs) == ANTICIPATED:
            raise ValueError("anticipation has three queries: its head must be attentive")


class LinearHead(nn.Module):
    """One linear layer on all tokens, each standardised where it stands."""

    mean: Tensor
    scale: Tensor

    def __init__(self, tokens: int, embed_dim: int, outputs: int) -> None:
        """Create the layer, which begins with zeros.

        Args:
            tokens: N.
            embed_dim: Width D of a token.
            outputs: Numbers that come out.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(tokens, embed_dim))
        self.register_buffer("scale", torch.ones(tokens, embed_dim))
        self.linear = nn.Linear(tokens * embed_dim, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def standardise(self, tokens: Tensor) -> None:
        """Take mean and deviation of each input from tokens (M, N, D) of training clips.

        Inputs are also divided by the root of their number: however many there are, Adam's steps
        move the output alike.
        """
        deviation, mean = torch.std_mean(tokens.float(), 0, correction=0)
        self.mean.copy_(mean)
        self.scale.copy_(1 / ((deviation + 1e-3) * math.sqrt(self.linear.in_features)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) tokens to (B, outputs)."""
        return self.linear(((tokens - self.mean) * self.scale).flatten(1))


class Probe(nn.Module):
    """A head on the tokens of an encoder."""

    centre: Tensor
    spread: Tensor

    def __init__(self, spec: ProbeSpec) -> None:
        """Create an untrained probe.

        Args:
            spec: What it reads, and from what.
        """
        super().__init__()
        self.spec = spec
        sizes = [len(names) for names in spec.outputs.values()]
        width, heads = spec.embed_dim, spec.num_heads
        self.head: nn.Module
        if spec.head == "linear":
            self.head = LinearHead(spec.tokens, width, sizes[0])
        elif len(sizes) > 1:
            self.head = AnticipationHead(width, heads, *sizes, depth=spec.depth)
        else:
            self.head = AttentiveClassifier(width, heads, sizes[0], depth=spec.depth)
        numbers = sizes[0] if VALUE in spec.outputs else 0
        self.register_buffer("centre", torch.zeros(numbers))
        self.register_buffer("spread", torch.ones(numbers))

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Read clips.

        Args:
            tokens: (B, N, D).

        Returns:
            Output -> logits (B, classes), or standardised numbers (B, K).

        Raises:
            ValueError: If the tokens are of another number or width.
        """
        expected = (self.spec.tokens, self.spec.embed_dim)
        if tokens.ndim != 3 or tuple(tokens.shape[1:]) != expected:
            raise ValueError(
                f"`tokens` must be (B, {expected[0]}, {expected[1]}), got {tuple(tokens.shape)}: "
                f"this probe was trained on clips of {self.spec.frames} frames, encoded by "
                f"{self.spec.model!r}"
            )
        read = self.head(tokens)
        return read if isinstance(read, dict) else {next(iter(self.spec.outputs)): read}

    @torch.no_grad()
    def predict(self, tokens: Tensor) -> dict[str, Any]:
        """Read clips, in words or units.

        Args:
            tokens: (B, N, D).

        Returns:
            Output -> names of the likeliest classes, B of them; `value` -> (B, K) in `spec.unit`.

        Raises:
            ValueError: As `forward`.
        """
        read = self(tokens)
        if VALUE in read:
            return {VALUE: self.numbers(read[VALUE])}
        return {
            name: [self.spec.outputs[name][number] for number in logits.argmax(1).tolist()]
            for name, logits in read.items()
        }

    def numbers(self, standardised: Tensor) -> Tensor:
        """Turn standardised numbers (B, K) into those of `spec.unit`."""
        return standardised.float() * self.spread + self.centre

    @torch.no_grad()
    def standardise(self, values: Tensor) -> None:
        """Take mean and deviation of the numbers (M, K) to be read."""
        spread, centre = torch.std_mean(values.float(), 0, correction=0)
        self.centre.copy_(centre)
        self.spread.copy_(spread.clamp_min(1e-6))

    def save_pretrained(self, folder: str | Path, card: dict[str, Any]) -> Path:
        """Write probe.safetensors; it appears complete or not at all.

        Args:
            folder: Created when missing.
            card: What is told about the training (JSON types).

        Returns:
            The file.
        """
        path = Path(folder) / PROBE_FILE
        metadata = {"probe": json.dumps(asdict(self.spec)), "card": json.dumps(card)}
        write_safetensors(path, self.state_dict(), metadata)
        return path

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Probe:
        """Load a probe, in eval mode.

        Args:
            source: The output folder of `jepa-gym probe`, or its `probe.safetensors`.

        Raises:
            FileNotFoundError: If there is none.
            CheckpointError: If the file is damaged, or no probe.
        """
        path = Path(source)
        path = path / PROBE_FILE if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found; run `jepa-gym probe --output {source}`")
        weights = open_weights(path)
        try:
            values = json.loads(weights.metadata["probe"])
            outputs = {str(name): tuple(map(str, x)) for name, x in values["outputs"].items()}
            with torch.device("meta"):
                probe = cls(ProbeSpec(**values | {"outputs": outputs}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{path} is no probe that this version can read ({error!r}); train it again with "
                "`jepa-gym probe`"
            ) from None
        fill(probe, weights.copy(weights.sizes), path)
        return probe.eval()
