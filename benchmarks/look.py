"""A first look: one episode, real beside imagined, as a film. `jepa-gym look`, `jepa-gym plan`.

An agent plays an episode in the simulator. From its first frame the world model imagines the same
moves, step by step, and a decoder draws what it imagines; no later frame is looked at. With an
instruction in words, the goal is imagined, too, and drawn by the decoder.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np

from jepa_gym import TASKS
from jepa_gym.agents import AGENTS, make_agent
from jepa_gym.benchmarks.episodes import Cell, Job, environment, make_cell_agent, world_model
from jepa_gym.benchmarks.imagined import imagine
from jepa_gym.benchmarks.instructions import Task, task_of
from jepa_gym.benchmarks.options import known_names
from jepa_gym.commands import run_command
from jepa_gym.files import atomic_write
from jepa_gym.instructions import BESIDE, MOVES, kind_of_words

_LOG = logging.getLogger(__name__)

FRAMES_PER_SECOND = 4
SCALE = 2


@dataclass(frozen=True)
class Arguments:
    """Film one episode: the goal, what happens, what the world model imagines, and the energy."""

    task: str = "grasp"
    """What to do: reach, grasp, reach-with-object, pick-place."""
    obj: str = "cup"
    """With what, of the catalogue."""
    split: str = "plain"
    """How it looks: plain, or a split of docs/tasks.md."""
    protocol: str = "one"
    """Which goal images are shown: published, suite, one."""
    agent: str = "mpc-cem"
    """Who acts, of the registered agents that need no file."""
    instruction: str | None = None
    """Tell the agent in words what to do, such as 'put the hand above the cup', instead of showing
    it a goal image; see docs/instructions.md for what can be said."""
    seed: int = 0
    """Seed of the episode."""
    checkpoint: str = "default"
    """World model, as `WorldModel.from_pretrained` takes it; with a decoder beside it."""
    output: Path = Path("look.mp4")
    """File of the film: .mp4 or .gif."""

    def __post_init__(self) -> None:
        """Check names.

        Raises:
            ValueError: If one is unknown, or the file's kind.
        """
        from jepa_gym.envs.physics.objects import OBJECTS
        from jepa_gym.envs.splits import SPLITS

        known_names("task", [self.task], TASKS)
        known_names("obj", [self.obj], OBJECTS)
        known_names("split", [self.split], ("plain", *SPLITS))
        known_names("agent", [self.agent], AGENTS)
        object.__setattr__(self, "output", Path(self.output))
        if self.output.suffix not in (".mp4", ".gif"):
            raise ValueError(f"`output` must end in .mp4 or .gif, got {self.output}")


@dataclass(frozen=True, slots=True)
class Seen:
    """One episode; T steps."""

    goals: np.ndarray
    """(T + 1, Y, X, 3) uint8, the goal image that was active."""
    real: np.ndarray
    """(T + 1, Y, X, 3) uint8."""
    imagined: np.ndarray
    """(T + 1, Y, X, 3) uint8, decoded; the first is the real frame's latent."""
    energies: dict[str, list[float]]
    """`real` and `imagined`: (T + 1,) to the goal that was active."""
    success: list[bool] | None
    """(T + 1,); None where nobody can tell: an instruction in words of one's own."""


def play(arguments: Arguments) -> Seen:
    """Play the episode, imagine its moves and decode them."""
    import torch

    from jepa_gym import poses, viz
    from jepa_gym.latent.rewards import energies

    model = world_model(arguments.checkpoint)
    cell = Cell(arguments.agent, arguments.task, arguments.obj, arguments.split, arguments.protocol)
    env = environment(
        arguments.checkpoint,
        cell.task,
        obj=cell.object,
        split=None if cell.split == "plain" else cell.split,
        protocol=cell.protocol,
        obs_mode="both",
    )
    agent: Any = make_cell_agent(env, Job(cell, arguments.seed, arguments.checkpoint))
    observation, info = env.reset(seed=arguments.seed)
    told, task = {}, None
    if arguments.instruction is not None:
        told, task = {"instruction": arguments.instruction}, _asked(env, arguments.instruction)
        agent = make_agent("instructed", model=model, agent=agent)
    known = not told or task is not None

    def reached() -> bool:
        return task.satisfied(env.unwrapped, info) if task else bool(info["is_success"])

    seen: list[Any] = [observation]
    success, imagined_goals, memory, done = [reached()], [], None, False
    while not done:
        action, memory = agent.predict(observation | told, memory, episode_start=len(seen) == 1)
        if told:
            assert memory is not None
            imagined_goals.append(memory.goals[0])
        observation, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
        seen.append(observation)
        success.append(reached())
    states = torch.from_numpy(np.stack([view["observation"] for view in seen]))
    moves = poses.difference(states[:-1], states[1:]).numpy()
    real, goals = (np.stack([view[key] for view in seen]) for key in ("pixels", "goal_pixels"))
    _, rolled = imagine(arguments.checkpoint, seen[0], len(moves), moves=moves)
    latents, wanted = (model.encode(x[None])[0].float().cpu().numpy() for x in (real, goals))
    if told:
        wanted = np.stack([*imagined_goals, imagined_goals[-1]])
        goals = viz.decoded(model, wanted)
    rolled = np.concatenate([latents[:1], rolled])
    curves = {
        "real": energies(latents, wanted).tolist(),
        "imagined": energies(rolled, wanted).tolist(),
    }
    return Seen(goals, real, viz.decoded(model, rolled), curves, success if known else None)


