"""What decides the numbers of a benchmark: weights, versions, code and environment."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

import jepa_gym
from jepa_gym.agents import make_agent
from jepa_gym.agents.policy import policy_file
from jepa_gym.benchmarks.episodes import world_model
from jepa_gym.benchmarks.results import Record
from jepa_gym.checkpoint.beside import KINDS
from jepa_gym.checkpoint.digests import file_digest
from jepa_gym.checkpoint.folder import CONFIG_FILE
from jepa_gym.checkpoint.pretrained import OFFICIAL_FILE
from jepa_gym.checkpoint.sources import locate
from jepa_gym.checkpoint.weights import SAFETENSORS_FILE

PACKAGES = ("gymnasium", "mujoco", "numpy", "robosuite", "scipy", "stable-baselines3", "torch")
"""Their versions may change results."""
CODE = ("*.py", "benchmarks/episodes.py") + tuple(
    f"{room}/**/*.py" for room in ("agents", "checkpoint", "envs", "latent", "models")
)
"""Files of the package that may change results."""


def settings_of(
    checkpoint: str,
    policy: Path | None = None,
    agents: Iterable[str] = (),
    allow_pickle: bool = False,
) -> Record:
    """Return what decides the numbers, after everything that is named could be read.

    Args:
        checkpoint: The world model.
        policy: A trained policy.
        agents: Who acts by it.
        allow_pickle: Whether it may run code.

    Raises:
        FileNotFoundError: If the checkpoint or the policy is missing.
        ValueError: If one of them cannot be used.
    """
    found = versions() | {
        "environment": world_model(checkpoint).config.frame.env_kwargs(),
        "checkpoint": checkpoint_digest(checkpoint),
    }
    if policy is not None:
        for agent in agents:
            make_agent(agent, path=policy, allow_pickle=allow_pickle)
            found[f"policy of {agent}"] = file_digest(policy_file(policy))
    return found


def checkpoint_digest(source: str) -> Record:
    """Return the SHA-256 of each file that a checkpoint's results depend on, by its name.

    Args:
        source: As `WorldModel.from_pretrained` takes it.
    """
    path = locate(source)
    names = (CONFIG_FILE, SAFETENSORS_FILE, OFFICIAL_FILE, *(kind.file for kind in KINDS))
    files = [path / name for name in names] if path.is_dir() else [path]
    return {file.name: file_digest(file) for file in files if file.is_file()}


def versions() -> Record:
    """Return the versions and the digest of the code that may change results, by name."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"jepa-gym": jepa_gym.__version__, "code": _code_digest()} | packages


def _code_digest() -> str:
    package, digest = Path(jepa_gym.__file__).parent, hashlib.sha256()
    for file in sorted(file for pattern in CODE for file in package.glob(pattern)):
        digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    return digest.hexdigest()
