"""Speed of planning, as ratios in one run.

`python benchmarks/planning_speed.py` measures, by turns and with one thread: our planner against
the published algorithm written plainly (`plain_planner.py`), with the same weights and candidates;
an action of the default model; many environments planned in one call; and the engine against plain
matrix products of the shapes it multiplies.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from jepa_gym.agents.mpc import MPCAgent
from jepa_gym.agents.planners.cem import CEM, CEMConfig
from jepa_gym.benchmarks import plain_planner
from jepa_gym.benchmarks.encoder_speed import timings
from jepa_gym.checkpoint.start_frames import read_starts
from jepa_gym.checkpoint.vjepa2_ac import TRAIN_FRAMES
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.normalisation import layer_norm
from jepa_gym.rollout import chunk_size
from jepa_gym.world_model import WorldModel

Part = Literal["recompute", "action", "batch", "arithmetic"]
PARTS: tuple[Part, ...] = ("recompute", "action", "batch", "arithmetic")
CASES = {"horizon 2, context 1": (2, 1, 2.0), "horizon 5, context 4": (5, 4, 6.0)}
"""Horizon, frames of the context, and the bar on the ratio to the plain planner."""
AGREEMENT = 1e-4
ACTION_BAR_S = 0.3
BATCH_AIM = 1.5
ARITHMETIC_BAR = 0.6
QUICK = {"samples": 8, "iterations": 1, "rounds": 2, "envs": 4}
_LATENT_OVER_WIDTH = 1408 / 1024
_PATCH = 8


@dataclass(frozen=True)
class PlanningSpeedConfig:
    """Measure the planner's speed on the CPU, in float32."""

    parts: tuple[Part, ...] = PARTS
    """What to measure."""
    sides: tuple[int, ...] = (8,)
    """Rows and columns of tokens: 8 gives 66 tokens a frame, 16 gives the published 258."""
    width: int = 256
    """Width of the published shape, scaled down; its depth is `depth`, its heads have 64."""
    depth: int = 6
    """Blocks of it."""
    samples: int = 25
    """Candidates an iteration, for the comparison with the plain planner and the arithmetic; 25 and
    2 iterations are those of the published notebook."""
    iterations: int = 2
    """Iterations, for that comparison."""
    envs: int = 16
    """Environments planned in one call."""
    rounds: int = 3
    """Measurements of each, by turns; medians count."""
    threads: int = 1
    """Threads of all."""
    seed: int = 0
    """Of weights, contexts and candidates."""
    quick: bool = False
    """A look in a minute: 8 samples, 1 iteration, 2 rounds, 4 environments."""
    output: Path | None = None
    """JSON file for the figures."""

    def __post_init__(self) -> None:
        """Check ranges and apply `quick`.

        Raises:
            ValueError: a number is out of its range, or nothing is to be measured.
        """
        if self.quick:
            for name, value in QUICK.items():
                object.__setattr__(self, name, value)
        least = {"samples": 2, "iterations": 1, "envs": 1, "rounds": 1, "threads": 1, "depth": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"`{name}` must be at least {value}, got {getattr(self, name)}")
        if self.width < 64 or self.width % 64:
            raise ValueError(f"`width` must be a positive multiple of 64, got {self.width}")
        if not self.parts or not self.sides or min(self.sides) < 1:
            raise ValueError("`parts` must name at least one, and `sides` be positive")


