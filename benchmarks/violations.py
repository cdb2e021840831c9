"""Impossible clips made in the simulator, each with a possible twin: violation of expectation.

Both twins start in the same state and get the same commands, and up to `Pair.moment` they show the
same pictures. Then, in one of them, something happens that cannot happen:

| kind | what happens |
|---|---|
| vanishes | the object is gone, to the eye and to the touch |
| teleports | the object stands 8 to 30 cm from where it was |
| floats | an object at rest rises 5 cm a step for three steps, and hangs in the air |
| changes-colour | the object has another colour |
| sinks-into-table | an object at rest passes through the solid table, 3 cm a step |
| passes-through-hand | the hand sweeps through the object, which stays; it pushes the twin away |

Who acts, and where hand and object are at the start, is drawn as for training data
(`jepa_gym.training.collection.explorers`), but for `passes-through-hand`, which has a sweep of its
own. A draw whose violation cannot be seen in the pictures, or not happen, is drawn again.

Reference: Garrido et al., Intuitive physics understanding emerges from self-supervised pretraining
on natural videos (arXiv 2502.11831), for the paradigm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from jepa_gym.envs.physics.workbench import WORKSPACE_HIGH_M, WORKSPACE_LOW_M
from jepa_gym.envs.tasks.manipulation import ObjectTaskEnv
from jepa_gym.envs.tasks.sampling import first_fit, sample_object_place, within
from jepa_gym.training.collection.adapter import Policy
from jepa_gym.training.collection.explorers import DEFAULT_MIX, start_episode

STEPS = 15
"""Moves of a clip, as of a recorded episode; it has one frame more."""
EARLIEST, LATEST = 6, 12
"""First and last frame that a violation may begin at: there is a past to judge it by."""
ATTEMPTS = 100
SEEN_PIXELS, SEEN_LEVELS, SEEN_FRAMES = 30, 40, 2
"""A violation is seen if one of its first frames differs from the twin's in as many pixels by as
many of 255 levels."""
RISE_M_S, RISE_STEPS, SINK_M_S = 0.2, 3, 0.12
TELEPORT_M, CLEAR_OF_HAND_M = (0.08, 0.30), 0.09
PUSHED_M, PUSHED_IN_ALL_M = 0.005, 0.03
"""How far the twin's object is pushed when the hand meets it, and in the whole clip."""
COLOURS = (
    (0.85, 0.16, 0.12),
    (0.12, 0.35, 0.85),
    (0.15, 0.65, 0.25),
    (0.95, 0.85, 0.15),
    (0.55, 0.20, 0.75),
    (0.05, 0.05, 0.05),
    (0.95, 0.95, 0.95),
)
OTHER_COLOUR = 0.5
"""Least distance of the new colour from the object's own, in RGB."""
HAND_LAYER, TABLE_LAYER = 1, 2
_CHANGED = ("geom_rgba", "geom_contype", "geom_conaffinity", "body_gravcomp")
"""What a violation may change in MuJoCo's model."""

Act = Callable[[int], None]
"""Called before each step with the number of steps since the violation began."""


@dataclass(frozen=True)
class Clip:
    """What was seen and measured, T frames."""

    frames: np.ndarray
    """(T, Y, X, 3) uint8, cameras side by side."""
    states: np.ndarray
    """(T, 7) float32."""


@dataclass(frozen=True)
class Pair:
    """An impossible clip and its possible twin."""

    moment: int
    """First frame that shows the violation."""
    possible: Clip
    impossible: Clip


def ordinary_clip(env: ObjectTaskEnv, seed: int) -> Clip:
    """Play and return a clip of somebody acting as in training data; nothing impossible happens.

    Args:
        env: As `jepa_gym.training.collection.explorers.exploration_env` makes it.
        seed: Decides the clip.
    """
    _, policy = start_episode(env, seed, DEFAULT_MIX)
    return _play(env, policy, STEPS)


