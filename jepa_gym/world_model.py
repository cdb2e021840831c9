"""The world model: frames to latents, latents and actions to future latents, latents to energy.

Shapes: B batch, T time, N tokens of a frame, D latent width, S samples, H horizon; frames are
uint8 (..., Y, X, 3). States and actions are in physical units everywhere outside this class.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from jepa_gym.checkpoint import folder as checkpoints
from jepa_gym.checkpoint import pretrained
from jepa_gym.checkpoint.fill import fill
from jepa_gym.config import ENCODERS, WorldModelConfig
from jepa_gym.models import ActionConditionedPredictor, VideoTransformer
from jepa_gym.models.hugging_face import checkpoint_encoder
from jepa_gym.models.merging import TokenMerging
from jepa_gym.models.readout import StateReadout
from jepa_gym.names import resolve
from jepa_gym.normalisation import Normaliser, layer_norm
from jepa_gym.rollout import Rollout, energy


class WorldModel(nn.Module):
    """An encoder of single frames and an action-conditioned predictor of their latents."""

    def __init__(self, config: WorldModelConfig, encoder_folder: Path | None = None) -> None:
        """Create an untrained model; only a Hugging Face encoder has its weights.

        Args:
            config: Sizes, frame, and the statistics that normalise states and actions.
            encoder_folder: Where the files of a Hugging Face encoder are; its named source by
                default.

        Raises:
            ImportError, FileNotFoundError, ValueError: When a Hugging Face encoder cannot be
                read (see `HuggingFaceEncoder`).
        """
        super().__init__()
        self.config = config
        self.folder: Path | None = None
        kind, predictor = config.encoder.kind, config.predictor
        encoder = resolve(ENCODERS, "encoder", kind).for_model(config, encoder_folder)
        self.encoder: nn.Module = encoder
        sizes = config.encoder
        if sizes.merge > 1:
            merging = TokenMerging(config.grid, sizes.embed_dim, sizes.latent_dim, sizes.merge)
            self.merging = merging.requires_grad_(False)  # fitted, not trained
        if config.readout_weight is not None:
            readout = StateReadout(config.num_tokens, sizes.latent_dim)
            self.readout = readout.requires_grad_(False)  # trained on finished latents
        self.predictor = ActionConditionedPredictor(
            config.grid,
            config.encoder.latent_dim,
            predictor.embed_dim,
            predictor.depth,
            predictor.num_heads,
            mlp_ratio=predictor.mlp_ratio,
            rope=predictor.rope,
            use_states=predictor.use_states,
            use_extrinsics=predictor.use_extrinsics,
        )
        self.normaliser = Normaliser(config, encoder.mean, encoder.std)

    @property
    def context_frames(self) -> int:
        """Most real frames that a planner gives as context."""
        return self.config.context_frames

    @property
    def readout_weight(self) -> float:
        """Weight of `state_difference` in the cost of a plan; 0 without a readout."""
        return self.config.readout_weight or 0.0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.predictor.predictor_proj.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights; latents and statistics are float32 in any case."""
        return self.predictor.predictor_proj.weight.dtype

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: str | torch.device = "cpu",
        encoder: str | Path | None = None,
        local_files_only: bool = False,
    ) -> WorldModel:
        """Load a model, in eval mode.

        Args:
            source: ``default`` or ``vjepa-small``, shipped with the package; a folder of
                `save_pretrained` or of `export.world_model`; a file of V-JEPA 2-AC, the original or
                that of jepa-wms; or what is downloaded: a name that `jepa-gym download` lists, or
                ``hf:OWNER/NAME`` on the Hugging Face hub.
            device: Where to put it.
            encoder: The file, or its name, with the encoder of a published predictor, if `source`
                has none. By default the one that belongs to a published name.
            local_files_only: Whether to fail rather than download.

        Raises:
            FileNotFoundError: When the folder or one of its files is missing, or a named
                Hugging Face encoder.
            CheckpointError: When a file is truncated or belongs to another architecture.
            jepa_gym.checkpoint.errors.DownloadError: When a download fails.
        """
        found = pretrained.read(source, encoder, local_files_only)
        encoder_folder = checkpoint_encoder(found.config.encoder, found.folder, local_files_only)
        with torch.device("meta"):
            model = cls(found.config, encoder_folder)
        fill(model, found.tensors, found.path)
        model.folder = found.folder
        return model.to(device).eval()

    def save_pretrained(self, folder: str | Path, card: dict[str, Any]) -> None:
        """Write config.json, model.safetensors and README.md, each replaced in one step.

        Args:
            folder: Created when missing.
            card: What the model card tells: command, seed, dataset hash, figures, ...
        """
        checkpoints.write(Path(folder), self.config, self.state_dict(), card)

    def features(self, frames: Tensor) -> Tensor:
        """Encode frames with gradients, before the final layer norm.

        Args:
            frames: (B, T, Y, X, 3) uint8, or float in [0, 255].

        Returns:
            (B, T, N, D); batch-normalised for the convolutional encoder.

        Raises:
            ValueError: When the frames are not of the configured size.
        """
        tokens = self._tokens(frames)
        if self.config.encoder.merge > 1:
            tokens = self.merging(tokens)
        return rearrange(tokens, "(b t) n d -> b t n d", b=len(frames))

    def _tokens(self, frames: Tensor) -> Tensor:
        """Return the encoder's tokens (B T, N', D') of frames (B, T, Y, X, 3)."""
        self._check_size(frames)
        pixels = self.normaliser.pixels(frames).to(self.dtype)
        images = rearrange(pixels, "b t y x c -> (b t) c y x")  # a view, in channels-last memory
        if isinstance(self.encoder, VideoTransformer):
            images = repeat(images, "n c y x -> n c t y x", t=self.encoder.tubelet_size)
        return self.encoder(images)

    @torch.no_grad()
    def fit_merging(self, frames: Tensor, chunk: int = 32) -> float:
        """Fit the projection of merged tokens, see `TokenMerging.fit`.

        Args:
            frames: (B, T, Y, X, 3) uint8.
            chunk: Frames encoded at a time.

        Returns:
            The share of the variance that it keeps.
        """
        parts = rearrange(frames, "b t y x c -> (b t) 1 y x c").split(chunk)
        return self.merging.fit(torch.cat([self._tokens(x.to(self.device)) for x in parts]))

    def _check_size(self, frames: Tensor) -> None:
        size = (self.config.frame.height, self.config.frame.width, 3)
        if frames.ndim != 5 or tuple(frames.shape[2:]) != size:
            raise ValueError(
                f"`frames` must be (B, T, {size}), got {tuple(frames.shape)}. An environment shows "
                "what this model saw in training if it is made with "
                f"gym.make(..., **model.config.frame.env_kwargs()): {self.config.frame.cameras}"
            )

    def encode_train(self, frames: Tensor) -> Tensor:
        """Encode with gradients; otherwise as `encode`."""
        return layer_norm(self.features(frames).float())

    @torch.no_grad()  # not inference mode: latents may become training inputs
    def encode(self, frames: Tensor | np.ndarray, chunk: int = 32) -> Tensor:
        """Encode frames, each alone.

        Args:
            frames: (B, T, Y, X, 3) uint8, on any device.
            chunk: Frames encoded at a time, which bounds the memory.

        Returns:
            (B, T, N, D) float32, layer-normed, on the model's device.

        Raises:
            TypeError: When the frames are not uint8.
            ValueError: When they are not of the configured size.
        """
        if isinstance(frames, np.ndarray):
            frames = torch.from_numpy(np.require(frames, requirements=["C", "W"]))
        if frames.dtype != torch.uint8:
            raise TypeError(f"`frames` must be uint8 in [0, 255], got {frames.dtype}")
        self._check_size(frames)
        parts = rearrange(frames, "b t y x c -> (b t) 1 y x c").split(chunk)
        latents = torch.cat([self.encode_train(part.to(self.device)) for part in parts])
        return rearrange(latents, "(b t) 1 n d -> b t n d", b=len(frames))

    def observe(self, observation: Mapping[str, np.ndarray]) -> tuple[Tensor, Tensor]:
        """Return the latents of what an environment shows and of its goal.

        Args:
            observation: A batch of observations, each entry (B, ...): `pixels` and `goal_pixels`
                of a real environment, or `achieved_goal` and `desired_goal` of `JEPALatent-v0`,
                which are latents already.

        Returns:
            The current and the goal's latents, (B, N, D) each, on the model's device.

        Raises:
            ValueError: When there is neither of the two.
        """
        if "pixels" in observation and "goal_pixels" in observation:
            frames = np.stack([observation["pixels"], observation["goal_pixels"]], axis=1)
            current, goal = self.encode(frames).unbind(1)
            return current, goal
        latent = (self.config.num_tokens, self.config.encoder.latent_dim)
        given = [np.asarray(observation.get(f"{key}_goal")) for key in ("achieved", "desired")]
        if any(x.ndim != 3 or x.shape[1:] != latent for x in given):
            raise ValueError(
                "Planning needs `pixels` and `goal_pixels` (make the environment with "
                f'obs_mode="both") or the latents (B, {latent[0]}, {latent[1]}) of JEPALatent-v0, '
                f"got the entries { {key: np.shape(x) for key, x in observation.items()} }."
            )
        current, goal = (torch.from_numpy(x).to(self.device, torch.float32) for x in given)
        return current, goal

    def predict(
        self, latents: Tensor, actions: Tensor, states: Tensor, extrinsics: Tensor | None = None
    ) -> Tensor:
        """Predict every frame's successor in one pass, with gradients.

        Args:
            latents: (B, T, N, D) layer-normed.
            actions: (B, T, 7) done at each frame.
            states: (B, T, 7) at each frame.
            extrinsics: (B, T, 6) the camera's pose at each frame, for a predictor that uses it;
                `config.camera_pose` by default.

        Returns:
            (B, T, N, D) layer-normed latents of frames 1 .. T.
        """
        inputs = [latents, self.normaliser.actions(actions), self.normaliser.states(states)]
        if self.config.predictor.use_extrinsics:
            given = self._camera_poses(len(latents)) if extrinsics is None else extrinsics
            inputs.append(given.expand(-1, latents.shape[1], -1))
        return layer_norm(self.predictor(*(x.to(self.dtype) for x in inputs)).float())

    def _camera_poses(self, batch: int) -> Tensor:
        """Return the pose (B, 1, 6) that is assumed of the camera."""
        return torch.tensor(self.config.camera_pose, device=self.device).expand(batch, 1, -1)

    def prepare(
        self,
        latents: Tensor,
        states: Tensor,
        past_actions: Tensor | None = None,
        *,
        grad: bool = False,
        extrinsics: Tensor | None = None,
    ) -> Rollout:
        """Prepare rollouts from one context, which answer for several sets of candidates.

        Args:
            latents: As for `rollout`, like all others.
            states: (B, T, 7).
            past_actions: (B, T - 1, 7).
            grad: As for `rollout`.
            extrinsics: (B, 6) the camera's pose, for a predictor that uses it;
                `config.camera_pose` by default.

        Returns:
            Its `latents(actions)` are those of `rollout`, its `energy(actions, goal)` those of
            `rollout_energy`; the context is computed once.

        Raises:
            ValueError: When shapes disagree.
        """
        frames, cameras = self.config.train_frames, None
        if self.config.predictor.use_extrinsics:
            given = extrinsics is not None
            cameras = extrinsics[:, None] if given else self._camera_poses(len(latents))
        networks = (self.predictor, self.normaliser)
        return Rollout(*networks, frames, latents, states, past_actions, grad, cameras)

    def rollout(
        self,
        latents: Tensor,
        states: Tensor,
        actions: Tensor,
        past_actions: Tensor | None = None,
        *,
        grad: bool = False,
        chunk: int | None = None,
    ) -> Tensor:
        """Imagine where candidate action sequences lead.

        Args:
            latents: (B, T, N, D) context, oldest first, layer-normed.
            states: (B, T, 7) of the context.
            actions: (B, S, H, 7) candidates, starting at the last context frame.
            past_actions: (B, T - 1, 7); the differences of `states` by default.
            grad: Whether the result has gradients, for instance with respect to `actions`.
            chunk: Candidates imagined at a time; by default as many as `rollout.chunk_size` says.

        Returns:
            (B, S, H, N, D) layer-normed latents, float32. Over more than `config.train_frames`
            frames, T + H - 1, they are extrapolation, of which an `ExtrapolationWarning` tells.

        Raises:
            ValueError: When shapes disagree.
        """
        return self.prepare(latents, states, past_actions, grad=grad).latents(actions, chunk)

    def rollout_energy(
        self,
        latents: Tensor,
        states: Tensor,
        actions: Tensor,
        goal: Tensor,
        past_actions: Tensor | None = None,
        *,
        grad: bool = False,
        chunk: int | None = None,
    ) -> Tensor:
        """Return the energies (B, S) of the last imagined frames, in bounded memory.

        That is `energy(rollout(...)[:, :, -1], goal)` without the futures of all candidates.

        Args:
            latents: As for `rollout`, like all but the goal.
            states: (B, T, 7).
            actions: (B, S, H, 7).
            goal: (B, N, D) layer-normed latents.
            past_actions: (B, T - 1, 7).
            grad: As for `rollout`.
            chunk: As for `rollout`.

        Raises:
            ValueError: When shapes disagree.
        """
        prepared = self.prepare(latents, states, past_actions, grad=grad)
        return prepared.energy(actions, goal, chunk)

    def energy(self, latents: Tensor, goal: Tensor) -> Tensor:
        """Return the mean absolute difference to a goal.

        Args:
            latents: (B, ..., N, D), for instance (B, S, N, D).
            goal: (B, N, D), or the shape of `latents`.

        Returns:
            (B, ...), for instance (B, S).
        """
        return energy(latents, goal)

    def state_difference(self, latents: Tensor, goal: Tensor) -> Tensor:
        """Return how far what is read of the state is from what is read of the goal's.

        Args:
            latents: (B, S, N, D).
            goal: (B, N, D).

        Returns:
            (B, S), the mean over x, y, z and closedness of absolute differences, each in standard
            deviations of the training states.

        Raises:
            ValueError: When the model has no readout.
        """
        if self.config.readout_weight is None:
            raise ValueError(
                "this model has no readout; its configuration's `readout_weight` is None"
            )
        here, there = self.readout(latents.to(self.dtype)), self.readout(goal.to(self.dtype))
        return (here - there[:, None]).float().abs().mean(-1)
