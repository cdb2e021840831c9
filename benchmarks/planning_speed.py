"""Speed of planning, as ratios in one run.

`python benchmarks/planning_speed.py` measures, by turns and with one thread: our planner against
the published algorithm written plainly (`plain_planner.py`), with the same weights and candidates;
an action of the default model; many environments planned in one call; and the engine against plain
matrix products of the shapes it multiplies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from jepa_gym.agents.mpc import MPCAgent
from jepa_gym.agents.planners.cem import CEM, CEMConfig
from jepa_gym.benchmarks import plain_planner
from jepa_gym.benchmarks.results import Record
from jepa_gym.benchmarks.timing import (
    Measurement,
    command,
    comparison,
    medians,
    print_comparison,
)
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
_LATENT_OVER_WIDTH = 1408 / 1024
_PATCH = 8


@dataclass(frozen=True)
class PlanningSpeedConfig(Measurement):
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
    threads: int = 1
    """Threads of all."""
    seed: int = 0
    """Of weights, contexts and candidates."""

    QUICK = {"samples": 8, "iterations": 1, "rounds": 2, "envs": 4}
    LEAST = {"samples": 2, "iterations": 1, "envs": 1, "threads": 1, "depth": 1}

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a number is out of its range, or nothing is to be measured.
        """
        super().__post_init__()
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


def recompute(config: PlanningSpeedConfig, side: int, case: str) -> Record:
    """Compare one plan of ours with that of the plain planner: same search, same candidates."""
    horizon, context, bar = CASES[case]
    model = published_shape(config, side)
    latents, states, goal = problem(model, context, config.seed)
    search = CEM(
        CEMConfig(
            samples=config.samples,
            iterations=config.iterations,
            top_k=min(10, config.samples),
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

    found = comparison({"plain": plain, "jepa_gym": ours}, config.rounds)
    a, b = plans["plain"], plans["jepa_gym"]
    pairs = ((a.actions, b.actions), (a.candidate_costs, b.candidate_costs))
    difference = max(float((x - y).abs().max()) for x, y in pairs)
    tokens = side * side + 2
    print_comparison(f"{tokens} tokens, {case}", found, f"bar {bar:.1f}")
    agree = "agree" if difference <= AGREEMENT else "DISAGREE"
    print(f"  results {agree}: largest difference {difference:.1e}")
    return found | {"case": case, "tokens": tokens, "bar": bar, "difference": difference}


def observations(model: WorldModel, count: int) -> dict[str, np.ndarray]:
    """Return `count` start frames of a checkpoint with their goals, as pixel observations."""
    assert model.folder is not None
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


def action(config: PlanningSpeedConfig) -> Record:
    """Measure an action of the default model at the planner's default budget, encoding included."""
    agent, model = agent_of_default()
    observation = observations(model, 1)
    found = medians({"two actions": lambda: act(agent, observation)}, config.rounds)
    found = {name: value / 2 for name, value in found["two actions"].items()}
    print(f"default model: {found['wall_s']:.3f} s an action ", end="")
    print(f"({found['cpu_s']:.3f} CPU s; bar {ACTION_BAR_S})")
    return found


def batch(config: PlanningSpeedConfig) -> Record:
    """Compare planning for many environments in one call with one after the other."""
    agent, model = agent_of_default()
    whole = observations(model, config.envs)
    rows = [{k: x[i : i + 1] for k, x in whole.items()} for i in range(config.envs)]
    forwards = {
        "one by one": lambda: [act(agent, row) for row in rows],
        "one call": lambda: act(agent, whole),
    }
    found = comparison(forwards, config.rounds)
    print_comparison(f"{config.envs} environments, two actions", found, f"aim {BATCH_AIM}")
    return found | {"envs": config.envs}


def agent_of_default() -> tuple[MPCAgent, WorldModel]:
    """Return the default agent with the default model, and the model."""
    model = WorldModel.from_pretrained("default")
    return MPCAgent(model), model


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


def arithmetic(
    name: str, model: WorldModel, samples: int, case: tuple[int, int], rounds: int
) -> Record:
    """Compare imagining candidates with plain matrix products of the same shapes."""
    horizon, context = case
    latents, states, goal = problem(model, context, 0)
    start = model.prepare(latents, states)
    chunk = min(samples, chunk_size(model.predictor, horizon))
    candidates = torch.randn(1, samples // chunk * chunk, horizon, 7) / 20
    shapes = products(model, chunk, horizon, context) * (samples // chunk)
    forwards: dict[str, Callable[[], Any]] = {
        "engine": lambda: start.energy(candidates, goal, chunk),
        "products": multiplier(shapes),
    }
    with torch.inference_mode():
        found = comparison(forwards, rounds)
    gflop = sum(2 * b * m * k * n for b, m, k, n in shapes) / 1e9
    speeds = {name: gflop / row["cpu_s"] for name, row in found["rows"].items()}
    share, cpu_share = 1 / found.pop("ratio"), 1 / found.pop("cpu_ratio")
    print(
        f"{name}: {speeds['engine']:.0f} of {speeds['products']:.0f} GFLOP per CPU-s, "
        f"share {share:.2f} (bar {ARITHMETIC_BAR}), of CPU {cpu_share:.2f}"
    )
    return found | {"gflop": gflop, "gflop_per_s": speeds, "share": share, "cpu_share": cpu_share}


def arithmetics(config: PlanningSpeedConfig) -> dict[str, Record]:
    """Compare for the default model and for the published shape, by case."""
    default, side = WorldModel.from_pretrained("default"), config.sides[0]
    scaled, context = published_shape(config, side), default.config.context_frames
    name = f"default model, horizon 1, context {context}"
    found = {name: arithmetic(name, default, 2 * config.samples, (1, context), config.rounds)}
    for case, (horizon, context, _) in CASES.items():
        name = f"{side**2 + 2} tokens, {case}"
        shape = (horizon, context)
        found[name] = arithmetic(name, scaled, config.samples, shape, config.rounds)
    return found


def run(config: PlanningSpeedConfig) -> Record:
    """Measure `config.parts`, print each as it is ready, and return all figures."""
    torch.set_num_threads(config.threads)
    measures: dict[str, Callable[[], Any]] = {
        "recompute": lambda: [recompute(config, s, case) for s in config.sides for case in CASES],
        "action": lambda: action(config),
        "batch": lambda: batch(config),
        "arithmetic": lambda: arithmetics(config),
    }
    found = {part: measure() for part, measure in measures.items() if part in config.parts}
    return {"torch": torch.__version__} | found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return command(run, PlanningSpeedConfig, arguments)


if __name__ == "__main__":
    sys.exit(main())
