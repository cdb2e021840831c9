"""The joint recipe: encoder and predictor trained end to end, for small machines.

`jepa-gym joint --data DATASET --output RUN --minutes 40`

Loss: squared error of the next latent (teacher forcing and two-step rollout), SIGReg on the
batch-normed latents against collapse, and small heads that read from latents the state, the action
between two successive ones, and the action that leads on to a goal, which is a later frame of the
same episode (hindsight). No moving average, no stop-gradient.

What is easiest to predict is what never moves. Where the heads are weak, or learn too fast to
settle, the latents hold the static scene (which object stands where) and ignore the arm: the
prediction losses are then small, and the energy is flat.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_gym.config import EncoderConfig, PredictorConfig
from jepa_gym.models.conv_encoder import PerLocationBatchNorm
from jepa_gym.normalisation import layer_norm
from jepa_gym.training.data.clips import ClipArrays, ClipSampler
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.engine.config import RunConfig, run_recipe
from jepa_gym.training.engine.distributed import first_process_first, processes
from jepa_gym.training.engine.task import Batch, Progress, Task
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.augmentations import Augmentations, Augmenter
from jepa_gym.training.recipes.finish import Judges, finish_model, model_config, open_dataset
from jepa_gym.training.recipes.losses import (
    Compared,
    check_rollout,
    sigreg,
    teacher_forcing_and_rollout,
)
from jepa_gym.training.recipes.pictures import WATCHED_CLIPS, predicted_clip, watch
from jepa_gym.training.recipes.posttrain_start import fine_tuned
from jepa_gym.world_model import WorldModel

ENCODER = EncoderConfig(patch_size=64, embed_dim=384, depth=2, num_heads=6, latent_dim=160)
"""Few tokens, for every imagined frame pays for each of them: with 8 a frame (two views of 128
pixels) two cores imagine ten times as fast as they simulate. The encoder, which sees a frame once,
may be wide."""
PREDICTOR = PredictorConfig(embed_dim=160, depth=3, num_heads=4)
"""No narrower than the latents, else it cannot give all of their channels."""
HEAD_SCALE = 1 / 16
"""The state head sums thousands of inputs: at the trunk's learning rate it would never settle."""


@dataclass(frozen=True, slots=True)
class JointConfig(RunConfig):
    """Train a world model's encoder and predictor together."""

    BY_CONTENT: ClassVar[tuple[str, ...]] = ("data", "init")

    init: str | None = None
    """World model of this recipe to go on from, in place of random weights: a name or a folder.
    Sizes and units are the model's, cameras and time those of the data."""
    frames: int = 4
    """Consecutive frames of a clip."""
    rollout_steps: int = 2
    """Steps over which predictions are fed back; less than `frames`."""
    rollout_loss: Compared = "every"
    """Compare the frame of every step with the truth, or only the one at the end."""
    sigreg_weight: float = 0.2
    """Weight of the regulariser against collapse."""
    sigreg_projections: int = 64
    """Random directions of the regulariser per step."""
    state_weight: float = 1.0
    """Weight of the head that reads the state from a latent."""
    action_weight: float = 5.0
    """Weight of the head that reads the action from two successive latents (scaled actions have a
    variance of about 0.1, states of 1)."""
    goal_weight: float = 1.0
    """Weight of the head that reads the action to a hindsight goal from a latent, the state and the
    goal's latent; 0 draws no goals."""
    readout_weight: float | None = None
    """Gives the finished model a linear readout of hand and gripper from its latents, fitted to
    them as they are, and this weight in the cost of plans; None for none."""
    encoder: EncoderConfig = ENCODER
    """Sizes of the encoder."""
    predictor: PredictorConfig = PREDICTOR
    """Sizes of the predictor."""
    augment: Augmentations = field(default_factory=Augmentations)
    """Random changes of the clips that keep their geometry."""

    def __post_init__(self) -> None:
        """Check the encoder's kind and ranges."""
        RunConfig.__post_init__(self)
        if self.encoder.kind != "conv":
            raise ValueError(
                "the joint recipe needs `encoder.kind`='conv': without its batch norm an encoder "
                f"collapses, got {self.encoder.kind!r}"
            )
        if not self.goal_weight >= 0:
            raise ValueError(f"`goal_weight` must be at least 0, got {self.goal_weight}")
        check_rollout(self.rollout_steps, self.frames)


