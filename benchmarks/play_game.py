"""Driving by hand: the simulator and what the world model imagines, under the same commands.

Both begin at the same real frame and are given the same moves. From there the imagination looks at
no further frame, until it is told to imagine anew from what the simulator shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_gym.agents import make_agent
from jepa_gym.agents.base import GRIPPER
from jepa_gym.benchmarks.episodes import environment, world_model
from jepa_gym.benchmarks.imagined import stopped
from jepa_gym.benchmarks.look import Seen
from jepa_gym.checkpoint.beside import DECODER
from jepa_gym.envs.pictures.cameras import droid_extrinsics
from jepa_gym.latent.env import JEPALatentEnv
from jepa_gym.latent.rewards import energies
from jepa_gym.latent.starts import start_options
from jepa_gym.training.collection.collect import index_fields
from jepa_gym.training.data.dataset import write_index
from jepa_gym.training.data.episodes import Episode, write_episode

STEP_SHARE = 0.6
"""Length of a move by a key, as a share of the longest one that the model knows."""
TURN_RAD = 0.15
MOVES: dict[str, tuple[int, float]] = {
    "forward": (0, 1),
    "backward": (0, -1),
    "left": (1, 1),
    "right": (1, -1),
    "up": (2, 1),
    "down": (2, -1),
    "turn-left": (5, 1),
    "turn-right": (5, -1),
    "open": (GRIPPER, -1),
    "close": (GRIPPER, 1),
}
"""Command -> number of the action that it changes, and in which direction."""
LEFT_OUT_KEPT = 6
"""Abandoned branches that are still drawn."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Simulator and imagination after a step."""

    observation: Mapping[str, np.ndarray]
    """The simulator's."""
    imagined: np.ndarray
    """(Y, X, 3) uint8, decoded."""
    real_energy: float
    imagined_energy: float
    distance_m: float
    """From the hand to where it is in the goal image."""
    success: bool
    reward: float
    action: np.ndarray
    """(7,), what led here; zeros at the start."""
    extrinsics: Mapping[str, np.ndarray]
    states: tuple[Any, Any]
    """Of simulator and imagination, to come back to."""