def _asked(env: Any, instruction: str) -> Task | None:
    """Return what an instruction asks for, if its words are those of a template."""
    kind = kind_of_words(instruction)
    judged = kind in (*BESIDE, *MOVES, "grasp", "lift") and hasattr(env.unwrapped, "grasp_point")
    return task_of(env.unwrapped, kind) if kind and judged else None


def film(seen: Seen, title: str, goal_title: str = "goal image") -> np.ndarray:
    """Draw the episode: goal, reality and imagination side by side, the energy below.

    Args:
        seen: The episode.
        title: Above everything.
        goal_title: Above the goal.

    Returns:
        (T + 1, Y, X, 3) uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from jepa_gym import viz

    height, width = SCALE * seen.real.shape[1], SCALE * seen.real.shape[2]
    figure = Figure(figsize=((3 * width + 80) / 100, (height + 300) / 100), dpi=100,
                    layout="constrained")  # fmt: skip
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3, height_ratios=[height, 210])
    panels = [figure.add_subplot(grid[0, column]) for column in range(3)]
    below: Any = figure.add_subplot(grid[1, :])
    titles = (goal_title, "simulator", "imagined from the first frame")
    colours = (viz.GOAL, viz.REAL, viz.IMAGINED)
    images = []
    for panel, told, colour, picture in zip(
        panels, titles, colours, (seen.goals, seen.real, seen.imagined), strict=True
    ):
        panel.set(title=told, xticks=[], yticks=[])
        for edge in panel.spines.values():
            edge.set(color=colour, linewidth=3)
        images.append(panel.imshow(picture[0], interpolation="bilinear"))
    frames = []
    for step in range(len(seen.real)):
        for image, pictures in zip(images, (seen.goals, seen.real, seen.imagined), strict=True):
            image.set_data(pictures[step])
        below.clear()
        for name, colour in (("real", viz.REAL), ("imagined", viz.IMAGINED)):
            values = seen.energies[name]
            below.plot(values, color=colour, alpha=0.25)
            below.plot(values[: step + 1], color=colour, marker=".", label=name)
        highest = max(map(max, seen.energies.values()))
        below.set(xlabel="step of 0.25 s", ylabel="energy to the goal", ylim=(0, 1.08 * highest))
        below.legend(loc="upper right", fontsize=9)
        outcome = ", success" if seen.success and seen.success[step] else ""
        figure.suptitle(f"{title}, step {step}{outcome}")
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(frames)


def run(arguments: Arguments) -> Path:
    """Play, film and write.

    Returns:
        The film's file.
    """
    seen = play(arguments)
    title = f"{arguments.agent}: {arguments.task}, {arguments.obj}, {arguments.split}"
    goal_title = "goal image"
    if arguments.instruction is not None:
        title, goal_title = f"“{arguments.instruction}”", "goal, imagined from the words"
    frames = film(seen, title, goal_title)
    frames = np.concatenate([frames, frames[-1:].repeat(FRAMES_PER_SECOND, axis=0)])
    with atomic_write(arguments.output) as file:
        if arguments.output.suffix == ".gif":
            pace = 1000 / FRAMES_PER_SECOND
            iio.imwrite(file, frames[:, ::2, ::2], extension=".gif", duration=pace, loop=0)
        else:
            even = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
            kind = {"plugin": "pyav", "extension": ".mp4", "codec": "libx264"}
            iio.imwrite(file, even, fps=FRAMES_PER_SECOND, **kind)
    end = "the end" if seen.success is None else "success" if seen.success[-1] else "no success"
    _LOG.info(f"{end} after {len(seen.real) - 1} steps; wrote {arguments.output}")
    return arguments.output


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return run_command(run, Arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
