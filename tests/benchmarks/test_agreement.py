"""Agreement of imagined with real success, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jepa_gym.benchmarks.agreement import (
    agreement,
    fisher_interval,
    pearson,
    rank_violation,
    rates,
)


def test_pearson_is_numpys_and_unknown_for_constants():
    real, imagined = [0.0, 0.2, 0.9, 1.0], [0.1, 0.1, 0.7, 1.0]
    assert pearson(real, imagined) == pytest.approx(np.corrcoef(real, imagined)[0, 1])
    assert math.isnan(pearson([0.5, 0.5], [0.1, 0.9]))


def test_fisher_interval_of_a_published_example():
    low, high = fisher_interval(0.5, 28)  # atanh .5 = .5493, 1.96 / 5 = .392
    assert (low, high) == (pytest.approx(0.156, abs=1e-3), pytest.approx(0.736, abs=1e-3))
    assert all(map(math.isnan, fisher_interval(0.5, 3)))


def test_rank_violation_weighs_by_the_real_difference():
    assert rank_violation([0.1, 0.5, 0.9], [0.2, 0.3, 0.4]) == 0.0
    # the first and the second are exchanged: .4 for both, none for the third
    assert rank_violation([0.1, 0.5, 0.9], [0.3, 0.2, 0.4]) == pytest.approx(0.8 / 3)


def test_one_policy_that_carries_the_correlation_is_found():
    real, imagined = [0.0, 0.1, 0.05, 1.0], [0.1, 0.0, 0.1, 1.0]
    found = agreement(real, imagined)
    assert found["pearson"] > 0.98 and found["worst_drop_one"] < 0
    assert found["fisher95"][0] < found["pearson"] < found["fisher95"][1]
    flat = agreement([0.0, 0.0, 0.0], [0.0, 0.5, 1.0])
    assert flat["pearson"] is None and flat["fisher95"] is None and flat["mmrv"] == 0.0


def test_rates_of_single_episodes():
    found = rates([True, True, False, False, False], [True, False, True, False, False])
    assert found["false_success"] == pytest.approx(1 / 3) and found["missed"] == 0.5
    assert (found["failures"], found["successes"]) == (3, 2)
    assert rates([True], [True])["false_success"] is None
