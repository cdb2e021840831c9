"""The `jepa-gym` command: `jepa-gym COMMAND [flags]`.

It only knows where each command lives; the module is imported when its command is called, so that
`jepa-gym --help` answers at once. `jepa-gym COMMAND --help` lists the flags of one command.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import jepa_gym
from jepa_gym.commands import guarded
from jepa_gym.names import did_you_mean, resolve

# command -> (module:function, one line for --help)
TRAINING, BENCHMARKS = "jepa_gym.training", "jepa_gym.benchmarks"
COMMANDS: dict[str, tuple[str, str]] = {
    "collect": (f"{TRAINING}.collection.collect:main", "record episodes in the simulator"),
    "convert": (
        f"{TRAINING}.data.convert:main",
        "write recorded data as a dataset, LeRobot's, or for Rerun",
    ),
    "inspect": (f"{TRAINING}.data.inspection:main", "say what recorded data holds, and draw it"),
    "make-index": (f"{TRAINING}.data.make_index:main", "make a dataset of others' recordings"),
    "joint": (f"{TRAINING}.recipes.joint:main", "train encoder and predictor together (default)"),
    "pretrain": (f"{TRAINING}.recipes.pretrain:main", "masked pre-training of an encoder"),
    "posttrain": (f"{TRAINING}.recipes.posttrain:main", "train a predictor on a frozen encoder"),
    "probe": (f"{TRAINING}.recipes.probe:main", "read from an encoder's tokens what they hold"),
    "decode": (f"{TRAINING}.recipes.decode:main", "train a decoder that draws a model's latents"),
    "imagine-policy": (
        f"{TRAINING}.recipes.imagined_policy:main",
        "train a policy in imagination alone, by gradients through the model",
    ),
    "amortise": (
        f"{TRAINING}.recipes.amortise:main",
        "train an inverse model that proposes the way to a goal",
    ),
    "clone": (
        f"{TRAINING}.recipes.clone:main",
        "clone behaviour on states, a baseline without a world model",
    ),
    "correct": (
        f"{TRAINING}.collection.correct:main",
        "record what an expert would do where an inverse model acts",
    ),
    "instructed-scenes": (
        f"{TRAINING}.collection.instructed_scenes:main",
        "record scenes and what they look like after an instruction",
    ),
    "instruct": (
        f"{TRAINING}.recipes.instruct:main",
        "train what turns an instruction in words into a goal",
    ),
    "success-detector": (
        f"{TRAINING}.recipes.success:main",
        "train what tells from two latents whether the goal is reached",
    ),
    "surprise": (f"{TRAINING}.recipes.surprise_video:main", "score how surprising a recording is"),
    "train-rl": (
        f"{TRAINING}.recipes.train_rl:main",
        "train a reinforcement learner, in the simulator or in imagination",
    ),
    "evaluate": (f"{BENCHMARKS}.reach_grasp:main", "run the reach and grasp benchmark"),
    "report": (f"{BENCHMARKS}.run_report:main", "write one HTML page about a run or results"),
    "look": (f"{BENCHMARKS}.look:main", "film one episode, real beside imagined"),
    "plan": (f"{BENCHMARKS}.look:main", "plan to a goal image or an instruction, and film it"),
    "play": (f"{BENCHMARKS}.play:main", "drive by hand, real beside imagined, in a browser"),
    "instructions": (
        f"{BENCHMARKS}.instructions:main",
        "measure how well an agent does what it is told in words",
    ),
    "compare": (
        f"{BENCHMARKS}.compare:main",
        "compare agents over tasks, in the simulator and in imagination",
    ),
    "imagined-vs-real": (
        f"{BENCHMARKS}.imagined_vs_real:main",
        "measure how well imagination tells how good a policy is",
    ),
    "camera-sweep": (f"{BENCHMARKS}.camera_sweep:main", "fit moves seen from other angles"),
    "download": ("jepa_gym.checkpoint.download:main", "get published weights, or list them"),
}


def usage() -> str:
    """Return the text of `jepa-gym --help`."""
    width = max(len(name) for name in COMMANDS)
    rows = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: jepa-gym COMMAND [flags]",
            "",
            "commands:",
            *rows,
            "",
            "`jepa-gym COMMAND --help` lists the flags of a command.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after `jepa-gym`; None takes them from `sys.argv`.

    Returns:
        The exit status, as `jepa_gym.commands` lists them; 2 for a command that does not exist.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(f"jepa-gym {jepa_gym.__version__}")
        return 0
    name, flags = words[0], words[1:]
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        print(f"jepa-gym: there is no command `{name}`.{hint}\n\n{usage()}", file=sys.stderr)
        return 2
    if COMMANDS[name][0].startswith(TRAINING):
        # Threads that spin while they wait for each other make a step ten times slower as soon as
        # anything else runs on the same cores. Read when torch is first imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.argv = [f"jepa-gym {name}", *flags]  # tyro reads the flags and the program name from here
    return guarded(lambda: resolve({name: COMMANDS[name][0]}, "command", name)())


if __name__ == "__main__":
    sys.exit(main())
