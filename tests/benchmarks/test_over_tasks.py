"""Statistics over tasks, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_gym.benchmarks.over_tasks import (
    block_scores,
    bootstrap,
    holm,
    interquartile_mean,
    mcnemar,
    profile,
)


def test_interquartile_mean_cuts_a_quarter_on_each_side():
    assert interquartile_mean(np.array([0, 1, 2, 3, 4, 5, 6, 100])) == pytest.approx(3.5)
    # of six scores the quarter is one and a half: (.5 * 1 + 2 + 3 + .5 * 4) / 3
    assert interquartile_mean(np.array([0, 1, 2, 3, 4, 5])) == pytest.approx(2.5)
    assert interquartile_mean(np.array([0.7])) == pytest.approx(0.7)


def test_scores_are_of_equal_parts():
    np.testing.assert_allclose(block_scores([True] * 2 + [False] * 2, 2), [1.0, 0.0])
    assert len(block_scores([True, False], 5)) == 2


def test_bootstrap_surrounds_the_statistic_and_repeats():
    tasks = [np.array([0.2, 0.4, 0.6, 0.4]), np.array([0.9, 1.0, 1.0, 0.8])]
    middle, low, high = bootstrap(tasks)
    assert low < middle < high and bootstrap(tasks) == (middle, low, high)
    same = bootstrap([np.ones(4), np.ones(3)])
    assert same == (1.0, 1.0, 1.0)


def test_profile_counts_tasks_alike():
    tasks = [np.array([0.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.0])]
    np.testing.assert_allclose(profile(tasks, np.array([0.0, 0.5, 1.0])), [0.75, 0.75, 0.0])


def test_mcnemar_looks_at_the_pairs_that_differ():
    first = [True] * 10 + [False] * 6
    assert mcnemar(first, first) == 1.0
    second = [True] * 10 + [True] * 6
    assert mcnemar(first, second) == pytest.approx(2 * 0.5**6)


def test_holm_of_a_published_example():
    # Holm's steps: .01 * 4, .02 * 3 -> .06, .03 * 2 -> .06, .005 first: .005 * 4 = .02
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
