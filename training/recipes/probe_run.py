"""The run of several probes on the same tokens: encoder, heads, losses, and who is best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_gym.checkpoint.probe import LABEL, VALUE, LinearHead, Probe, ProbeSpec
from jepa_gym.models import AttentiveClassifier
from jepa_gym.training.engine.distributed import Processes, first_process_first
from jepa_gym.training.engine.task import Batch, Task, Tuning
from jepa_gym.training.recipes.probe_examples import UNKNOWN, ProbeData
from jepa_gym.training.recipes.probe_features import cached_tokens
from jepa_gym.training.recipes.probe_figures import Reading
from jepa_gym.training.recipes.probe_models import ClipEncoder, open_probed, weights_hash

if TYPE_CHECKING:
    from jepa_gym.training.recipes.probe import ProbeConfig

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
"""Of the focal loss of anticipation, as published."""
READ_AT_ONCE = 64
STANDARDISED = 500
"""Training clips that statistics of tokens and numbers come from."""


class Heads(nn.Module):
    """Several probes of the same tokens, and the encoder where it is trained with them."""

    def __init__(self, probes: Mapping[str, Probe], encoder: nn.Module | None = None) -> None:
        """Put probes together.

        Args:
            probes: By name.
            encoder: None where it is frozen.
        """
        super().__init__()
        self.names = list(probes)
        self.probes, self.encoder = nn.ModuleList(probes.values()), encoder

    def __getitem__(self, number: int) -> Probe:
        """Return one of the probes."""
        probe = self.probes[number]
        assert isinstance(probe, Probe)
        return probe

    def forward(self, tokens: Tensor) -> list[dict[str, Tensor]]:
        """Let every probe read tokens (B, N, D)."""
        return [probe(tokens) for probe in self.probes]


class ProbeRun:
    """One run: the encoder, the tokens, the heads, and what becomes of them."""

    def __init__(
        self,
        config: ProbeConfig,
        data: ProbeData,
        here: Processes,
        published: Mapping[str, AttentiveClassifier] | None = None,
    ) -> None:
        """Encode all clips, unless the encoder is trained, too.

        Args:
            config: The run.
            data: The clips.
            here: This process.
            published: Finished heads, which are only tested.

        Raises:
            FileNotFoundError, ValueError, OSError: As `open_probed` and `cached_tokens`; or if a
                published head is for tokens of another width.
        """
        self.config, self.data, self.here = config, data, here
        torch.manual_seed(config.seed)
        self.model = open_probed(config.model, data.frame).to(here.device)
        self.model_hash = weights_hash(self.model)
        self.tokens: dict[str, np.ndarray] = {}
        if not config.finetune:
            with first_process_first():
                self._encode([x for x in data.examples if not published or x != "train"])
        self.tunings = [
            Tuning(rate, decay * config.weight_decay)
            for rate, decay in product(config.rates, config.decays)
        ]
        heads = self._published_heads(published) if published else self._new_heads()
        self.heads = heads.to(here.device).eval()

    def _encode(self, splits: Sequence[str]) -> None:
        config, data, device = self.config, self.data, self.here.device
        key, folder = f"{data.digest} {data.frame} {self.model_hash}", config.data / "cache"
        for split in splits:
            examples = data.examples[split]
            self.tokens[split] = cached_tokens(
                self.model, examples, data.ahead, folder, key, device, config.bf16
            )

    def _new_heads(self) -> Heads:
        """Return untrained heads, with the statistics of training clips."""
        config, examples = self.config, self.data.examples["train"]
        spread = np.unique(np.linspace(0, len(examples) - 1, STANDARDISED).astype(int))
        tokens = torch.cat([part.cpu() for part, _ in self.parts("train", spread)])
        spec = self._spec(tokens.shape, config.probe, config.depth, self.model.num_heads)
        probes = {
            f"lr {tuning.rate * config.learning_rate:.3g}, decay {tuning.weight_decay:.3g}": Probe(
                spec
            )
            for tuning in self.tunings
        }
        for probe in probes.values():
            if VALUE in examples.labels:
                probe.standardise(examples.labels[VALUE][spread])
            if isinstance(probe.head, LinearHead):
                probe.head.standardise(tokens)
        return Heads(probes, self.model if config.finetune else None)

    def _published_heads(self, modules: Mapping[str, AttentiveClassifier]) -> Heads:
        probes = {}
        for name, module in modules.items():
            shape, width = self.tokens["test"].shape, module.linear.in_features
            if width != shape[-1]:
                raise ValueError(
                    f"{self.config.head} reads tokens of width {width}, {self.config.model} gives "
                    f"{shape[-1]}: take the encoder that it was trained on"
                )
            pooler = module.pooler
            heads = pooler.cross_attention_block.xattn.num_heads
            probe = Probe(self._spec(shape, "attentive", len(pooler.blocks) + 1, heads))
            probe.head = module
            probes[name] = probe
        return Heads(probes)

    def _spec(self, shape: Sequence[int], head: str, depth: int, num_heads: int) -> ProbeSpec:
        """Describe probes of tokens of a shape (..., N, D)."""
        data = self.data
        return ProbeSpec(
            target=data.target,
            outputs=data.outputs,
            tokens=shape[-2],
            embed_dim=shape[-1],
            head=head,
            depth=depth,
            num_heads=num_heads,
            unit=data.unit,
            model=self.config.model,
            frames=data.frames,
        )

    def batch(self, split: str, numbers: np.ndarray) -> Batch:
        """Return clips: labels and `tokens`, or `frames` where the encoder is trained."""
        examples = self.data.examples[split]
        batch = {name: labels[numbers] for name, labels in examples.labels.items()}
        if self.config.finetune:
            return batch | {"frames": torch.from_numpy(examples.frames(numbers.tolist()))}
        return batch | {"tokens": torch.from_numpy(self.tokens[split][numbers])}

    @torch.no_grad()
    def parts(self, split: str, numbers: np.ndarray) -> Iterator[tuple[Tensor, Batch]]:
        """Yield tokens and labels of clips of a split, some at a time, on this process's device."""
        for some in np.array_split(numbers, -(-len(numbers) // READ_AT_ONCE)):
            batch = {name: x.to(self.here.device) for name, x in self.batch(split, some).items()}
            yield self.read_tokens(batch), batch

    def read_tokens(self, batch: Batch) -> Tensor:
        """Return a batch's tokens (B, N, D) float32, with gradients where they are trained."""
        if "tokens" in batch:
            return batch["tokens"].float()
        return self.model(batch["frames"], self.data.ahead).float()

    def task(self) -> Task:
        """Return what the engine trains."""
        config, count = self.config, len(self.data.examples["train"])
        if config.finetune:
            self.model.requires_grad_(True)
            if not isinstance(self.model, ClipEncoder):
                self.model.model.predictor.requires_grad_(False)
            elif self.model.predictor is not None and self.data.ahead is None:
                self.model.predictor.requires_grad_(False)

        def draw(step: int, rows: slice) -> Batch:
            rng = np.random.default_rng((config.seed, step))
            return self.batch("train", rng.integers(count, size=config.batch_size)[rows])

        def loss(batch: Batch, step: int) -> dict[str, Tensor]:
            read = self.heads(self.read_tokens(batch))
            losses = [head_loss(one, batch, self.heads[n]) for n, one in enumerate(read)]
            return {"loss": torch.stack(losses).mean()}

        def tuning(name: str) -> Tuning:
            part, number, *_ = name.split(".")
            if part == "probes":
                return self.tunings[int(number)]
            return Tuning(config.encoder_rate, config.weight_decay)

        return Task(
            module=self.heads,
            draw=draw,
            loss=loss,
            evaluate=self.errors,
            score="error",
            inputs={"data": self.data.digest, "model": self.model_hash},
            tuning=tuning,
        )

    @torch.no_grad()
    def readings(self, split: str) -> list[dict[str, Reading]]:
        """Let every head read the clips of a split.

        Returns:
            For every head output -> what it said of the clips whose label is known; outputs
            without any such clip are missing.
        """
        examples = self.data.examples[split]
        said: list[list[dict[str, Tensor]]] = [[] for _ in self.heads.probes]
        device, exact = self.here.device.type, VALUE in self.data.outputs
        with torch.autocast(device, torch.bfloat16, enabled=self.config.bf16 and not exact):
            for tokens, _ in self.parts(split, np.arange(len(examples))):
                for parts, read in zip(said, self.heads(tokens), strict=True):
                    parts.append({name: x.float().cpu() for name, x in read.items()})
        views = examples.views
        groups = np.array(examples.groups)[::views]
        result = []
        for number, parts in enumerate(said):
            read = {name: torch.cat([part[name] for part in parts]) for name in self.data.outputs}
            if VALUE in read:
                probe = self.heads[number]
                read[VALUE] = probe.numbers(read[VALUE].to(probe.centre.device)).cpu()
            elif views > 1:  # the mean of what is said of each view
                read = {
                    name: x.softmax(1).unflatten(0, (-1, views)).mean(1) for name, x in read.items()
                }
            labelled = {name: labels[::views] for name, labels in examples.labels.items()}
            result.append(
                {
                    name: Reading(labels[known].numpy(), read[name][known].numpy(), groups[known])
                    for name, labels in labelled.items()
                    if (known := _known(labels)).any()
                }
            )
        return result

    def errors(self) -> dict[str, float]:
        """Return the error of every head on validation clips, and the least as `error`."""
        found = [error_of(reading) for reading in self.readings("validation")]
        named = {f"error, {name}": x for name, x in zip(self.heads.names, found, strict=True)}
        return {"error": min(found), **named}


def head_loss(read: Mapping[str, Tensor], batch: Batch, probe: Probe) -> Tensor:
    """Return the loss of one head.

    Args:
        read: What it says, by output.
        batch: The labels, by output.
        probe: The head.

    Returns:
        Cross-entropy of a classifier, smooth L1 of standardised numbers, or the focal loss of verb,
        noun and action.
    """
    if VALUE in read:
        wanted = (batch[VALUE] - probe.centre) / probe.spread
        return F.smooth_l1_loss(read[VALUE].float(), wanted)
    if LABEL in read:
        return F.cross_entropy(read[LABEL].float(), batch[LABEL])
    losses = [focal_loss(logits.float(), batch[name]) for name, logits in read.items()]
    return torch.stack(losses).sum()


def focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sigmoid focal loss, summed over classes, mean over clips.

    Args:
        logits: (B, classes).
        labels: (B,).

    Reference:
        Focal loss for dense object detection (arXiv 1708.02002).
    """
    wanted = F.one_hot(labels, logits.shape[1]).float()
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    right = torch.exp(-entropy)
    weight = torch.where(wanted > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return (weight * (1 - right) ** FOCAL_GAMMA * entropy).sum(1).mean()


def error_of(readings: Mapping[str, Reading]) -> float:
    """Return the mean distance, or the percentage of wrong clips (mean over outputs)."""
    if VALUE in readings:
        return float(readings[VALUE].distance.mean())
    return float(np.mean([100 - 100 * reading.hits.mean() for reading in readings.values()]))


def _known(labels: Tensor) -> Tensor:
    """Return (n,) which labels are known; numbers always are."""
    return (labels if labels.ndim == 1 else torch.zeros(len(labels))) != UNKNOWN