class JointModel(nn.Module):
    """A world model with the heads that only training uses."""

    def __init__(
        self,
        world_model: WorldModel,
        goals: bool = True,
        head_width: int = 16,
        hidden: int = 256,
        goal_width: int = 48,
        goal_hidden: int = 512,
    ) -> None:
        """Create the heads.

        Args:
            world_model: The model to train.
            goals: Whether there is a head for actions to hindsight goals.
            head_width: Channels per token that the action head sees.
            hidden: Width of the action head.
            goal_width: Channels per token that the goal head sees.
            goal_hidden: Width of the goal head.
        """
        super().__init__()
        self.world_model = world_model
        world_model.predictor.extrinsics_encoder.requires_grad_(False)  # nothing goes through it
        tokens, width = world_model.config.num_tokens, world_model.config.encoder.latent_dim
        self.state_head = nn.Linear(tokens * width, 7)
        self.squeeze = nn.Linear(width, head_width)
        self.action_head = nn.Sequential(
            nn.Linear(2 * tokens * head_width, hidden), nn.GELU(), nn.Linear(hidden, 7)
        )
        if goals:
            self.goal_squeeze = nn.Linear(width, goal_width)
            self.goal_head = nn.Sequential(
                nn.Linear(2 * tokens * goal_width + 7, goal_hidden),
                nn.LayerNorm(goal_hidden),
                nn.GELU(),
                nn.Linear(goal_hidden, goal_hidden),
                nn.LayerNorm(goal_hidden),
                nn.GELU(),
                nn.Linear(goal_hidden, 7),
            )

    def read_states(self, latents: Tensor) -> Tensor:
        """Read standardised states (B, T, 7) from latents (B, T, N, D), linearly."""
        return self.state_head(HEAD_SCALE * latents.flatten(2))

    def read_actions(self, latents: Tensor) -> Tensor:
        """Read scaled actions (B, T - 1, 7) from successive latents (B, T, N, D)."""
        squeezed = self.squeeze(latents).flatten(2)  # (B, T, N * head_width)
        return self.action_head(torch.cat([squeezed[:, :-1], squeezed[:, 1:]], -1))

    def read_actions_to(self, goals: Tensor, latents: Tensor, states: Tensor) -> Tensor:
        """Read scaled actions (B, T, 7) that lead on to a goal.

        Args:
            goals: (B, 1, N, D).
            latents: (B, T, N, D).
            states: (B, T, 7), standardised.
        """
        here, there = (self.goal_squeeze(x).flatten(2) for x in (latents, goals))
        there = there.expand_as(here)
        return self.goal_head(torch.cat([here, there, states.to(here.dtype)], -1))


