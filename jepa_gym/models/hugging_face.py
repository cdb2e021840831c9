"""Frozen encoders of other people, through Hugging Face's transformers (extra `hub`).

`hf:facebook/dinov2-small` or `hf:FOLDER` names one. Its weights are never trained and never saved
with a model: a checkpoint holds the source's name, its commit and a digest of its files, and reads
them again. So a checkpoint stays as small as what was trained, weights under a licence of their
own are not passed on with it, and other weights under the same name are refused. To carry the
encoder along, copy its folder into the checkpoint's folder, as `encoder`: that one is read first.

Colours are standardised as the source's preprocessing file says; all three families use
ImageNet's mean and deviation where it says nothing.

Reference: `transformers/models/vjepa2`, `dinov2`, `dinov2_with_registers` and `dinov3_vit`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from einops import repeat
from torch import Tensor, nn

from jepa_gym.checkpoint.digests import file_digest
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.sources import HUB, hub_folder, optional_package
from jepa_gym.checkpoint.weights import open_weights, weight_files
from jepa_gym.config import EncoderConfig, WorldModelConfig
from jepa_gym.preprocess import IMAGENET_MEAN, IMAGENET_STD

FAMILIES = ("vjepa2", "dinov2", "dinov2_with_registers", "dinov3_vit")
"""Model types of transformers that are understood."""
CHECKPOINT_FOLDER = "encoder"
CONFIG_FILE = "config.json"
PREPROCESSING_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")


class HuggingFaceEncoder(nn.Module):
    """Frames to tokens by somebody else's weights, which stay as they are.

    The network is no submodule: it has no entry in `state_dict`, `parameters` or `train`, but
    follows `to`, `half` and so on.
    """

    @classmethod
    def for_model(cls, config: WorldModelConfig, folder: Path | None = None) -> HuggingFaceEncoder:
        """Read the encoder of a world model from a folder, or by its name."""
        return cls(config.encoder, (config.frame.height, config.frame.width), folder)

    def __init__(
        self, config: EncoderConfig, frame: tuple[int, int], folder: Path | None = None
    ) -> None:
        """Read the weights and check that they are the ones that the configuration means.

        Args:
            config: Of kind `hf`, made by `encoder_config`.
            frame: Rows and columns of a frame, pixels.
            folder: Where the files are; by default `config.name` is looked up.

        Raises:
            ImportError: When transformers is not installed.
            FileNotFoundError: When the source cannot be found.
            CheckpointError: When it is another encoder, or its weights are damaged.
            ValueError: When it cannot encode such frames.
        """
        super().__init__()
        folder = hub_folder(config.name, config.revision) if folder is None else folder
        found = digest(folder)
        if found != config.digest:
            raise CheckpointError(
                f"the encoder in {folder} is not the one that this model was trained on: its files "
                f"have the digest {found[:16]}..., not {config.digest[:16]}...; restore the files "
                f"of {config.name!r} {config.revision}, or train on the new ones"
            )
        settings = _settings(folder)
        side = config.patch_size
        self.patch_size, self.grid = side, (frame[0] // side, frame[1] // side)
        self.mean, self.std = _colours(folder)
        self.is_video = settings.model_type == "vjepa2"
        self.tubelet_size = settings.tubelet_size if self.is_video else 1
        # one class token, then registers, before the tokens of the picture
        self.skipped = 0 if self.is_video else 1 + getattr(settings, "num_register_tokens", 0)
        self._network = (_load(folder, settings, self.grid),)  # in a tuple: no submodule

    @property
    def network(self) -> nn.Module:
        """The model of transformers; for V-JEPA 2 its encoder, without the predictor."""
        return self._network[0]

    def forward(self, images: Tensor) -> Tensor:
        """Encode frames, each alone.

        Args:
            images: (B, 3, Y, X) float, standardised with `mean` and `std`.

        Returns:
            (B, N, D) tokens of the patches, row-major, after the network's own final norm.
        """
        if self.is_video:  # the frame is duplicated into one tubelet
            video = repeat(images, "b c y x -> b t c y x", t=self.tubelet_size)
            return self.network(pixel_values_videos=video).last_hidden_state
        return self.network(pixel_values=images).last_hidden_state[:, self.skipped :]

    def _apply(self, fn: Any, recurse: bool = True) -> HuggingFaceEncoder:
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)


def is_source(source: str | Path) -> bool:
    """Say whether an encoder is named as `hf:NAME_OR_FOLDER`."""
    return str(source).startswith(HUB)


def encoder_config(
    source: str, revision: str = "", local_files_only: bool = False
) -> EncoderConfig:
    """Describe an encoder of Hugging Face; downloads it when it is not there yet.

    Args:
        source: `hf:` and a name on the Hugging Face hub, or a folder with config.json and
            safetensors weights.
        revision: Branch, tag or commit on the hub; its main branch by default.
        local_files_only: Use what is on this machine only (as the variable HF_HUB_OFFLINE=1 does).

    Raises:
        ImportError: When transformers is not installed.
        FileNotFoundError: When the source, or one of its files, cannot be found.
        CheckpointError: When its weights are damaged.
        ValueError: When it is no encoder of a known family.
    """
    if not is_source(source):
        raise ValueError(f"an encoder of Hugging Face is named {HUB}NAME_OR_FOLDER, got {source!r}")
    name = source.removeprefix(HUB)
    local = Path(name).is_dir()
    folder = hub_folder(name, revision, local_files_only)
    files = digest(folder)
    settings = _settings(folder)
    width = settings.hidden_size
    ratio = getattr(settings, "mlp_ratio", None) or settings.intermediate_size / width
    return EncoderConfig(
        kind="hf",
        name=str(Path(name).resolve()) if local else name,
        revision="" if local else folder.name,  # the hub's cache names folders by commits
        digest=files,
        embed_dim=width,
        depth=settings.num_hidden_layers,
        num_heads=settings.num_attention_heads,
        mlp_ratio=float(ratio),
        latent_dim=width,
        patch_size=settings.patch_size,
    )


def checkpoint_encoder(
    config: EncoderConfig, checkpoint: Path | None, local_files_only: bool = False
) -> Path | None:
    """Return the folder of a checkpoint's Hugging Face encoder, None when it has one of ours.

    Args:
        config: The checkpoint's.
        checkpoint: Its folder, whose subfolder `encoder` goes before the named source.
        local_files_only: Never download.

    Raises:
        As `hub_folder`.
    """
    if config.kind != "hf":
        return None
    if checkpoint is not None and (checkpoint / CHECKPOINT_FOLDER).is_dir():
        return checkpoint / CHECKPOINT_FOLDER
    return hub_folder(config.name, config.revision, local_files_only)


def digest(folder: Path) -> str:
    """Hash the files that decide the features: configuration, preprocessing and weights.

    Returns:
        SHA-256 over the names and SHA-256 of the files, as hexadecimal digits.

    Raises:
        FileNotFoundError: When the folder has no configuration or no safetensors weights.
        CheckpointError: When the weights are truncated.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG_FILE}, so it is no encoder's folder")
    settings = [folder / name for name in (CONFIG_FILE, *PREPROCESSING_FILES)]
    open_weights(folder)  # says what is wrong with truncated ones
    files = [path for path in settings if path.is_file()] + weight_files(folder)
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(path.name.encode() + b"\0" + bytes.fromhex(file_digest(path)))
    return total.hexdigest()