def make_pair(env: ObjectTaskEnv, kind: str, seed: int) -> Pair:
    """Play one violation and its possible twin.

    Args:
        env: As `jepa_gym.training.collection.explorers.exploration_env` makes it.
        kind: One of `KINDS`.
        seed: Decides both clips; other kinds draw other clips from it.

    Raises:
        RuntimeError: No violation of this kind can be seen in any of `ATTEMPTS` draws.
    """
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng((seed, list(KINDS).index(kind), attempt))
        policy = _begin(env, kind, rng)
        if policy is None:
            continue
        start = env.get_state()
        moves, before, places = _rehearse(env, policy)
        moment = _moment(kind, rng, places)
        if moment is None:
            continue
        env.set_state(before[moment - 1])
        act = KINDS[kind](env, rng)
        if act is None:
            continue
        env.set_state(start)
        possible = _play(env, moves.__getitem__, len(moves))
        env.set_state(start)
        with _restored(env):
            impossible = _play(env, moves.__getitem__, len(moves), (moment, act))
        if _seen(possible, impossible, moment):
            return Pair(moment, possible, impossible)
    raise RuntimeError(f"none of {ATTEMPTS} draws of `{kind}` (seed {seed}) can be seen")


# ---- what happens; None if it cannot happen now


def _vanishes(env: ObjectTaskEnv, rng: np.random.Generator) -> Act | None:
    def act(since: int) -> None:
        _collide(env, 0)
        env.model.geom_rgba[_geoms(env), 3] = 0.0

    return act


def _teleports(env: ObjectTaskEnv, rng: np.random.Generator) -> Act | None:
    here, hand = env.object_position()[:2], env.arm.state()[:2]
    place = first_fit(
        lambda: rng.uniform(WORKSPACE_LOW_M[:2], WORKSPACE_HIGH_M[:2]),
        lambda x: within(TELEPORT_M, x, here) and float(np.hypot(*(x - hand))) > CLEAR_OF_HAND_M,
        "place to teleport to",
    )

    def act(since: int) -> None:
        if not since:
            _set_velocity(env, 0.0)
            env.place_object(np.array([*place, env.object_half_height()]), 0.0)

    return act


def _floats(env: ObjectTaskEnv, rng: np.random.Generator) -> Act | None:
    def act(since: int) -> None:
        env.model.body_gravcomp[env.stage.object_body] = 1.0
        _set_velocity(env, RISE_M_S if since < RISE_STEPS else 0.0)

    return act if _alone(env) else None


def _changes_colour(env: ObjectTaskEnv, rng: np.random.Generator) -> Act | None:
    seen = _geoms(env)[env.model.geom_group[_geoms(env)] == 1]
    own = env.model.geom_rgba[seen[0], :3]
    others = [x for x in COLOURS if np.linalg.norm(np.array(x) - own) > OTHER_COLOUR]
    colour = others[rng.integers(len(others))]

    def act(since: int) -> None:
        env.model.geom_rgba[seen, :3] = colour

    return act


def _sinks(env: ObjectTaskEnv, rng: np.random.Generator) -> Act | None:
    def act(since: int) -> None:
        _collide(env, 0)
        env.model.body_gravcomp[env.stage.object_body] = 1.0
        _set_velocity(env, -SINK_M_S)

    return act if _alone(env) else None


def _passes_through_hand(env: ObjectTaskEnv, rng: np.random.Generator) -> Act | None:
    def act(since: int) -> None:
        _collide(env, TABLE_LAYER)
        table = env.model.geom("table").id
        env.model.geom_contype[table] = env.model.geom_conaffinity[table] = HAND_LAYER | TABLE_LAYER

    return act


SWEEP = "passes-through-hand"
KINDS: dict[str, Callable[[ObjectTaskEnv, np.random.Generator], Act | None]] = {
    "vanishes": _vanishes,
    "teleports": _teleports,
    "floats": _floats,
    "changes-colour": _changes_colour,
    "sinks-into-table": _sinks,
    SWEEP: _passes_through_hand,
}


def _geoms(env: ObjectTaskEnv) -> np.ndarray:
    return np.flatnonzero(env.model.geom_bodyid == env.stage.object_body)


def _collide(env: ObjectTaskEnv, layers: int) -> None:
    """Let the object touch what lies in the given layers only."""
    env.model.geom_contype[_geoms(env)] = env.model.geom_conaffinity[_geoms(env)] = layers


def _set_velocity(env: ObjectTaskEnv, upward_m_s: float) -> None:
    dof = env.stage.object_dof
    env.data.qvel[dof : dof + 6] = [0, 0, upward_m_s, 0, 0, 0]


