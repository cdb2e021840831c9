"""Instructions in words: what can be said to an arm, and which states satisfy it.

Directions are those of the base frame: forward is +x (away from the base), left +y, up +z; in
front of an object is the side of the base, behind it the far side.

>>> kind_of_words("grab the cup")
'grasp'
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jepa_gym.names import did_you_mean

OBJECT_WORDS = (
    *("box", "cup", "can", "bottle", "cereal", "bread", "bowl", "milk", "lemon", "mug"),
    *("object", "thing"),
)
"""What `{}` stands for in a template; the last two are said of anything."""
ASIDE_M = 0.10
"""How far a hand beside an object is from its middle, and how far it goes when told to move."""
HOVER_M = 0.08
"""How far above the grasp point a hand beside or above an object is."""
_MOVE = (
    "move {w} by about 10 cm", "go {w} by about 10 cm", "move the hand {w} by ten centimetres",
    "shift the hand {w} by 10 cm", "go {w} ten centimetres", "move {w} a little",
    "shift {w} by about ten centimetres", "move the hand {w} by about 10 cm",
)  # fmt: skip
_BESIDE = (
    "put the hand {w} the {{}}", "move the hand {w} the {{}}", "go {w} the {{}}",
    "bring the gripper {w} the {{}}", "place the hand {w} the {{}}", "move {w} the {{}}",
    "bring the hand {w} the {{}}", "move the gripper {w} the {{}}",
)  # fmt: skip


def _with(templates: Sequence[str], *words: str) -> tuple[str, ...]:
    """Return the templates with each of the words, the last one with the last word alone."""
    *known, last = templates
    return (*(way.format(w=word) for way in known for word in words), last.format(w=words[-1]))


TEMPLATES: dict[str, tuple[str, ...]] = {
    "above": _with(_BESIDE, "above", "over"),
    "left of": _with(_BESIDE, "left of", "to the left of"),
    "right of": _with(_BESIDE, "right of", "to the right of"),
    "in front of": _with(_BESIDE, "in front of"),
    "behind": _with(_BESIDE, "behind"),
    "left": _with(_MOVE, "left", "to the left"),
    "right": _with(_MOVE, "right", "to the right"),
    "forward": _with(_MOVE, "forward"),
    "back": _with(_MOVE, "back"),
    "up": _with(_MOVE, "up", "higher"),
    "down": _with(_MOVE, "down", "lower"),
    "open": ("open the gripper", "open the hand", "let the fingers open", "open the fingers"),
    "close": ("close the gripper", "close the hand", "let the fingers close", "close the fingers"),
    "grasp": (
        "grasp the {}", "grab the {}", "take hold of the {}", "close the gripper on the {}",
        "take the {} between the fingers", "grab hold of the {}",
    ),
    "lift": (
        "lift the {}", "pick up the {}", "pick the {} up", "raise the {}", "lift up the {}",
        "grasp the {} and lift it", "take the {} and raise it",
    ),
    "put down": (
        "put the {} down", "put down the {}", "place the {} on the table", "set the {} down",
        "put the {} on the table", "set the {} on the table",
    ),
}  # fmt: skip
"""Kind of an instruction -> how it is said. The last way of each kind is held out of training."""
KINDS = tuple(TEMPLATES)
BESIDE = {
    "above": (0.0, 0.0), "left of": (0.0, ASIDE_M), "right of": (0.0, -ASIDE_M),
    "in front of": (-ASIDE_M, 0.0), "behind": (ASIDE_M, 0.0),
}  # fmt: skip
"""Kind -> where the hand is, seen from the object, x and y in metres."""
MOVES = {
    "left": (0.0, ASIDE_M, 0.0), "right": (0.0, -ASIDE_M, 0.0), "forward": (ASIDE_M, 0.0, 0.0),
    "back": (-ASIDE_M, 0.0, 0.0), "up": (0.0, 0.0, ASIDE_M), "down": (0.0, 0.0, -ASIDE_M),
}  # fmt: skip
"""Kind -> how far the hand moves, x, y and z in metres."""
WORDS = tuple(
    sorted(
        {
            word
            for templates in TEMPLATES.values()
            for template in templates
            for word in template.replace("{}", "").split()
        }
        | set(OBJECT_WORDS)
    )
)
"""All words that can be said."""
LONGEST = max(len(template.split()) for ways in TEMPLATES.values() for template in ways)
"""Words of the longest instruction."""
_NUMBERS = {word: number for number, word in enumerate(WORDS, start=1)}


def held_out(kind: str) -> str:
    """Return the way of saying it that training never sees; its words are known from others."""
    return TEMPLATES[kind][-1]


def word_numbers(instruction: str) -> np.ndarray:
    """Return the numbers of an instruction's words, (`LONGEST`,) int64; 0 stands for none.

    Raises:
        ValueError: If a word is unknown, or there are none or too many.
    """
    words = re.findall(r"[a-z0-9]+", instruction.lower())
    for word in words:
        if word not in _NUMBERS:
            raise ValueError(
                f"the instruction {instruction!r} has the word {word!r}, which is not among those "
                f"that can be said: {', '.join(WORDS)}.{did_you_mean(word, WORDS)}"
            )
    if not 1 <= len(words) <= LONGEST:
        raise ValueError(
            f"an instruction has 1 to {LONGEST} words, got {len(words)}: {instruction!r}"
        )
    numbers = np.zeros(LONGEST, np.int64)
    numbers[: len(words)] = [_NUMBERS[word] for word in words]
    return numbers


def kind_of_words(instruction: str) -> str | None:
    """Return the kind of an instruction that is one of the templates, word by word; else None."""
    said = " ".join(re.findall(r"[a-z0-9]+", instruction.lower()))
    for kind, templates in TEMPLATES.items():
        for template in templates:
            if any(said == template.format(name) for name in OBJECT_WORDS):
                return kind
    return None


@dataclass(frozen=True, slots=True)
class Region:
    """Where the hand satisfies an instruction: a box in the base frame."""

    centre: np.ndarray
    """(3,) metres."""
    half: np.ndarray
    """(3,) metres, half its sides."""

    def distance_m(self, hand: np.ndarray) -> float:
        """Return how far a hand (3,) is from the nearest place that satisfies it, metres."""
        return float(np.linalg.norm(np.maximum(np.abs(hand - self.centre) - self.half, 0.0)))


def region(kind: str, start: np.ndarray, grasp_point: np.ndarray) -> Region:
    """Return where the hand satisfies an instruction about its place.

    Args:
        kind: Of `BESIDE` or `MOVES`.
        start: (3,) metres, where the hand is when it is told.
        grasp_point: (3,) metres, from where the object would be grasped.
    """
    if kind in MOVES:
        move = np.array(MOVES[kind])
        return Region(start + move, np.where(move != 0, 0.02, 0.01))
    return Region(grasp_point + [*BESIDE[kind], HOVER_M], np.array([0.02, 0.02, 0.03]))
