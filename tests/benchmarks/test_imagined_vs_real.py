"""The same policies in the simulator and in imagination, at a size that tests can afford."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jepa_gym.benchmarks.imagined import stopped
from jepa_gym.benchmarks.imagined_vs_real import (
    KINDS,
    POLICIES,
    Arguments,
    Disturbed,
    main,
)
from jepa_gym.names import resolve


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagined")
    flags = ["--tasks", "reach", "--episodes", "2", "--seed", "3000", "--workers", "1"]
    flags += ["--policies", "hold-still", "scripted", "imagined-policy", "--output", str(folder)]
    assert main(flags) == 0
    return folder, flags


def test_writes_what_was_measured(finished):
    folder, _ = finished
    reach = json.loads((folder / "summary.json").read_text())["reach"]
    rows = {row["policy"]: row for row in reach["policies"]}
    assert rows["hold-still"]["real"] == rows["hold-still"]["imagined"] == 0.0
    assert rows["scripted"]["real"] == 1.0
    assert {"pearson", "spearman", "mmrv", "worst_drop_one", "false_success"} <= reach.keys()
    assert len(reach["by_horizon"]) == len(reach["drift"]["by_step"]) == 10
    assert 0 < reach["drift"]["by_step"][0] < reach["drift"]["by_step"][-1]
    assert sum(reach["drift"]["by_kind"][kind]["steps"] for kind in KINDS) == 60
    assert (folder / "policies.png").exists() and (folder / "drift.png").exists()


def test_goes_on_where_itstopped(finished, capsys):
    folder, flags = finished
    lines = (folder / "episodes.jsonl").read_text().splitlines()
    before = json.loads((folder / "summary.json").read_text())["reach"]
    (folder / "episodes.jsonl").write_text("\n".join(lines[:4]) + "\n")
    assert main(flags) == 0
    assert "4 of 6 episodes were finished before" in capsys.readouterr().err
    assert json.loads((folder / "summary.json").read_text())["reach"] == before


def test_policies_are_of_registered_agents_and_as_many_as_a_correlation_needs():
    from jepa_gym.agents import AGENTS

    assert len(POLICIES) >= 12
    for policy in POLICIES.values():
        resolve(AGENTS, "agent", policy.agent)
    with pytest.raises(ValueError, match="`policies` must be among"):
        Arguments(policies=("mpc",))


def test_mistakes_are_translations_and_the_same_for_the_same_seed():
    class Still:
        def predict(self, observation):
            return np.zeros(7, np.float32), None

    env = type(
        "Env", (), {"action_space": type("Box", (), {"low": -np.ones(7), "high": np.ones(7)})}
    )
    one, other = (Disturbed(Still(), env, 0.5, 3) for _ in range(2))
    moves = np.stack([one.predict({})[0] for _ in range(40)])
    np.testing.assert_array_equal(moves, np.stack([other.predict({})[0] for _ in range(40)]))
    assert 8 < (moves[:, :3] != 0).any(1).sum() < 32 and not moves[:, 3:].any()


def test_fingers_stop_at_what_is_between_them():
    close, open_hand = np.eye(7)[6].astype(np.float32), np.zeros(7)
    around, empty = 0.6 * np.eye(7)[6], np.eye(7)[6]
    assert stopped(close, open_hand, around)[6] == pytest.approx(0.6)
    assert stopped(close, open_hand, empty)[6] == pytest.approx(1.0)
    assert stopped(-close, around, around)[6] == pytest.approx(-0.6)
