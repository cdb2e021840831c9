"""What can be said to an arm, and which places satisfy it."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_gym.instructions import (
    BESIDE,
    KINDS,
    LONGEST,
    MOVES,
    OBJECT_WORDS,
    TEMPLATES,
    held_out,
    kind_of_words,
    region,
    word_numbers,
)


def test_every_sentence_can_be_said_and_belongs_to_one_kind():
    said = {}
    for kind, templates in TEMPLATES.items():
        assert len(set(templates)) == len(templates) > 2
        for template in templates:
            sentence = template.format("cup")
            assert said.setdefault(sentence, kind) == kind
            assert kind_of_words(sentence.upper() + ".") == kind
            numbers = word_numbers(sentence)
            assert numbers.shape == (LONGEST,) and (numbers > 0).sum() == len(sentence.split())
    assert kind_of_words("put the cup above the hand") is None


def test_held_out_sentences_have_words_that_training_knows():
    known = {
        word
        for templates in TEMPLATES.values()
        for template in templates[:-1]
        for word in template.split()
    } | set(OBJECT_WORDS)
    for kind in KINDS:
        assert set(held_out(kind).replace("{}", "cup").split()) <= known, kind


def test_an_unknown_word_is_named_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"'teapot', which is not among .*above.*cup"):
        word_numbers("put the hand above the teapot")
    with pytest.raises(ValueError, match="got 0"):
        word_numbers(" .. ")
    with pytest.raises(ValueError, match="got 30"):
        word_numbers("up " * 30)


@pytest.mark.parametrize("kind", [*BESIDE, *MOVES])
def test_regions_are_where_the_words_say(kind):
    start, grasp = np.array([0.5, 0.0, 0.2]), np.array([0.45, 0.1, 0.03])
    place = region(kind, start, grasp)
    moved = place.centre - (start if kind in MOVES else grasp)
    axis, sign = {
        "left": (1, 1), "left of": (1, 1), "right": (1, -1), "right of": (1, -1),
        "forward": (0, 1), "behind": (0, 1), "back": (0, -1), "in front of": (0, -1),
        "up": (2, 1), "above": (2, 1), "down": (2, -1),
    }[kind]  # fmt: skip
    assert np.abs(moved).argmax() == axis and np.sign(moved[axis]) == sign
    assert place.distance_m(place.centre + 0.99 * place.half) == 0
    outside = place.centre + place.half + [0.03, 0.0, 0.04]
    assert place.distance_m(outside) == pytest.approx(0.05)
