"""What an arm does with an object, as scripts: approach, grasp, carry, place, release, push, miss.

A script starts where its subject begins, with the hand near the object or the object in the hand,
so that 15 moves of 7.5 cm show it whole; what is left of the episode are small moves. Half of the
episodes are exact, in the others every move is a few millimetres off.

| behaviour | starts | what happens |
|---|---|---|
| `approach` | near | The open hand goes over it, down around it, away without closing. |
| `grasp` | near | Over the object, down, close, lift. |
| `regrasp` | near | Grasp and lift, let go, and grasp again from where the object came to lie. |
| `miss` | near | Down beside the object, close on nothing, lift, nothing comes. |
| `push` | near | Down beside it with closed fingers, and through it; tall things topple. |
| `carry` | held | Through two or three places in the air. |
| `place` | held | Over a place on the table, down, open, up. |
| `release` | held | The fingers open in the air, and the object falls. |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from jepa_gym.envs.physics.arm import Arm
from jepa_gym.envs.physics.workbench import WORKSPACE_HIGH_M, WORKSPACE_LOW_M
from jepa_gym.envs.tasks.manipulation import HOVER_M, ObjectTaskEnv
from jepa_gym.envs.tasks.sampling import OBJECT_HIGH_M, OBJECT_LOW_M

NOISE_M = (0.0, 0.003)
"""Standard deviations of what is added to moves; one is drawn for each episode."""
IDLE_M = 0.02
"""Largest move per axis once a script has ended."""
NEAR_M = ((-0.1, -0.1, 0.08), (0.1, 0.1, 0.16))
"""Bounds of the hand's start relative to the grasp point, where the hand starts near."""
TABLE_GAP_M = 0.004
"""Height at which an object that is to be placed is let go."""
LOW_HAND_M = 0.014
"""Height of the hand when it pushes."""
BESIDE_M = (0.055, 0.08)
"""Distance between hand and object when the fingers close on nothing."""
PUSH_FROM_M, PUSH_STRIDE_M = 0.09, 0.035
"""Distance from the object at which a push goes down to the table; its moves."""
PATIENCE = 6
"""Moves after which a place that was not reached is given up."""

Moves = Iterator[np.ndarray]
"""Actions (7,), each chosen when it is asked for, from the state that is there then."""


def wander(
    arm: Arm,
    max_move_m: float,
    rng: np.random.Generator,
    low: np.ndarray,
    high: np.ndarray,
    gripper_rate: float,
    turns: bool = False,
) -> Callable[[int], np.ndarray]:
    """Return a policy of random moves, openings and closings within bounds.

    Args:
        arm: The arm that moves.
        max_move_m: Largest move per axis.
        rng: What is drawn from; half of the policies go on in the direction of the move before.
        low: Lower bounds of the hand's place (3,) in metres.
        high: Upper ones.
        gripper_rate: Share of the moves that also open or close the gripper.
        turns: Whether the hand turns, too.
    """
    memory = 0.6 if rng.random() < 0.5 else 0.0
    drift = np.zeros(3)

    def act(step: int) -> np.ndarray:
        nonlocal drift
        state = arm.state()
        fresh = rng.uniform(-max_move_m, max_move_m, 3) * rng.choice([1.0, 0.5])
        drift = memory * drift + (1 - memory) * fresh
        action = np.zeros(7)
        action[:3] = np.clip(state[:3] + drift / max(0.5, 1 - memory), low, high) - state[:3]
        if turns:
            # wander around the upright pose, mostly about the vertical axis
            action[3:6] = rng.normal(0, [0.04, 0.04, 0.12]) - 0.3 * state[3:6]
        if rng.random() < gripper_rate:
            target = rng.choice([0.0, 1.0, rng.random()], p=[0.4, 0.4, 0.2])
            action[6] = target - state[6]
        return action

    return act


class Script:
    """One behaviour in one episode that has just been reset.

    Args:
        env: The environment; the object and the arm are put where the script starts.
        rng: What the script draws from.
    """

    held = False
    """Whether it starts with the object in the hand."""

    def __init__(self, env: ObjectTaskEnv, rng: np.random.Generator) -> None:
        self.env, self.rng = env, rng
        self.noise_m = float(rng.choice(NOISE_M))
        if env.object_clearance() > TABLE_GAP_M:  # the task starts with the object in the hand
            x, y, _ = env.object_position()
            env.place_object(np.array([x, y, env.object_half_height()]), 0.0)
        if self.held:
            env.place_arm(env.grasp_point())
            env.arm.move(np.array([0, 0, 0, 0, 0, 0, 1.0]), env.step_s)
            rise = np.array([*rng.uniform(-0.03, 0.03, 2), env.max_move_m, 0, 0, 0, 0])
            for _ in range(int(rng.integers(1, 3))):
                env.arm.move(rise, env.step_s)
        else:
            start = env.grasp_point() + rng.uniform(*NEAR_M)
            env.place_arm(np.clip(start, WORKSPACE_LOW_M, WORKSPACE_HIGH_M))
            env.scatter_distractors()

    def moves(self) -> Moves:
        """Yield the actions of the script."""
        raise NotImplementedError

    def policy(self) -> Callable[[int], np.ndarray]:
        """Return the script as a policy that moves a little once it has ended."""
        moves = self.moves()

        def act(step: int) -> np.ndarray:
            action = next(moves, None)
            if action is None:
                action = self.env.move_by(self.rng.uniform(-IDLE_M, IDLE_M, 3))
            noisy = action.astype(np.float64)
            noisy[:3] += self.rng.normal(0, self.noise_m, 3)
            return noisy

        return act

    # ---- parts of scripts

    def go(
        self, place: Callable[[], np.ndarray], near_m: float = 0.01, stride_m: float = 1.0
    ) -> Moves:
        """Move the hand to a place (3,) in metres, which may move, too; by strides of a length."""
        for _ in range(PATIENCE):
            offset = place() - self.env.arm.state()[:3]
            distance = np.linalg.norm(offset)
            if distance < near_m:
                return
            yield self.env.move_by(offset * min(1.0, stride_m / distance))

    def rise(self, height_m: float) -> Moves:
        """Move the hand up by `height_m`."""
        goal = self.env.arm.state()[:3] + [0, 0, height_m]
        yield from self.go(lambda: goal)

    def grip(self, closed: bool) -> Moves:
        """Close the fingers, or open them."""
        yield self.env.move_by(np.zeros(3), closing=1.0 if closed else -1.0)

    def take(self) -> Moves:
        """Go over the object, down, and close the fingers."""
        yield from self.go(lambda: self.env.grasp_point() + [0, 0, HOVER_M])
        yield from self.go(self.env.grasp_point, near_m=0.006)
        yield from self.grip(True)

    def side(self, distance_m: float) -> np.ndarray:
        """Return a drawn offset (3,) of a length along the table."""
        angle = self.rng.uniform(-np.pi, np.pi)
        return distance_m * np.array([np.cos(angle), np.sin(angle), 0.0])