def joint_losses(
    model: JointModel,
    frames: Tensor,
    states: Tensor,
    actions: Tensor,
    config: JointConfig,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Compute the weighted sum `loss` and its parts.

    Args:
        model: In training mode.
        frames: (B, T, Y, X, 3) uint8, or float in [0, 255]; if `config.goal_weight` is not 0, one
            more, the clip's hindsight goal.
        states: (B, T, 7).
        actions: (B, T - 1, 7).
        config: The weights.
        generator: For the directions of SIGReg.

    Reference: goals in hindsight with any number of steps between, as in multi-step inverse models
        (arXiv 2207.08229); their head and its L1 loss are ours.
    """
    world_model = model.world_model
    features = world_model.features(frames).float()
    latents, goal = layer_norm(features).tensor_split([states.shape[1]], 1)
    forced, rollout = teacher_forcing_and_rollout(
        *(world_model, latents, actions, states, F.mse_loss),
        *(config.rollout_steps, config.rollout_loss),
    )
    regulariser = sigreg(features.flatten(0, 1), config.sigreg_projections, generator)
    standardised = world_model.normaliser.states(states)
    state = F.mse_loss(model.read_states(latents).float(), standardised)
    scaled = world_model.normaliser.actions(actions)
    action = F.mse_loss(model.read_actions(latents).float(), scaled)
    total = (
        forced
        + rollout
        + config.sigreg_weight * regulariser
        + config.state_weight * state
        + config.action_weight * action
    )
    parts = {
        "teacher_forcing": forced,
        "rollout": rollout,
        "sigreg": regulariser,
        "state": state,
        "action": action,
    }
    if config.goal_weight:
        led = model.read_actions_to(goal, latents[:, :-1], standardised[:, :-1])
        parts["goal"] = F.l1_loss(led.float(), scaled)
        total = total + config.goal_weight * parts["goal"]
    return {"loss": total} | {name: part.detach() for name, part in parts.items()}


@torch.no_grad()
def calibrate(world_model: WorldModel, sampler: ClipSampler, batches: int = 16) -> None:
    """Set the statistics of the encoder's batch norm to those of its present weights.

    The running averages lag behind while the features change fast, and early in training they
    still hold their initial values; a model would be judged by latents it never trained on.

    Args:
        world_model: The model.
        sampler: Gives training clips.
        batches: Batches to average over.
    """
    output_norm = world_model.encoder.output_norm
    assert isinstance(output_norm, PerLocationBatchNorm)
    before = output_norm.momentum
    world_model.train()
    for number in range(batches):
        output_norm.momentum = 1 / (number + 1)  # a plain average of the batches
        world_model.features(sampler.batch(number).frames)
    output_norm.momentum = before
    world_model.eval()


def _go_on_from(
    config: JointConfig, dataset: Dataset, arrays: ClipArrays
) -> tuple[WorldModel, str]:
    """Return the model of `config.init`, made for a dataset, and its weights' hash.

    Raises:
        ValueError: If it is of another kind, or other sizes are asked for.
    """
    assert config.init
    with first_process_first():
        given = WorldModel.from_pretrained(config.init)
    if (kind := given.config.encoder.kind) != "conv":
        raise ValueError(
            f"--init {config.init} has an encoder of the kind {kind!r}, and the joint recipe goes "
            "on from `conv` alone: give a model of `jepa-gym joint`"
        )
    return fine_tuned(config, given, dataset, arrays)


def train(config: JointConfig) -> Progress:
    """Run the recipe and save the best model in `config.output`.

    Returns:
        The finished progress.
    """
    with processes(config.device, config.threads) as here:
        dataset = open_dataset(config)
        arrays, validation = dataset.load_arrays("train"), dataset.load_arrays("validation")
        sampler = ClipSampler(arrays, config.frames, config.batch_size, config.seed)
        torch.manual_seed(config.seed)
        inputs = {"data": dataset.hash}
        if config.init:
            world_model, inputs["init"] = _go_on_from(config, dataset, arrays)
        else:
            sizes = config.encoder, config.predictor, config.frames
            world_model = WorldModel(model_config(dataset, arrays, *sizes))
        settings = world_model.config
        model = JointModel(world_model, goals=config.goal_weight > 0)
        augmenter = Augmenter(config.augment, sampler, len(settings.frame.cameras))
        judges = Judges.choose(dataset, settings.context_frames, here)
        watched = ClipSampler(validation, config.frames, WATCHED_CLIPS, config.seed).batch(0)

        def loss(batch: Batch, step: int) -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
            seen = augmenter.apply(batch)
            return joint_losses(model, **seen, config=config, generator=generator)

        def draw(step: int, rows: slice) -> Batch:
            batch = vars(sampler.batch(step, rows)) | augmenter.draw(step, rows)
            if config.goal_weight:
                goals = sampler.goals(step, rows)[:, None]
                batch["frames"] = torch.cat([batch["frames"], goals], 1)
            return batch

        def evaluate() -> dict[str, float]:
            calibrate(model.world_model, sampler)
            return judges.validation.evaluate(model.world_model)

        task = Task(
            module=model,
            draw=draw,
            loss=loss,
            evaluate=evaluate,
            score="landscape_error",
            inputs=inputs,
            watch=lambda: watch(model.world_model, watched),
            pictures=lambda: {"imagined": predicted_clip(model.world_model, watched, None)},
        )
        trainer = Trainer(config, task, here)
        if config.dry_run:
            return trainer.dry_run()
        progress = trainer.run()
        if here.first:
            finish_model(
                model.world_model, "joint", config, dataset, judges, progress, config.readout_weight
            )
        return progress


def main() -> int:
    """Run the command line."""
    return run_recipe(train, JointConfig)


if __name__ == "__main__":
    raise SystemExit(main())
