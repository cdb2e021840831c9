"""Starting a pre-training from the checkpoint of another one, as the published cooldown does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from jepa_gym.checkpoint.digests import file_digest
from jepa_gym.config import EncoderConfig, PredictorConfig, checked_fields
from jepa_gym.training.engine.checkpoint import Checkpoints, read_checkpoint
from jepa_gym.training.engine.schedules import Schedule

if TYPE_CHECKING:
    from jepa_gym.training.recipes.pretrain import PretrainConfig


@dataclass(frozen=True, slots=True)
class Start:
    """A checkpoint that another run starts from."""

    path: Path
    """The file."""
    digest: str
    """Hash of its content."""
    tensors: Mapping[str, Tensor]
    """Weights and moments, as `Checkpoints.load` returns them."""
    facts: Mapping[str, Any]
    """What else a checkpoint holds."""

    @classmethod
    def read(cls, run: Path) -> Start:
        """Read the newest checkpoint of a pre-training.

        Args:
            run: Its folder, or one file of its `checkpoints`.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is damaged, or of another recipe.
        """
        found = [run] if run.is_file() else Checkpoints(run, keep=1).paths()
        if not found:
            raise FileNotFoundError(
                f"--from {run}: there is no checkpoint; give the --output of a `jepa-gym pretrain` "
                "or one of its checkpoints/step-*.safetensors"
            )
        path = found[-1]
        tensors, facts = read_checkpoint(path, "give an earlier one with --from FILE")
        if not any(name.startswith("module.target_encoder.") for name in tensors):
            raise ValueError(f"--from {path}: this checkpoint is not of `jepa-gym pretrain`")
        return cls(path, file_digest(path), tensors, facts)

    def continued(self, config: PretrainConfig) -> PretrainConfig:
        """Return the configuration with the sizes of this checkpoint.

        Args:
            config: Of the run that starts; sizes in it are the defaults, or those of the
                checkpoint.

        Raises:
            ValueError: If it asks for other sizes, or absolute positions would not carry over.
        """
        settings = self.facts["settings"]
        what = f"settings in {self.path}"
        theirs = {
            "encoder": EncoderConfig(**checked_fields(EncoderConfig, settings["encoder"], what)),
            "predictor": PredictorConfig(
                **checked_fields(PredictorConfig, settings["predictor"], what)
            ),
            "own_mask_tokens": settings.get("own_mask_tokens", False),
        }
        for item in fields(config):
            if item.name not in theirs:
                continue
            made = item.default if item.default_factory is MISSING else item.default_factory()
            asked = getattr(config, item.name)
            if asked not in (made, theirs[item.name]):
                raise ValueError(
                    f"--from {self.path} has {item.name}={theirs[item.name]}, which cannot become "
                    f"{asked}: leave --{item.name} out"
                )
        grid = {"frames": settings["frames"], "image_size": settings.get("image_size")}
        if theirs["encoder"].rope == "sincos" and any(
            getattr(config, name) != value for name, value in grid.items()
        ):
            raise ValueError(
                f"--from {self.path} has absolute positions, which do not carry over to other "
                f"sizes: keep {grid}, or pre-train with rotary ones"
            )
        return replace(config, **theirs)

    def describe(self) -> str:
        """Say which state this is, and whether it is late for a cooldown."""
        step = self.facts["progress"]["step"]
        schedule = Schedule(**self.facts["settings"]["schedule"])
        rise, constant, _ = schedule.phases(self.facts["plan"]["steps"])
        text = f"starting from {self.path} (step {step})"
        if step > rise + constant:
            text += (
                "; its learning rate was falling already, which --schedule.decay 0 there avoids: "
                "a cooldown is meant to start from the constant phase"
            )
        return text