class Approach(Script):
    """The open hand goes over the object, down around it, and away without closing."""

    def moves(self) -> Moves:
        """Yield the actions of the script."""
        while True:
            yield from self.go(lambda: self.env.grasp_point() + [0, 0, HOVER_M])
            yield from self.go(self.env.grasp_point)
            yield from self.rise(HOVER_M)
            aside = self.env.arm.state()[:3] + self.side(0.08)
            yield from self.go(lambda place=aside: place)


class Grasp(Script):
    """Over the object, down, close, lift."""

    def moves(self) -> Moves:
        """Yield the actions of the script."""
        yield from self.take()
        yield from self.rise(float(self.rng.uniform(0.06, 0.16)))


class Regrasp(Script):
    """Grasp and lift, let go, and grasp again from where the object came to lie."""

    def moves(self) -> Moves:
        """Yield the actions of the script."""
        yield from self.take()
        yield from self.rise(float(self.rng.uniform(0.02, 0.06)))
        yield from self.grip(False)
        yield from self.rise(HOVER_M / 2)
        yield from self.take()
        yield from self.rise(0.1)


class Miss(Script):
    """Down beside the object, close on nothing, lift, nothing comes."""

    def moves(self) -> Moves:
        """Yield the actions of the script."""
        beside = self.env.grasp_point() + self.side(float(self.rng.uniform(*BESIDE_M)))
        yield from self.go(lambda: beside + [0, 0, HOVER_M])
        yield from self.go(lambda: beside)
        yield from self.grip(True)
        yield from self.rise(0.1)
        yield from self.grip(False)


class Push(Script):
    """Down beside it with closed fingers, and through it along the table."""

    def moves(self) -> Moves:
        """Yield the actions of the script."""
        way = self.side(1.0)
        low = np.array([*self.env.object_position()[:2], LOW_HAND_M])
        beside = low - PUSH_FROM_M * way
        yield from self.grip(True)
        yield from self.go(lambda: beside + [0, 0, HOVER_M], near_m=0.02)
        yield from self.go(lambda: beside)
        end = low + self.rng.uniform(0.02, 0.1) * way
        yield from self.go(lambda: end, stride_m=PUSH_STRIDE_M)
        yield from self.rise(HOVER_M)


class Carry(Script):
    """Through two or three places in the air."""

    held = True

    def moves(self) -> Moves:
        """Yield the actions of the script."""
        low = [*WORKSPACE_LOW_M[:2], 0.08]
        while True:
            place = self.rng.uniform(low, WORKSPACE_HIGH_M)
            yield from self.go(lambda place=place: place)


class Place(Script):
    """Over a place on the table, down, open, up."""

    held = True

    def moves(self) -> Moves:
        """Yield the actions of the script."""
        spot = self.rng.uniform(OBJECT_LOW_M, OBJECT_HIGH_M)

        def over(height_m: float) -> np.ndarray:
            lowest = self.env.object_position()[2] - self.env.object_clearance()
            goal = np.array([*spot, height_m + lowest])
            return self.env.arm.state()[:3] + goal - self.env.object_position()

        yield from self.go(lambda: over(0.06))
        yield from self.go(lambda: over(TABLE_GAP_M), near_m=TABLE_GAP_M)
        yield from self.grip(False)
        yield from self.rise(HOVER_M)


class Release(Script):
    """The fingers open in the air, and the object falls."""

    held = True

    def moves(self) -> Moves:
        """Yield the actions of the script."""
        for _ in range(int(self.rng.integers(0, 4))):
            yield self.env.move_by(self.rng.uniform(-0.06, 0.06, 3))
        yield from self.grip(False)
        yield from self.rise(0.05)


SCRIPTS: dict[str, type[Script]] = {
    "approach": Approach,
    "grasp": Grasp,
    "regrasp": Regrasp,
    "miss": Miss,
    "push": Push,
    "carry": Carry,
    "place": Place,
    "release": Release,
}
"""Behaviour -> its script."""
