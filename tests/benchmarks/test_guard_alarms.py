"""The guard of pictures: quiet in every split of the suite, and told by garbage."""

from __future__ import annotations

from jepa_gym.benchmarks.guard_alarms import SPLITS, SPOILT, Arguments, run


def test_no_split_is_warned_of_and_garbage_is(capsys):
    rows = {row["shown"]: row for row in run(Arguments(episodes=1))}
    assert set(rows) == {"plain", *SPLITS, *SPOILT}
    assert not any(rows[name]["frames_warned"] for name in ("plain", *SPLITS))
    assert all(rows[name]["frames_warned"] == 10 for name in ("black", "white", "grey", "noise"))
    assert "upside down" in capsys.readouterr().out
