"""What can be probed: encoders of clips or of single frames, trained by anyone or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from jepa_gym.checkpoint import published
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.fill import fill
from jepa_gym.checkpoint.published_config import hugging_face_config
from jepa_gym.checkpoint.safetensors_file import read_safetensors
from jepa_gym.checkpoint.sources import locate
from jepa_gym.checkpoint.weights import open_weights
from jepa_gym.config import FrameSpec, PredictorConfig, WorldModelConfig, checked_fields
from jepa_gym.models import AttentiveClassifier, MaskedPredictor, VideoTransformer
from jepa_gym.models.transformer import init_transformer
from jepa_gym.preprocess import normalise
from jepa_gym.training.recipes.pretrain import ENCODER_NAME, PREDICTOR_NAME, SMALL
from jepa_gym.world_model import WorldModel

RANDOM = "random"
"""An untrained encoder; `random:SOURCE` has the sizes of another one."""
ANY_VIDEO = ("video",)
"""The view of videos that nobody collected for a world model; any encoder may see them."""
PUBLISHED_MASK_TOKEN = 1
"""What the published evaluation asks for; taken modulo the number of tokens."""


class ClipEncoder(nn.Module):
    """A video transformer, and perhaps the masked predictor it was trained with."""

    def __init__(
        self,
        encoder: VideoTransformer,
        predictor: MaskedPredictor | None = None,
        frame: FrameSpec | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            encoder: Of clips.
            predictor: Its masked predictor, for anticipation.
            frame: What it was trained on; None for anything.
        """
        super().__init__()
        self.encoder, self.predictor, self.frame = encoder, predictor, frame
        self.embed_dim = encoder.patch_embed.proj.out_channels
        self.num_heads = self.embed_dim // encoder.head_dim

    def forward(self, frames: Tensor, ahead: int | None = None) -> Tensor:
        """Encode clips.

        Args:
            frames: (B, T, Y, X, 3) uint8; a single frame is repeated into one tubelet.
            ahead: Frames from the end of the clip to what is to be anticipated; the masked
                predictor's tokens for it follow those of the clip.

        Returns:
            (B, N, D) tokens after the final norm.

        Raises:
            ValueError: If T is neither 1 nor a multiple of the tubelet, or sides are none of the
                patch.
        """
        video = normalise(frames, self.encoder.mean, self.encoder.std)
        tubelet = self.encoder.tubelet_size
        if video.shape[2] == 1:
            video = repeat(video, "b c 1 y x -> b c t y x", t=tubelet)
        tokens = self.encoder(video)
        assert isinstance(tokens, Tensor)
        if ahead is None or self.predictor is None:
            return tokens
        tubelets = video.shape[2] // tubelet
        grid = tokens.shape[1] // tubelets
        ids = torch.arange((tubelets + ahead // tubelet + 1) * grid, device=tokens.device)
        ids = ids.expand(len(tokens), -1)
        future = self.predictor(
            tokens, ids[:, : tubelets * grid], ids[:, -grid:], PUBLISHED_MASK_TOKEN
        )
        return torch.cat([tokens, future.to(tokens.dtype)], 1)


class FrameEncoder(nn.Module):
    """The encoder of a world model, which sees every frame of a clip alone."""

    def __init__(self, model: WorldModel) -> None:
        """Take the model; its predictor needs actions, and is not used."""
        super().__init__()
        self.model = model
        self.frame: FrameSpec | None = model.config.frame
        self.embed_dim = model.config.encoder.latent_dim
        self.num_heads = max(n for n in range(1, 17) if self.embed_dim % (8 * n) == 0 or n == 1)

    def forward(self, frames: Tensor, ahead: int | None = None) -> Tensor:
        """Encode clips (B, T, Y, X, 3) uint8 to the layer-normed tokens (B, T * N, D)."""
        return rearrange(self.model.encode_train(frames), "b t n d -> b (t n) d")


Probed = ClipEncoder | FrameEncoder


def open_probed(source: str, frame: FrameSpec) -> Probed:
    """Open what is to be probed.

    Args:
        source: The output folder of `jepa-gym pretrain`; a name or folder of a published V-JEPA 2;
            what `WorldModel.from_pretrained` takes; `random`, an untrained encoder of the sizes
            that `pretrain` has by default; or `random:SOURCE`, one of another source's sizes.
        frame: The frames that it will see.

    Returns:
        In evaluation mode, frozen.

    Raises:
        FileNotFoundError: If there is no such source.
        CheckpointError: If it cannot be used.
        ValueError: If it was trained on other views.
    """
    kind, _, like = source.partition(":")
    if kind != RANDOM:
        probed = _trained(source, frame)
    elif like:
        probed = _untrained(_trained(like, frame))
    else:
        probed = ClipEncoder(*_parts(WorldModelConfig(frame=frame, encoder=SMALL)))
    if probed.frame is not None and frame.cameras not in (probed.frame.cameras, ANY_VIDEO):
        raise ValueError(
            f"{source} was trained on the views {probed.frame.cameras}, the data show "
            f"{frame.cameras}; give data that was collected with the same cameras"
        )
    return probed.eval().requires_grad_(False)


def published_classifiers(source: str) -> dict[str, AttentiveClassifier]:
    """Open the published attentive probes that a file holds.

    Args:
        source: A name such as `vjepa2-ssv2-vitl-16x2x3`, or a file.

    Returns:
        By their names in the file: one, or those of a sweep, all for as many classes.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it holds no such probe.
    """
    path = locate(source)
    parts = [part for part in published.parts_of(open_weights(path)) if "classifier" in part]
    if not parts:
        raise CheckpointError(f"{path} holds no probe; `jepa-gym download` lists those published")
    found = {}
    for part in parts:
        module = published.load(path, "attentive_classifier", part)
        assert isinstance(module, AttentiveClassifier)
        found[part] = module
    return found


def weights_hash(module: nn.Module) -> str:
    """Hash names, shapes and numbers of a module's weights; SHA-256 as hexadecimal digits."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(f"{name} {tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().flatten().view(torch.uint8).cpu().numpy())
    return total.hexdigest()


def _trained(source: str, frame: FrameSpec) -> Probed:
    if (Path(source) / ENCODER_NAME).is_file():
        return _pretrained(Path(source), frame)
    path = locate(source)
    if path.is_dir() and not hugging_face_config(path):
        return FrameEncoder(WorldModel.from_pretrained(source))
    parts = published.parts_of(open_weights(path))
    if "action_encoder.weight" in parts.get("predictor", {}):
        return FrameEncoder(WorldModel.from_pretrained(source))
    encoder = published.load(path, "encoder")
    assert isinstance(encoder, VideoTransformer)
    predictor = None
    if "predictor" in parts:
        size = (frame.height, frame.width)
        predictor = published.load(path, "masked_predictor", img_size=size)
        assert isinstance(predictor, MaskedPredictor)
    return ClipEncoder(encoder, predictor)


def _pretrained(folder: Path, frame: FrameSpec) -> ClipEncoder:
    """Read the output of `pretrain`; the masked predictor only where it was written."""
    path, second = folder / ENCODER_NAME, folder / PREDICTOR_NAME
    tensors, metadata = read_safetensors(path)
    if "config" not in metadata:
        raise CheckpointError(f"{path} carries no configuration; it was not written by `pretrain`")
    trained = WorldModelConfig.from_dict(json.loads(metadata["config"]))
    config = replace(trained, frame=frame)  # positions are those of what is seen here
    if not second.is_file():
        encoder, _ = _parts(config)
        fill(encoder, tensors, path)
        return ClipEncoder(encoder, None, trained.frame)
    predicting, told = read_safetensors(second)
    if "predictor" not in told:
        raise CheckpointError(f"{second} lacks its sizes; it was not written by `pretrain`")
    values = json.loads(told["predictor"])
    sizes = PredictorConfig(**checked_fields(PredictorConfig, values, f"predictor in {second}"))
    tokens = sum(name.startswith("mask_tokens.") for name in predicting)
    encoder, predictor = _parts(config, sizes, tokens)
    fill(encoder, tensors, path)
    fill(predictor, predicting, second)
    return ClipEncoder(encoder, predictor, trained.frame)


def _parts(
    config: WorldModelConfig, sizes: PredictorConfig | None = None, mask_tokens: int = 1
) -> tuple[VideoTransformer, MaskedPredictor]:
    """Return an untrained encoder and masked predictor, the latter as small as `pretrain`'s."""
    sizes = sizes or PredictorConfig(embed_dim=96, depth=4, num_heads=3)
    predictor = MaskedPredictor(
        config.grid,
        config.encoder.latent_dim,
        sizes.embed_dim,
        sizes.depth,
        sizes.num_heads,
        num_mask_tokens=mask_tokens,
        mlp_ratio=sizes.mlp_ratio,
        rope=sizes.rope,
    )
    return VideoTransformer.for_model(config), predictor


def _untrained(probed: Probed) -> Probed:
    """Return the same sizes without what was learnt."""
    if isinstance(probed, FrameEncoder):
        return FrameEncoder(WorldModel(probed.model.config))
    with torch.no_grad():
        for part in probed.modules():
            if isinstance(part, nn.LayerNorm):
                part.reset_parameters()
    init_transformer(probed.encoder, probed.encoder.blocks)
    if probed.predictor is not None:
        init_transformer(probed.predictor, probed.predictor.predictor_blocks)
        for token in probed.predictor.mask_tokens:
            nn.init.zeros_(token)
    return probed
