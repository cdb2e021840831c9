"""Drive the arm by hand, real beside imagined, in a browser or by a script: `jepa-gym play`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imageio.v3 as iio

from jepa_gym import TASKS
from jepa_gym.benchmarks.look import FRAMES_PER_SECOND, Seen, film
from jepa_gym.benchmarks.options import known_names
from jepa_gym.commands import run_command
from jepa_gym.files import atomic_write

_LOG = logging.getLogger(__name__)
AGENTS = ("mpc-cem", "mpc-icem", "mpc-mppi", "gc-idm", "imagined-policy")
"""Who may plan: agents that need a world model and nothing else."""
MAX_COUNT = 1000
STOPPED = "Recorded episodes are kept."


@dataclass(frozen=True)
class Arguments:
    """Drive the arm in a browser, the simulator beside what the world model imagines."""

    task: str = "grasp"
    """What to do: reach, grasp, reach-with-object, pick-place."""
    obj: str = "cup"
    """With what, of the catalogue."""
    split: str = "plain"
    """How it looks: plain, or a split of docs/tasks.md."""
    seed: int = 0
    """Seed of the first episode; every new start takes the next one."""
    agent: str = "mpc-cem"
    """Who plans on "plan from here"."""
    checkpoint: str = "default"
    """World model, as `WorldModel.from_pretrained` takes it; with a decoder beside it."""
    output: Path = Path("play")
    """Folder of what is recorded: a dataset of episodes, and a film of each."""
    host: str = "127.0.0.1"
    """Address to listen at. Whoever can reach it may drive; over ssh, forward the port."""
    port: int = 8765
    """Port of the page; 0 takes one that is free."""
    script: str | None = None
    """Commands instead of a browser, such as "forward*3 close plan*4 undo up"."""
    video: Path | None = None
    """Film of the script, .mp4; play.mp4 by default."""

    def __post_init__(self) -> None:
        """Check names.

        Raises:
            ValueError: If one is unknown, a number is out of range, or the film is no .mp4.
        """
        from jepa_gym.envs.physics.objects import OBJECTS
        from jepa_gym.envs.splits import SPLITS

        known_names("task", [self.task], TASKS)
        known_names("obj", [self.obj], OBJECTS)
        known_names("split", [self.split], ("plain", *SPLITS))
        known_names("agent", [self.agent], AGENTS)
        if not 0 <= self.port < 2**16:
            raise ValueError(f"`port` must be in [0, 65535], got {self.port}")
        if self.video is not None and self.script is None:
            raise ValueError(
                "`video` is the film of a script; give --script, or record in the page"
            )
        if self.video is not None and self.video.suffix != ".mp4":
            raise ValueError(f"`video` must end in .mp4, got {self.video}")
        if self.script is not None:
            commands_of(self.script)


def commands_of(script: str) -> list[str]:
    """Return the commands of a script, "NAME" or "NAME*COUNT" between spaces.

    Raises:
        ValueError: If a count is none.
    """
    commands = []
    for word in script.split():
        name, star, count = word.partition("*")
        if star and not (count.isdecimal() and 0 < int(count) <= MAX_COUNT):
            raise ValueError(f"`script` has {word!r}: a count must be in [1, {MAX_COUNT}]")
        commands += [name] * (int(count) if star else 1)
    return commands


def write_film(seen: Seen, title: str, path: Path) -> None:
    """Write moments as a film, goal, simulator and imagination over the energy."""
    frames = film(seen, title)
    even = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    with atomic_write(path) as file:
        kind = {"plugin": "pyav", "extension": ".mp4", "codec": "libx264"}
        iio.imwrite(file, even, fps=FRAMES_PER_SECOND, **kind)


def run(arguments: Arguments) -> None:
    """Play by the script, or serve the page until Ctrl-C."""
    import torch

    from jepa_gym.benchmarks.play_game import Game

    def make() -> Game:
        torch.set_num_threads(1)  # one frame a step: more wait for each other as soon as others run
        split = None if arguments.split == "plain" else arguments.split
        return Game(
            arguments.task, arguments.obj, split, arguments.seed, arguments.checkpoint,
            arguments.agent, arguments.output,
        )  # fmt: skip

    def film_recorded(game: Game, filmed: list[Path]) -> None:
        """Write the film of what was recorded since the last call."""
        for folder, moments in game.written[len(filmed) :]:
            path = arguments.output / f"{folder.name}.mp4"
            write_film(game.seen(moments), f"{arguments.task}, {arguments.obj}", path)
            filmed.append(path)
            game.message += f" and {path}"

    after = partial(film_recorded, filmed=[])
    if arguments.script is not None:
        game = make()
        seen = [game.moments[0]]
        for name in commands_of(arguments.script):
            game.do(name)
            after(game)
            if game.message:
                _LOG.info(f"{name}: {game.message}")
            seen.append(game.moments[-1])
        path = arguments.video or Path("play.mp4")
        write_film(game.seen(seen), f"{arguments.task}, {arguments.obj}", path)
        _LOG.info(f"wrote {path}")
        return
    try:
        from jepa_gym.benchmarks.play_server import Server, serve
    except ModuleNotFoundError as error:
        raise ImportError(
            f'`jepa-gym play` in a browser needs {error.name}: pip install "jepa-gym[play]"; '
            "--script works without it"
        ) from error

    def ready(port: int) -> None:
        _LOG.info(
            f"open http://{arguments.host}:{port} (over ssh: ssh -L {port}:127.0.0.1:{port} HOST); "
            "Ctrl-C ends"
        )

    serve(Server(make, after), arguments.host, arguments.port, ready)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return run_command(run, Arguments, arguments, STOPPED)


if __name__ == "__main__":
    sys.exit(main())
