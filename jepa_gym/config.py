"""Configurations of a world model: frozen, checked, saved as JSON beside the weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, fields
from typing import Any

STATE_DIM = 7
ACTION_DIM = 7
CAMERA_DIM = 6
MAX_TURN_RAD = 0.3
"""Bound of one action's rotation about each axis."""
MAX_GRIPPER_CHANGE = 1.0
"""Bound of one action's change of gripper closedness."""

ENCODERS = {
    "conv": "jepa_gym.models.conv_encoder:ConvEncoder",
    "vit": "jepa_gym.models.encoder:VideoTransformer",
    "hf": "jepa_gym.models.hugging_face:HuggingFaceEncoder",
}
"""Kinds of encoders and where their classes live; `for_model` of a class makes one."""
ROPE_KINDS = ("interleaved", "v2", "sincos")
STATE_CONVENTIONS = ("hand", "droid")
"""What a state is the pose of: the point between the fingertips, or as in DROID the arm's flange
(roll near +-pi where the hand points down)."""


MAX_DEPTH, MAX_SIZE, MAX_NUMBER = 512, 65536, 1e6
"""Bounds of what a configuration in a file may say; damaged or hostile ones would take for ever."""

_ADDED = {"added": True}
"""Marks a field that configurations written earlier do not have; they mean its default."""


def _was(name: str) -> dict[str, str]:
    """Mark a field that configurations written earlier have under another name."""
    return {"was": name}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_blocks(name: str, config: EncoderConfig | PredictorConfig) -> None:
    """Check the sizes of transformer blocks."""
    embed_dim, num_heads = config.embed_dim, config.num_heads
    head_dim, rest = divmod(embed_dim, max(num_heads, 1))
    _require(
        num_heads >= 1 and rest == 0 and head_dim % 2 == 0 and head_dim >= 6,
        f"`{name}.embed_dim` must be `num_heads` times an even head width of at least 6, "
        f"got embed_dim={embed_dim}, num_heads={num_heads}",
    )
    _require(config.depth >= 1, f"`{name}.depth` must be at least 1, got {config.depth}")
    _require(
        embed_dim * config.mlp_ratio >= 1,
        f"`{name}.mlp_ratio` times `embed_dim` must be at least 1, got {config.mlp_ratio}",
    )