def _alone(env: ObjectTaskEnv) -> bool:
    """Return whether the object stands on the table and no finger touches it."""
    return env.object_at_rest() and env.stage.object_released() and env.object_clearance() < 3e-3


# ---- who acts, and when


def _begin(env: ObjectTaskEnv, kind: str, rng: np.random.Generator) -> Policy | None:
    """Start a clip and return who acts in it; None if the arm does not reach what was drawn."""
    seed = int(rng.integers(2**31))
    if kind != SWEEP:
        return start_episode(env, seed, DEFAULT_MIX)[1]
    env.reset(seed=seed)
    env.place_object(*sample_object_place(env))
    try:
        return _sweep(env, rng)
    except ValueError:
        return None


def _sweep(env: ObjectTaskEnv, rng: np.random.Generator) -> Policy:
    """Put the hand beside the object, and return a policy that waits there and sweeps through it.

    Raises:
        ValueError: The arm does not reach the start.
    """
    centre, angle = env.object_position(), rng.uniform(0, 2 * np.pi)
    ahead = np.array([np.cos(angle), np.sin(angle)])
    beside = centre[:2] - rng.uniform(0.10, 0.14) * ahead
    height = max(0.02, centre[2] + rng.uniform(-0.01, 0.02))
    first, speed_m = int(rng.integers(EARLIEST, LATEST)) - 2, rng.uniform(0.03, 0.05)
    raised = np.array([*beside, height + rng.uniform(0.0, 0.05)])
    env.place_arm(raised, closedness=float(rng.choice([0.0, 1.0])))

    def act(step: int) -> np.ndarray:
        action, here = np.zeros(7), env.arm.state()[:3]
        if step < first:
            waiting = np.array([*beside, height + 0.02])
            action[:3] = rng.uniform(-0.02, 0.02, 3) + (waiting - here) / 2
        else:
            on_line = beside + ahead * ((here[:2] - beside) @ ahead)
            action[:3] = [*(on_line - here[:2] + speed_m * ahead), height - here[2]]
        return action

    return act


def _rehearse(
    env: ObjectTaskEnv, policy: Policy
) -> tuple[list[np.ndarray], list[dict], np.ndarray]:
    """Play a policy without pictures; return moves, states before each, and the object's places."""
    moves, before, places = [], [], [env.object_position()]
    for step in range(STEPS):
        before.append(env.get_state())
        moves.append(policy(step))
        env.step(moves[-1])
        places.append(env.object_position())
    return moves, before, np.array(places)


def _moment(kind: str, rng: np.random.Generator, places: np.ndarray) -> int | None:
    """Return the frame at which the violation begins; None if the sweep hardly met the object."""
    if kind != SWEEP:
        return int(rng.integers(EARLIEST, LATEST + 1))
    moved = np.linalg.norm(places - places[0], axis=1)
    met = int((moved > PUSHED_M).argmax())
    return met if EARLIEST <= met <= LATEST and moved[-1] >= PUSHED_IN_ALL_M else None


def _play(
    env: ObjectTaskEnv, policy: Policy, steps: int, violation: tuple[int, Act] | None = None
) -> Clip:
    """Play a policy from the present state, with a violation from a moment on."""
    frames, states = [env.frame()], [env.arm.state()]
    for step in range(steps):
        move = policy(step)
        if violation is not None and step + 1 >= violation[0]:
            violation[1](step + 1 - violation[0])
        env.step(move)
        frames.append(env.frame())
        states.append(env.arm.state())
    return Clip(np.stack(frames), np.stack(states).astype(np.float32))


@contextmanager
def _restored(env: ObjectTaskEnv) -> Iterator[None]:
    """Undo in the end what a violation does to MuJoCo's model."""
    before = {name: getattr(env.model, name).copy() for name in _CHANGED}
    try:
        yield
    finally:
        for name, value in before.items():
            getattr(env.model, name)[:] = value


def _seen(possible: Clip, impossible: Clip, moment: int) -> bool:
    """Return whether the first frames of a violation show that something is wrong."""
    shown = slice(moment, moment + SEEN_FRAMES)
    levels = np.abs(possible.frames[shown].astype(int) - impossible.frames[shown]).max(-1)
    return bool(((levels > SEEN_LEVELS).sum((1, 2)) >= SEEN_PIXELS).any())
