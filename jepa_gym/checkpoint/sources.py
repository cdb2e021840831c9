"""Where a model is: shipped with the package, on this machine, published, or on the hub."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from jepa_gym.checkpoint.download import fetch
from jepa_gym.checkpoint.registry import REGISTRY
from jepa_gym.names import did_you_mean

SHIPPED = ("default", "vjepa-small")
"""Models in the package: of the joint recipe, and of the published one with a frozen encoder."""
HUB = "hf:"
"""Before a name on the Hugging Face hub."""
_HUB_FILES = (
    "config.json",
    "*preprocessor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "vjepa2-ac.pt",
    "start_frames.npz",
    "decoder.safetensors",
    "inverse.safetensors",
    "policy.safetensors",
)


def locate(source: str | Path, local_files_only: bool = False) -> Path:
    """Return the file or folder of a model, downloaded if need be.

    Args:
        source: `default` or `vjepa-small`, the models in the package; a file or folder; a name of
            `jepa_gym.checkpoint.registry.REGISTRY`; or `hf:OWNER/NAME` on the Hugging Face hub.
        local_files_only: Whether to fail rather than download.

    Raises:
        FileNotFoundError: When it is none of these.
        ImportError: When a name on the hub is given and huggingface_hub is not installed.
        DownloadError: When a download fails or is not allowed.
    """
    name = str(source)
    if name in SHIPPED:
        return Path(__file__).parents[1] / "assets" / name
    if Path(source).exists():
        return Path(source)
    if name in REGISTRY:
        return fetch(name, local_files_only)
    if name.startswith(HUB):
        return hub_folder(name.removeprefix(HUB), local_files_only=local_files_only)
    raise FileNotFoundError(
        f"there is no model {name!r}: no file or folder of this name, and no shipped or published "
        f"model.{did_you_mean(name, (*SHIPPED, *REGISTRY))} Give 'default', a path, a name that "
        f"`jepa-gym download` lists, or {HUB}OWNER/NAME"
    )


def hub_folder(name: str, revision: str = "", local_files_only: bool = False) -> Path:
    """Return the folder of a model on the Hugging Face hub, downloaded if need be.

    Args:
        name: A folder on this machine, or OWNER/NAME.
        revision: Branch, tag or commit; not for folders.
        local_files_only: Never download.

    Raises:
        ImportError: When huggingface_hub is needed and not installed.
        FileNotFoundError: When there is no such folder or name, or it cannot be reached.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        folder = optional_package("huggingface_hub").snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=_HUB_FILES,
            local_files_only=local_files_only,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FileNotFoundError(
            f"{name!r} is no folder here, and the Hugging Face hub did not give it ({reason}). "
            f"Give {HUB}FOLDER, or {HUB}OWNER/NAME and a network or a cache that holds it; the "
            "encoder of a checkpoint may be copied to its subfolder `encoder`"
        ) from None
    return Path(folder)


def optional_package(name: str) -> ModuleType:
    """Import a package of the extra `hub`; ImportError says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(
            f"models named {HUB}... need the package {name}, which is not installed: "
            'pip install "jepa-gym[hub]"'
        ) from None
