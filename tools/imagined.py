"""Draw an episode twice: as the simulator shows it, and as the world model imagines it.

`python tools/imagined.py` lets the scripted expert grasp an object in the simulator and gives the
moves that were made to `JEPALatent-v0`, which sees the first frame only. (The command to close says
all the way; the gripper closes as far as the object lets it.) It writes
`docs/figures/imagined.jpg`: the simulator's frames above, the decoded ones below.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import tyro
from einops import rearrange
from PIL import Image

import jepa_gym  # noqa: F401  (registers the environments)
from jepa_gym import poses
from jepa_gym.agents import make_agent
from jepa_gym.benchmarks.episodes import HELD_OUT_SEEDS
from jepa_gym.checkpoint.beside import DECODER
from jepa_gym.files import atomic_write
from jepa_gym.latent.starts import start_options
from jepa_gym.world_model import WorldModel

GAP_PX = 4
FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"


@dataclass(frozen=True)
class ImaginedConfig:
    """Draw a grasp as simulated and as imagined, under the same moves."""

    checkpoint: str = "default"
    """World model with a decoder (`jepa-gym decode`)."""
    obj: str = "cup"
    """What is grasped."""
    seed: int = 0
    """Held-out episode."""
    columns: int = 6
    """Moments of the episode that are drawn, the first and the last among them."""
    output: Path = FIGURES / "imagined.jpg"
    """The picture."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: A number is out of its range.
        """
        if self.columns < 2:
            raise ValueError(f"`columns` must be at least 2, got {self.columns}")


def episode(config: ImaginedConfig) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Play the episode; return its frames (Y, X, 3) uint8, simulated and imagined.

    Raises:
        FileNotFoundError: The checkpoint has no decoder.
    """
    model = WorldModel.from_pretrained(config.checkpoint)
    decoder = DECODER.own(model)
    if decoder is None:
        raise FileNotFoundError(f"{model.folder} has no decoder; train one with `jepa-gym decode`")
    frame = model.config.frame
    env = gym.make("FrankaGrasp-v0", obj=config.obj, **frame.env_kwargs())
    assert env.spec is not None  # `gym.make` always sets it
    observation, _ = env.reset(seed=HELD_OUT_SEEDS + config.seed)
    imagined = gym.make(
        "JEPALatent-v0",
        model=model,
        starts="given",
        clip_actions=True,
        render_mode="rgb_array",
        decoder=decoder,
        max_episode_steps=env.spec.max_episode_steps,
    )
    imagined.reset(options=start_options(observation))
    agent, ended = make_agent("scripted", env=env), False
    real, drawn = [observation["pixels"]], [present(imagined, frame.width)]
    while not ended:
        action, _ = agent.predict(observation)
        before = torch.from_numpy(observation["observation"])
        observation, _, _, ended, _ = env.step(action)
        imagined.step(poses.difference(before, torch.from_numpy(observation["observation"])))
        real.append(observation["pixels"])
        drawn.append(present(imagined, frame.width))
    return real, drawn


def present(env: gym.Env, width: int) -> np.ndarray:
    """Return the present frame (Y, X, 3) uint8, the left part of what is rendered."""
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    return picture[:, :width]


def sheet(rows: list[list[np.ndarray]], columns: int) -> np.ndarray:
    """Put evenly spread frames of every row beside each other, with white gaps."""
    chosen = np.linspace(0, len(rows[0]) - 1, columns).round().astype(int)
    tiles = np.array([[row[index] for index in chosen] for row in rows])  # (2, columns, Y, X, 3)
    room = ((0, 0), (0, 0), (0, GAP_PX), (0, GAP_PX), (0, 0))
    padded = np.pad(tiles, room, constant_values=255)
    return rearrange(padded, "row column y x colour -> (row y) (column x) colour")


def main() -> None:
    """Run the command line."""
    config = tyro.cli(ImaginedConfig, description=ImaginedConfig.__doc__)
    picture = Image.fromarray(sheet(list(episode(config)), config.columns))
    with atomic_write(config.output) as temporary:
        picture.save(temporary, "JPEG", quality=85)
    print(f"wrote {config.output}")


if __name__ == "__main__":
    main()
