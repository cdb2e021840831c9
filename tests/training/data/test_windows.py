"""Physical time: strides, windows and gaps."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_gym.training.data.windows import stride_of, window_rows


@pytest.mark.parametrize(
    ("recorded_s", "step_s", "stride"),
    [(0.25, 0.25, 1), (1 / 15, 0.25, 4), (1 / 15, 0.2, 3), (1 / 60, 0.25, 15), (1 / 30, 1.0, 30)],
)
def test_stride(recorded_s, step_s, stride):
    assert stride_of(recorded_s * np.arange(50), step_s) == stride


def test_the_stride_is_that_of_uneven_clocks():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.normal(1 / 15, 0.01, 400))
    assert stride_of(times, 0.25) == 4


def test_steps_that_are_too_far_off_are_refused_with_what_there_is():
    with pytest.raises(ValueError, match=r"0\.2 s \(every 1\.\), 0\.4 s \(every 2\.\)") as error:
        stride_of(0.2 * np.arange(9), 0.3)
    assert "every 0.2 s" in str(error.value) and "0.3 s within 10%" in str(error.value)
    with pytest.raises(ValueError, match="no stride"):
        stride_of(0.5 * np.arange(9), 0.25)  # recorded slower than asked for


def test_windows_follow_each_other_and_do_not_overlap():
    rows = window_rows(np.arange(40) / 15, 0.25, 3)
    assert [x.tolist() for x in rows] == [[0, 4, 8], [12, 16, 20], [24, 28, 32]]
    assert window_rows(np.arange(8) / 15, 0.25, 3) == []
    (whole,) = window_rows(np.arange(10) / 15, 0.25, None)
    assert whole.tolist() == [0, 4, 8]


def test_no_window_holds_a_gap():
    times = np.arange(40) / 15
    times[18:] += 1.0  # the recorder paused
    for x in (rows := window_rows(times, 0.25, 3)):
        np.testing.assert_allclose(np.diff(times[x]), 4 / 15)
    assert [x.tolist() for x in rows] == [[0, 4, 8], [20, 24, 28]]


def test_a_still_is_a_window_of_one_picture():
    assert window_rows(np.zeros(1), 0.25, 4)[0].tolist() == [0, 0, 0, 0]