@dataclass(frozen=True, slots=True)
class FrameSpec:
    """What one frame shows and what lies between two of them."""

    height: int = 128
    """Rows of a frame, pixels."""
    width: int = 256
    """Columns of a frame (all cameras tiled side by side), pixels."""
    cameras: tuple[str, ...] = ("left", "wrist")
    """The views, in their order from left to right."""
    step_s: float = 0.25
    """Time between two frames, seconds."""
    max_move_m: float = 0.075
    """Bound of one action's translation along each axis, metres."""
    state_convention: str = field(default="hand", metadata=_ADDED)
    """What the states are the pose of, one of `STATE_CONVENTIONS`."""

    def __post_init__(self) -> None:
        for name in ("height", "width", "step_s", "max_move_m"):
            value = getattr(self, name)
            _require(value > 0, f"`frame.{name}` must be positive, got {value}")
        _require(len(self.cameras) > 0, "`frame.cameras` must name at least one camera")
        _require(
            self.state_convention in STATE_CONVENTIONS,
            f"`frame.state_convention` must be one of {STATE_CONVENTIONS}, "
            f"got {self.state_convention!r}",
        )

    def env_kwargs(self) -> dict[str, Any]:
        """Return the arguments of `gym.make` that make a Franka environment show such frames."""
        return {
            "camera": "+".join(self.cameras),
            "image_size": (self.height, self.width // len(self.cameras)),
            "step_s": self.step_s,
            "max_move_m": self.max_move_m,
            "state_convention": self.state_convention,
        }


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """One frame to tokens."""

    kind: str = "conv"
    """`conv` (strided convolutions, then transformer blocks), `vit` (the published one) or `hf` (a
    frozen one of transformers, described by `jepa_gym.models.hugging_face.encoder_config`)."""
    embed_dim: int = field(default=192, metadata=_was("width"))
    """Width of the transformer blocks."""
    depth: int = 3
    """Number of transformer blocks."""
    num_heads: int = field(default=3, metadata=_was("heads"))
    """Attention heads of a block."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's MLP over `embed_dim`."""
    latent_dim: int = 128
    """Channels of a latent token. `conv` has a projection to them, and so have the others if they
    `merge` tokens; else it must equal `embed_dim`."""
    patch_size: int = field(default=32, metadata=_was("patch"))
    """Pixels per token along each axis: the patch of `vit` and `hf`, the total stride of `conv`."""
    rope: str = "interleaved"
    """Positions: rotary, `interleaved`, or `v2` for the published weights; or `sincos`, absolute as
    in V-JEPA 1, of `vit` only. `hf` has its own."""
    merge: int = field(default=1, metadata=_ADDED)
    """Of `vit` and `hf`: tokens along each axis that are joined into one latent token, by a linear
    projection; every imagined frame pays for each token."""
    name: str = field(default="", metadata=_ADDED)
    """Of `hf`: a name on the Hugging Face hub, or a folder."""
    revision: str = field(default="", metadata=_ADDED)
    """Of `hf`: the commit on the hub."""
    digest: str = field(default="", metadata=_ADDED)
    """Of `hf`: the hash of its files."""

    def __post_init__(self) -> None:
        _require(
            self.kind in ENCODERS,
            f"`encoder.kind` must be one of {tuple(ENCODERS)}, got {self.kind!r}",
        )
        _require(
            self.rope in ROPE_KINDS,
            f"`encoder.rope` must be one of {ROPE_KINDS}, got {self.rope!r}",
        )
        _require(
            self.rope != "sincos" or self.kind == "vit",
            f"`encoder.rope`='sincos' belongs to kind='vit', got {self.kind!r}",
        )
        _check_blocks("encoder", self)
        _require(self.latent_dim >= 2, f"`encoder.latent_dim` must be >= 2, got {self.latent_dim}")
        is_hf = self.kind == "hf"
        _require(
            bool(self.name) == bool(self.digest) == is_hf and (is_hf or not self.revision),
            "`encoder.name` and `encoder.digest` belong to kind='hf' and to no other; make that "
            "configuration with jepa_gym.models.hugging_face.encoder_config('hf:NAME_OR_FOLDER')",
        )
        _require(
            self.merge >= 1 and (self.merge == 1 or self.kind != "conv"),
            f"`encoder.merge` must be at least 1, and 1 for kind='conv', got {self.merge}",
        )
        if self.kind != "conv":
            _require(
                self.merge > 1 or self.latent_dim == self.embed_dim,
                f"`encoder.latent_dim` must equal `encoder.embed_dim` for kind={self.kind!r} with "
                f"merge=1 (it has no projection), got {self.latent_dim} and {self.embed_dim}",
            )
            _require(
                self.patch_size >= 1,
                f"`encoder.patch_size` must be positive, got {self.patch_size}",
            )
        else:
            _require(
                self.patch_size >= 8 and self.patch_size.bit_count() == 1,
                f"`encoder.patch_size` must be a power of two of at least 8 for kind='conv', "
                f"got {self.patch_size}",
            )

    @property
    def token_size(self) -> int:
        """Pixels per latent token along each axis."""
        return self.patch_size * self.merge


@dataclass(frozen=True, slots=True)
class PredictorConfig:
    """The action-conditioned predictor."""

    embed_dim: int = field(default=192, metadata=_was("width"))
    """Width of the transformer blocks."""
    depth: int = 3
    """Number of transformer blocks."""
    num_heads: int = field(default=3, metadata=_was("heads"))
    """Attention heads of a block."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's MLP over `embed_dim`."""
    rope: str = "interleaved"
    """Positions: rotary, `interleaved`, or `v2` for the published weights; a masked predictor may
    have `sincos`, absolute ones as in V-JEPA 1."""
    use_states: bool = field(default=True, metadata=_ADDED)
    """Whether a frame has a token for the robot's state."""
    use_extrinsics: bool = field(default=False, metadata=_ADDED)
    """Whether a frame has a token for the camera's pose."""

    def __post_init__(self) -> None:
        _require(
            self.rope in ROPE_KINDS,
            f"`predictor.rope` must be one of {ROPE_KINDS}, got {self.rope!r}",
        )
        _check_blocks("predictor", self)


@dataclass(frozen=True, slots=True)
class WorldModelConfig:
    """Everything needed to build a `WorldModel` and to read its inputs and outputs."""

    frame: FrameSpec = field(default_factory=FrameSpec)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    state_mean: tuple[float, ...] = (0.0,) * STATE_DIM
    """Subtracted from states inside the model (angles: the difference is wrapped)."""
    state_std: tuple[float, ...] = (1.0,) * STATE_DIM
    """Divides the centred states inside the model."""
    action_scale: tuple[float, ...] = (0.075,) * 3 + (MAX_TURN_RAD,) * 3 + (MAX_GRIPPER_CHANGE,)
    """Divides the actions inside the model."""
    context_frames: int = 1
    """Most real frames a planner or the latent environment gives as context. A blocking move starts
    at rest, so that one frame and its state tell what there is to know; it was published so, too.
    """
    train_frames: int = 4
    """Frames of a training clip; longer windows are extrapolation."""
    camera_pose: tuple[float, ...] = field(default=(0.0,) * CAMERA_DIM, metadata=_ADDED)
    """With `predictor.use_extrinsics`, the camera's pose that is assumed where none is given:
    position in metres and extrinsic-xyz angles in the robot's base frame, with OpenCV's axes."""
    success_energy: float | None = None
    """Energy to the goal below which the latent environment counts success."""
    readout_weight: float | None = field(default=None, metadata=_ADDED)
    """Weight in the cost of a plan of how far what is read of the state from its latent is from
    what is read from the goal's, in standard deviations; None for a model without a readout."""

    def __post_init__(self) -> None:
        for name in ("state_mean", "state_std", "action_scale"):
            value = getattr(self, name)
            _require(len(value) == 7, f"`{name}` must have 7 numbers, got {len(value)}")
        _require(
            len(self.camera_pose) == CAMERA_DIM,
            f"`camera_pose` must have {CAMERA_DIM} numbers, got {len(self.camera_pose)}",
        )
        for name in ("state_std", "action_scale"):
            value = getattr(self, name)
            _require(min(value) > 0, f"`{name}` must be positive in every dimension, got {value}")
        for name in ("context_frames", "train_frames"):
            value = getattr(self, name)
            _require(value >= 1, f"`{name}` must be at least 1, got {value}")
        _require(
            self.predictor.rope != "sincos",
            "`predictor.rope` must be rotary for a predictor that is conditioned on actions",
        )
        _require(
            self.readout_weight is None or self.readout_weight >= 0,
            f"`readout_weight` must be at least 0 or None, got {self.readout_weight}",
        )
        patch = self.encoder.token_size
        _require(
            self.frame.height % patch == 0 and self.frame.width % patch == 0,
            f"`frame` size must be a multiple of `encoder.patch_size` times `merge`, {patch}, "
            f"got {self.frame.height}x{self.frame.width}; {_nearest(self.frame, patch)}",
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens of one frame."""
        patch = self.encoder.token_size
        return self.frame.height // patch, self.frame.width // patch

    @property
    def num_tokens(self) -> int:
        """Tokens N of one frame."""
        return self.grid[0] * self.grid[1]

    @property
    def action_bounds(self) -> tuple[float, ...]:
        """Largest magnitude of an action in each dimension, physical units."""
        return (self.frame.max_move_m,) * 3 + (MAX_TURN_RAD,) * 3 + (MAX_GRIPPER_CHANGE,)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return _listed(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> WorldModelConfig:
        """Build from `to_dict`'s result.

        Raises:
            ValueError: When a key is unknown or missing, or a value is not allowed.
        """
        parts = {"frame": FrameSpec, "encoder": EncoderConfig, "predictor": PredictorConfig}
        arguments = checked_fields(cls, values, "configuration")
        for name, part in parts.items():
            what = f"configuration's `{name}`"
            arguments[name] = part(**checked_fields(part, arguments[name], what))
        return cls(**arguments)


def _nearest(frame: FrameSpec, patch: int) -> str:
    """Name the allowed frame sizes just below and above, alike for each of the tiled cameras."""
    views = len(frame.cameras)
    sides = [
        sorted({max(patch, side // patch * patch), -(-side // patch) * patch})
        for side in (frame.height, frame.width // views)
    ]
    rows, columns = (" or ".join(map(str, values)) for values in sides)
    each = f" of each of the {views} cameras" if views > 1 else ""
    return f"the nearest sizes{each} have {rows} rows and {columns} columns"


def _listed(value: Any) -> Any:
    """Replace tuples by lists, as JSON does."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_listed(item) for item in value]
    return value


def checked_fields(cls: type, values: dict[str, Any], what: str) -> dict[str, Any]:
    """Check that the keys of a saved configuration are the fields of a class.

    Args:
        cls: The dataclass.
        values: JSON types by name; those of an earlier version are understood.
        what: What is read, for the message.

    Returns:
        The arguments of the class, lists made tuples.

    Raises:
        ValueError: When a key is unknown or missing, or a value is of another type or beyond what
            any model has.
    """
    if not isinstance(values, dict):
        raise ValueError(f"the {what} must be a mapping, got {type(values).__name__}")
    earlier = {item.metadata["was"]: item.name for item in fields(cls) if "was" in item.metadata}
    values = {earlier.get(key, key): value for key, value in values.items()}
    expected = {item.name for item in fields(cls)}
    added = {item.name for item in fields(cls) if item.metadata.get("added")}
    missing = sorted(expected - added - values.keys())
    unknown = sorted(values.keys() - expected)
    if missing or unknown:
        raise ValueError(
            f"the {what} has missing keys {missing} and unknown keys {unknown}; "
            f"it was probably written by another version of jepa-gym"
        )
    for item in fields(cls):
        if item.name in values and item.default is not dataclasses.MISSING:
            _check_value(item.name, values[item.name], item.default)
    return {key: tuple(item) if isinstance(item, list) else item for key, item in values.items()}


def check_size(name: str, value: Any) -> None:
    """Check that a size which was read from a file is one that a model can have.

    Args:
        name: What it is called; `depth` has a narrower bound, as every block takes time to make.
        value: What was read.

    Raises:
        ValueError: When it is no integer, or beyond the bound.
    """
    bound = MAX_DEPTH if name == "depth" else MAX_SIZE
    if type(value) is not int or not 1 <= value <= bound:
        raise ValueError(f"`{name}` must be an integer from 1 to {bound}, got {str(value)[:40]}")


def _check_value(name: str, value: Any, default: Any) -> None:
    """Check that a value which was read from a file is of the kind of its field's default."""
    if isinstance(default, tuple):
        _require(isinstance(value, list | tuple), f"`{name}` must be a list, got {value!r}")
        for item in value:
            _check_value(name, item, default[0])
    elif type(default) is int:
        check_size(name, value)
    elif default is None or type(default) is float:
        number = type(value) in (int, float) and abs(value) <= MAX_NUMBER
        _require(
            number or value is default is None,
            f"`{name}` must be a number between +-{MAX_NUMBER:g}, got {str(value)[:40]}",
        )
    else:
        kind = type(default).__name__
        _require(type(value) is type(default), f"`{name}` must be a {kind}, got {value!r}")