def _settings(folder: Path) -> Any:
    """Return transformers' configuration of a known family."""
    transformers = optional_package("transformers")
    try:
        settings = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a damaged file makes transformers raise anything
        raise CheckpointError(
            f"{folder / CONFIG_FILE} cannot be used: {' '.join(str(error).split())[:300]}"
        ) from None
    if settings.model_type not in FAMILIES:
        raise ValueError(
            f"the model in {folder} is of type {settings.model_type!r}; encoders may be of the "
            f"types {FAMILIES}"
        )
    return settings


def _colours(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of the colours that the source's preprocessing uses, in [0, 1]."""
    for name in PREPROCESSING_FILES:
        if (folder / name).is_file():
            values = json.loads((folder / name).read_text())
            if "image_mean" in values and "image_std" in values:
                return tuple(values["image_mean"]), tuple(values["image_std"])
    return IMAGENET_MEAN, IMAGENET_STD


def _load(folder: Path, settings: Any, grid: tuple[int, int]) -> nn.Module:
    """Build the network with its weights: float32, frozen, in evaluation mode, on the CPU."""
    changes = {}
    if settings.model_type == "vjepa2":
        # transformers counts positions on a square grid of crop_size, whatever the frame's shape:
        # with the frame's width, rows and columns of a single tubelet are right.
        rows, columns = grid
        if rows > columns:
            raise ValueError(
                f"V-JEPA 2 in transformers takes no frames that are taller than wide, got a grid "
                f"of {rows}x{columns} tokens; place the cameras side by side"
            )
        changes["crop_size"] = columns * settings.patch_size
    with torch.device("cpu"):
        network, report = optional_package("transformers").AutoModel.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **changes,
        )
    network = network.encoder if settings.model_type == "vjepa2" else network
    unused = ("predictor.", "embeddings.mask_token")
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(unused))
    if missing:
        raise CheckpointError(
            f"the weights in {folder} lack {len(missing)} tensors of the encoder: "
            f"{', '.join(missing[:10])}; copy or download them again"
        )
    return network.eval().requires_grad_(False)