class Game:
    """One episode after the other, driven by commands. Belongs to the thread that made it.

    Args:
        task: A short name of `jepa_gym.TASKS`.
        obj: Object of the catalogue.
        split: None or a split of the suite.
        seed: Seed of the first episode.
        checkpoint: A world model with a decoder beside it.
        agent: Who plans on `plan`, of the registered agents that take a `model` alone.
        folder: Where recorded episodes go, a dataset.

    Raises:
        ValueError: If the model has no decoder.
    """

    def __init__(
        self,
        task: str = "grasp",
        obj: str = "cup",
        split: str | None = None,
        seed: int = 0,
        checkpoint: str = "default",
        agent: str = "mpc-cem",
        folder: Path = Path("play"),
    ) -> None:
        self.model = world_model(checkpoint)
        arguments = {"obj": obj, "split": split, "protocol": "one", "obs_mode": "both"}
        self.env: Any = environment(checkpoint, task, **arguments).unwrapped
        self.imagination = JEPALatentEnv(model=self.model, starts="given", clip_actions=True)
        self.agent: Any = make_agent(agent, model=self.model)
        self._decoder = DECODER.own(self.model)
        if self._decoder is None:
            raise ValueError(
                f"the checkpoint {checkpoint} has no decoder beside it, so nobody sees what it "
                f"imagines; train one with `{DECODER.command} --checkpoint FOLDER`"
            )
        self.task, self.seed, self.folder = task, seed, Path(folder)
        self.moments: list[Moment] = []
        self.abandoned: list[tuple[int, list[float], list[float]]] = []
        """Branches that were left: first step, energies in the simulator and imagined."""
        self.recording_since: int | None = None
        self.written: list[tuple[Path, list[Moment]]] = []
        """Folders of the episodes that were recorded, and what is in them."""
        self.message = ""
        self._goal = np.zeros(0)
        self.reset()

    @property
    def commands(self) -> dict[str, Callable[[], None]]:
        """What can be done, by name."""
        own = {
            "gripper": self.toggle_gripper,
            "plan": self.plan,
            "undo": self.undo,
            "imagine": self.imagine_from_here,
            "again": lambda: self.reset(self.seed),
            "reset": lambda: self.reset(self.seed + 1),
            "record": self.toggle_recording,
        }
        return {name: self._mover(name) for name in MOVES} | own

    def do(self, name: str) -> None:
        """Carry out one command; `message` says what came of it.

        Raises:
            ValueError: If there is no such command.
        """
        if name not in self.commands:
            raise ValueError(f"there is no command {name!r}; there are {', '.join(self.commands)}")
        self.message = ""
        self.commands[name]()

    # ---- commands

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; a running recording is written first."""
        if self.recording_since is not None:
            self.toggle_recording()
        self.seed = self.seed if seed is None else seed
        observation, info = self.env.reset(seed=self.seed)
        self.imagination.reset(options=start_options(observation))
        self._goal = self.model.encode(observation["goal_pixels"][None, None])[0, 0].cpu().numpy()
        self.moments, self.abandoned = [], []
        self._arrive(observation, info, 0.0, np.zeros(7, np.float32))

    def step(self, action: np.ndarray) -> None:
        """Carry out an action (7,) in the simulator and in imagination."""
        action = np.clip(action, self.env.action_space.low, self.env.action_space.high)
        state = self.imagination.get_state()["episodes"]["_states"][0, -1].cpu().numpy()
        goal_state = self.moments[0].observation["goal_state"]
        self.imagination.step(stopped(action, state, goal_state))
        observation, reward, _, _, info = self.env.step(action.astype(np.float32))
        self._arrive(observation, info, reward, action)

    def toggle_gripper(self) -> None:
        """Close an open gripper, open a closed one."""
        closed = self.moments[-1].observation["observation"][GRIPPER] > 0.3
        self._mover("open" if closed else "close")()

    def plan(self) -> None:
        """Let the agent choose one action from what the simulator shows."""
        try:
            action, _ = self.agent.predict(self.moments[-1].observation, None)
        except ValueError as error:  # a hand that was driven to where no agent goes
            self.message = f"the agent does not plan from here: {error}"
            return
        self.step(action)
        moved = ", ".join(f"{100 * x:.1f}" for x in action[:3])
        self.message = f"the agent moved by ({moved}) cm, gripper {action[GRIPPER]:+.1f}"

    def undo(self) -> None:
        """Go back one step, to try another way; the way that was left stays in the curves."""
        if len(self.moments) < 2:
            self.message = "this is the start"
            return
        if self.recording_since is not None and len(self.moments) - 1 <= self.recording_since:
            self.message = "the recording starts here"
            return
        first = len(self.moments) - 2
        if self.abandoned and self.abandoned[-1][0] == first + 1:
            _, real, imagined = self.abandoned.pop()  # the same branch, left farther back
        else:
            real, imagined = [self.moments[-1].real_energy], [self.moments[-1].imagined_energy]
        self.moments.pop()
        last = self.moments[-1]
        self.abandoned.append((first, [last.real_energy, *real], [last.imagined_energy, *imagined]))
        self.abandoned = self.abandoned[-LEFT_OUT_KEPT:]
        self.env.set_state(last.states[0])
        self.imagination.set_state(last.states[1])

    def imagine_from_here(self) -> None:
        """Let the imagination begin anew at what the simulator shows."""
        last = self.moments.pop()
        self.imagination.reset(options=start_options(last.observation))
        self._arrive(last.observation, {"is_success": last.success}, last.reward, last.action)

    def toggle_recording(self) -> None:
        """Begin to record, or write what was recorded as an episode and as a film beside it."""
        if self.recording_since is None:
            self.recording_since = len(self.moments) - 1
            self.message = "recording"
            return
        moments, self.recording_since = self.moments[self.recording_since :], None
        if len(moments) < 2:
            self.message = "nothing was recorded: no step was made"
            return
        path = self._write(moments)
        self.message = f"wrote {path}, {len(moments) - 1} steps"
        self.written.append((path, moments))

    # ---- what is told

    def seen(self, moments: list[Moment] | None = None) -> Seen:
        """Return moments, by default all of the episode, as a film shows them."""
        moments = self.moments if moments is None else moments
        views = [moment.observation for moment in moments]
        return Seen(
            goals=np.stack([view["goal_pixels"] for view in views]),
            real=np.stack([view["pixels"] for view in views]),
            imagined=np.stack([moment.imagined for moment in moments]),
            energies={
                "real": [moment.real_energy for moment in moments],
                "imagined": [moment.imagined_energy for moment in moments],
            },
            success=[moment.success for moment in moments],
        )

    def facts(self) -> dict[str, Any]:
        """Return numbers and words that a page shows (JSON types)."""
        last = self.moments[-1]
        return {
            "task": self.task,
            "object": self.env.obj,
            "seed": self.seed,
            "step": len(self.moments) - 1,
            "real": [round(moment.real_energy, 4) for moment in self.moments],
            "imagined": [round(moment.imagined_energy, 4) for moment in self.moments],
            "distance_cm": [round(100 * moment.distance_m, 2) for moment in self.moments],
            "abandoned": self.abandoned,
            "success": last.success,
            "recording": self.recording_since is not None,
            "message": self.message,
            "state": [round(float(x), 3) for x in last.observation["observation"]],
        }

    # ---- internals

    def _mover(self, name: str) -> Callable[[], None]:
        column, sign = MOVES[name]
        action = np.zeros(7, np.float32)
        lengths = {GRIPPER: 1.0, 5: TURN_RAD}
        action[column] = sign * lengths.get(column, STEP_SHARE * self.model.config.frame.max_move_m)
        return lambda: self.step(action)

    def _arrive(
        self,
        observation: Mapping[str, np.ndarray],
        info: Mapping[str, Any],
        reward: float,
        action: np.ndarray,
    ) -> None:
        snapshot = self.imagination.get_state()
        latent = snapshot["episodes"]["_latents"][0, -1].cpu().numpy()
        real = self.model.encode(observation["pixels"][None, None])[0, 0].cpu().numpy()
        hand = (observation["observation"] - observation["goal_state"])[:3]
        cameras = {name: self.env.data.camera(name) for name in self.env.cameras}
        self.moments.append(
            Moment(
                observation=observation,
                imagined=self._drawn(latent),
                real_energy=float(energies(real, self._goal)),
                imagined_energy=float(energies(latent, self._goal)),
                distance_m=float(np.linalg.norm(hand)),
                success=bool(info["is_success"]),
                reward=float(reward),
                action=action,
                extrinsics={n: droid_extrinsics(c.xpos, c.xmat) for n, c in cameras.items()},
                states=(self.env.get_state(), snapshot),
            )
        )

    @torch.no_grad()
    def _drawn(self, latent: np.ndarray) -> np.ndarray:
        """Return the picture (Y, X, 3) uint8 of a latent (N, D)."""
        assert self._decoder is not None
        picture = self._decoder(torch.from_numpy(latent)[None].to(self.model.device))[0]
        return (255 * picture.clamp(0, 1)).round().byte().cpu().numpy()

    def _write(self, moments: list[Moment]) -> Path:
        """Write an episode of a dataset; return its folder."""
        views = [moment.observation for moment in moments]
        pictures = np.stack([view["pixels"] for view in views])
        names = self.env.cameras
        taken = {folder.name for folder in (self.folder / "episodes").glob("*")}
        number = next(n for n in range(len(taken) + 1) if f"play-{n:05d}" not in taken)
        episode = Episode(
            frames=dict(zip(names, np.split(pictures, len(names), axis=2), strict=True)),
            states=np.stack([view["observation"] for view in views]).astype(np.float64),
            extrinsics={n: np.stack([m.extrinsics[n] for m in moments]) for n in names},
            actions=np.stack([moment.action for moment in moments[1:]]),
            rewards=np.array([moment.reward for moment in moments[1:]]),
            success=np.array([moment.success for moment in moments[1:]]),
            sim_state=np.stack([moment.states[0]["physics"] for moment in moments]),
            timestamps_s=np.arange(len(moments)) * self.env.step_s,
            metadata={
                "step_s": self.env.step_s,
                "kind": "play",
                "seed": self.seed,
                "object": self.env.obj,
                "variation": self.env.variation.to_dict(),
            },
        )
        path = write_episode(self.folder / "episodes" / f"play-{number:05d}", episode)
        frame = self.model.config.frame
        write_index(self.folder, index_fields(names, frame.height, frame.step_s, frame.max_move_m))
        return path