def published_shape(config: PlanningSpeedConfig, side: int) -> WorldModel:
    """Create a random model of the published predictor's shape, scaled down."""
    latent_dim = round(config.width * _LATENT_OVER_WIDTH)
    torch.manual_seed(config.seed)
    predictor = PredictorConfig(config.width, config.depth, config.width // 64, rope="v2")
    encoder = EncoderConfig(
        embed_dim=32, depth=1, num_heads=1, latent_dim=latent_dim, patch_size=_PATCH
    )
    frame = FrameSpec(height=side * _PATCH, width=side * _PATCH, cameras=("left",))
    sizes = WorldModelConfig(frame, encoder, predictor, train_frames=TRAIN_FRAMES)
    model = WorldModel(sizes).eval()
    with torch.no_grad():
        model.predictor.action_encoder.weight.mul_(20)  # untrained, actions would hardly matter
    return model


def problem(model: WorldModel, context: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return random latents (1, T, N, D), states (1, T, 7) and a goal (1, N, D)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, context + 1, model.config.num_tokens, model.config.encoder.latent_dim)
    latents = layer_norm(torch.randn(shape, generator=generator))
    return latents[:, 1:], torch.randn(1, context, 7, generator=generator) / 5, latents[:, 0]


def figures_of(forwards: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Return median seconds, by the clock and of the processor, after one call of each."""
    for forward in forwards.values():
        forward()
    wall, cpu = timings(forwards, rounds)
    return {
        name: {"wall_s": statistics.median(wall[name]), "cpu_s": statistics.median(cpu[name])}
        for name in forwards
    }


def recompute(config: PlanningSpeedConfig, side: int, case: str) -> dict[str, Any]:
    """Compare one plan of ours with that of the plain planner: same search, same candidates."""
    horizon, context, bar = CASES[case]
    model = published_shape(config, side)
    latents, states, goal = problem(model, context, config.seed)
    elites = min(10, config.samples)
    search = CEM(
        CEMConfig(
            samples=config.samples,
            iterations=config.iterations,
            elites=elites,
            horizon=horizon,
        )
    )
    plans = {}

    def plan(name: str, costs: Callable[[Tensor], Tensor]) -> None:
        plans[name] = search.plan(costs, 1, torch.Generator().manual_seed(config.seed))

    def ours() -> None:
        start = model.prepare(latents, states)
        plan("jepa_gym", lambda actions: start.energy(actions, goal))

    def plain() -> None:
        given = model, latents, states
        plan("plain", lambda actions: plain_planner.energies(*given, actions, goal))

    found = figures_of({"plain": plain, "jepa_gym": ours}, config.rounds)
    a, b = plans["plain"], plans["jepa_gym"]
    pairs = ((a.actions, b.actions), (a.candidate_costs, b.candidate_costs))
    return {
        "case": case,
        "tokens": side * side + 2,
        "bar": bar,
        "rows": found,
        "ratio": found["plain"]["wall_s"] / found["jepa_gym"]["wall_s"],
        "cpu_ratio": found["plain"]["cpu_s"] / found["jepa_gym"]["cpu_s"],
        "difference": max(float((x - y).abs().max()) for x, y in pairs),
    }


def observations(model: WorldModel, count: int) -> dict[str, np.ndarray]:
    """Return `count` start frames of a checkpoint with their goals, as pixel observations."""
    starts = read_starts(model.folder)
    index = np.arange(count) % len(starts.frames)
    return {
        "observation": starts.states[index],
        "pixels": starts.frames[index],
        "goal_pixels": starts.goal_frames[index],
    }


def act(agent: MPCAgent, observation: dict[str, np.ndarray]) -> None:
    """Take two actions of every episode; at the second, planning may know more than one frame."""
    starts, memory = np.ones(len(observation["pixels"]), bool), None
    for begins in (starts, ~starts):
        _, memory = agent.act(observation, memory, begins, True)


def action(config: PlanningSpeedConfig) -> dict[str, Any]:
    """Measure an action of the default model at the planner's default budget, encoding included."""
    agent = MPCAgent("default")
    observation = observations(agent.model, 1)
    found = figures_of({"two actions": lambda: act(agent, observation)}, config.rounds)
    return {name: value / 2 for name, value in found["two actions"].items()}


def batch(config: PlanningSpeedConfig) -> dict[str, Any]:
    """Compare planning for many environments in one call with one after the other."""
    agent = MPCAgent("default")
    whole = observations(agent.model, config.envs)
    rows = [{k: x[i : i + 1] for k, x in whole.items()} for i in range(config.envs)]
    found = figures_of(
        {
            "one by one": lambda: [act(agent, row) for row in rows],
            "one call": lambda: act(agent, whole),
        },
        config.rounds,
    )
    ratio = found["one by one"]["wall_s"] / found["one call"]["wall_s"]
    cpu_ratio = found["one by one"]["cpu_s"] / found["one call"]["cpu_s"]
    return {"envs": config.envs, "rows": found, "ratio": ratio, "cpu_ratio": cpu_ratio}


Product = tuple[int, int, int, int]
"""Batch, rows, inner size, columns of a matrix product."""


def products(model: WorldModel, samples: int, horizon: int, context: int) -> list[Product]:
    """Return the matrix products that imagining candidates takes, besides those of the context.

    The small ones of action and state tokens are left out, and so is what the candidates share.
    """
    sizes, latent_dim = model.config.predictor, model.config.encoder.latent_dim
    width, heads, hidden = sizes.embed_dim, sizes.num_heads, int(sizes.embed_dim * sizes.mlp_ratio)
    patches, found = model.config.num_tokens, []
    for step in range(horizon):
        if step:
            found.append((1, samples * patches, latent_dim, width))
        for number in range(sizes.depth):
            tokens = patches + 2 if number < sizes.depth - 1 else patches
            seen, rows = (patches + 2) * (context + step), samples * tokens
            if step or number:  # else shared
                found.append((1, samples * (patches + 2), width, 3 * width))
                found += [
                    (samples * heads, tokens, width // heads, seen),
                    (samples * heads, tokens, seen, width // heads),
                ]
            found += [(1, rows, width, width), (1, rows, width, hidden), (1, rows, hidden, width)]
        found.append((1, samples * patches, width, latent_dim))
    return found


def multiplier(shapes: list[Product]) -> Callable[[], None]:
    """Return a function that does all the products, each from operands of its own shape."""
    memory = torch.randn(max(max(b * m * k, b * k * n) for b, m, k, n in shapes))
    operands = [
        (memory[: b * m * k].view(b, m, k), memory[: b * k * n].view(b, k, n))
        for b, m, k, n in shapes
    ]

    def multiply() -> None:
        for left, right in operands:
            if len(left) == 1:
                torch.mm(left[0], right[0])
            else:
                torch.bmm(left, right)

    return multiply


def arithmetic(model: WorldModel, samples: int, case: tuple[int, int], rounds: int) -> dict:
    """Compare imagining candidates with plain matrix products of the same shapes."""
    horizon, context = case
    latents, states, goal = problem(model, context, 0)
    start, chunk = (
        model.prepare(latents, states),
        min(samples, chunk_size(model.predictor, horizon)),
    )
    candidates = torch.randn(1, samples // chunk * chunk, horizon, 7) / 20
    shapes = products(model, chunk, horizon, context) * (samples // chunk)
    forwards = {
        "engine": lambda: start.energy(candidates, goal, chunk),
        "products": multiplier(shapes),
    }
    with torch.inference_mode():
        found = figures_of(forwards, rounds)
    flops = sum(2 * b * m * k * n for b, m, k, n in shapes)
    return {
        "gflop": flops / 1e9,
        "rows": found,
        "gflop_per_s": {name: flops / 1e9 / row["cpu_s"] for name, row in found.items()},
        "share": found["products"]["wall_s"] / found["engine"]["wall_s"],
        "cpu_share": found["products"]["cpu_s"] / found["engine"]["cpu_s"],
    }


def run(config: PlanningSpeedConfig) -> dict[str, Any]:
    """Measure `config.parts`, print each as it is ready, and return all figures."""
    torch.set_num_threads(config.threads)
    figures: dict[str, Any] = {"config": asdict(config) | {"output": None}}
    figures["torch"] = torch.__version__
    if "recompute" in config.parts:
        figures["recompute"] = []
        for side in config.sides:
            for case in CASES:
                figures["recompute"].append(row := recompute(config, side, case))
                print_ratio(f"{row['tokens']} tokens, {case}", row, f"bar {row['bar']:.1f}")
                agree = "agree" if row["difference"] <= AGREEMENT else "DISAGREE"
                print(f"  results {agree}: largest difference {row['difference']:.1e}")
    if "action" in config.parts:
        figures["action"] = row = action(config)
        print(f"default model: {row['wall_s']:.3f} s an action ", end="")
        print(f"({row['cpu_s']:.3f} CPU s; bar {ACTION_BAR_S})")
    if "batch" in config.parts:
        figures["batch"] = row = batch(config)
        print_ratio(f"{row['envs']} environments, two actions", row, f"aim {BATCH_AIM}")
    if "arithmetic" in config.parts:
        default, samples = WorldModel.from_pretrained("default"), config.samples
        scaled = published_shape(config, config.sides[0])
        context = default.config.context_frames
        name = f"default model, horizon 1, context {context}"
        cases = {name: (default, 2 * samples, (1, context))}
        for name, (horizon, context, _) in CASES.items():
            cases[f"{config.sides[0] ** 2 + 2} tokens, {name}"] = (
                scaled,
                samples,
                (horizon, context),
            )
        figures["arithmetic"] = {}
        for name, case in cases.items():
            figures["arithmetic"][name] = row = arithmetic(*case, config.rounds)
            speed = row["gflop_per_s"]
            print(
                f"{name}: {speed['engine']:.0f} of {speed['products']:.0f} GFLOP per CPU-s, ",
                end="",
            )
            print(f"share {row['share']:.2f} (bar {ARITHMETIC_BAR}), of CPU {row['cpu_share']:.2f}")
    return figures


def print_ratio(title: str, row: dict[str, Any], bar: str) -> None:
    """Print the rows of a comparison and its ratio."""
    print(title)
    for name, seconds in row["rows"].items():
        print(f"  {name:12}{seconds['wall_s']:9.3f} s{seconds['cpu_s']:9.3f} CPU s")
    print(f"  ratio {row['ratio']:.2f} ({bar}), of CPU seconds {row['cpu_ratio']:.2f}")


def main() -> None:
    """Run the command line."""
    config = tyro.cli(PlanningSpeedConfig, description=PlanningSpeedConfig.__doc__)
    figures = run(config)
    if config.output is not None:
        config.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
