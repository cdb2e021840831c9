"""A folder of results: kept, never mixed, and whole after every kind of end."""

from __future__ import annotations

import pytest

from jepa_gym.benchmarks.results import Results, ResultsError

SETTINGS = {"checkpoint": {"model.safetensors": "abc"}, "torch": "2.13"}


def write(folder, *seeds: int, **settings):
    with Results(folder, "episodes.jsonl", SETTINGS | settings) as results:
        for seed in seeds:
            results.append({"agent": "random", "seed": seed, "success": seed % 2 == 0})


def read(folder, **settings) -> list[int]:
    with Results(folder, "episodes.jsonl", SETTINGS | settings) as results:
        return [record["seed"] for record in results.records]


def test_finished_jobs_are_found_by_what_tells_them_apart(tmp_path):
    write(tmp_path, 0, 1)
    with Results(tmp_path, "episodes.jsonl", SETTINGS) as results:
        asked = [{"agent": agent, "seed": seed} for agent in ("random", "sac") for seed in (1, 2)]
        found = results.finished(asked)
        assert found[0] is not None and found[0]["success"] is False
        assert found[1:] == [None, None, None]
        results.append({"agent": "sac", "seed": 1})
        ordered = results.ordered(asked)
        assert [(r["agent"], r["seed"]) for r in ordered] == [
            ("random", 1),
            ("sac", 1),
            ("random", 0),
        ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"torch": "2.14"}, r"`torch` was \"2.13\" and is \"2.14\""),
        ({"checkpoint": {"model.safetensors": "abd"}}, "`checkpoint` was"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_touched(change, message, tmp_path):
    write(tmp_path, 0, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ResultsError, match=message):
        Results(tmp_path, "episodes.jsonl", SETTINGS | change)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert read(tmp_path) == [0, 1]


def test_overwrite_deletes_results_of_other_settings_only(tmp_path):
    write(tmp_path, 0, 1)
    with Results(tmp_path, "episodes.jsonl", SETTINGS, overwrite=True) as results:
        assert len(results.records) == 2, "the same command, given again, goes on"
    with Results(tmp_path, "episodes.jsonl", SETTINGS | {"torch": "3"}, overwrite=True) as results:
        assert results.records == []
    assert read(tmp_path, torch="3") == []


def test_settings_that_played_no_part_may_join(tmp_path):
    write(tmp_path, 0)
    assert read(tmp_path, policy="x") == [0]
    with pytest.raises(ResultsError, match="`policy`"):
        read(tmp_path, policy="y")


def test_lines_of_unknown_settings_are_refused(tmp_path):
    (tmp_path / "episodes.jsonl").write_text('{"seed": 0}\n')
    with pytest.raises(ResultsError, match=r"no readable settings\.json"):
        read(tmp_path)


def test_a_line_that_was_cut_off_is_dropped_with_a_message(tmp_path, capsys):
    write(tmp_path, 0, 1)
    path = tmp_path / "episodes.jsonl"
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines(keepends=True)[-1])):
        path.write_bytes(whole[:-cut])
        assert read(tmp_path) == [0]
        assert "episodes.jsonl: dropped the last line" in capsys.readouterr().err
        write(tmp_path, 1)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["[1]", "{]", "3", '"text"'])
def test_a_damaged_line_is_named(line, tmp_path):
    write(tmp_path, 0, 1)
    path = tmp_path / "episodes.jsonl"
    path.write_text(f"{line}\n{path.read_text()}")
    with pytest.raises(ResultsError, match=r"Line 1 of .*episodes\.jsonl is damaged"):
        read(tmp_path)
    assert path.read_text().startswith(line), "it is left as it was"


def test_two_runs_do_not_share_a_folder(tmp_path):
    first = Results(tmp_path, "episodes.jsonl", SETTINGS)
    with first, pytest.raises(ResultsError, match="Another run is writing"):
        Results(tmp_path, "episodes.jsonl", SETTINGS)
    assert read(tmp_path) == []
