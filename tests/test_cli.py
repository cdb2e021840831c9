"""The `jepa-gym` command."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import jepa_gym
from jepa_gym import cli
from jepa_gym.commands import Terminated


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in cli.COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jepa-gym {jepa_gym.__version__}\n"


def test_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["colect"]) == 2
    assert "Did you mean `collect`?" in capsys.readouterr().err


def test_help_waits_for_no_library() -> None:
    code = (
        "import sys\nfrom jepa_gym import cli\ncli.main(['--help'])\n"
        "print(sorted({'torch', 'mujoco', 'robosuite', 'tyro', 'matplotlib'} & sys.modules.keys()))"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output.endswith("[]\n")


def test_every_command_has_one_line_of_help() -> None:
    lines = [line.split(maxsplit=1) for line in cli.usage().splitlines() if line.startswith("  ")]
    assert lines == [[name, summary] for name, (_, summary) in cli.COMMANDS.items()]


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (ValueError("`seed` must be\npositive"), 1, "error: `seed` must be positive\n"),
        (FileNotFoundError("no dataset at x"), 1, "error: no dataset at x\n"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (Terminated(), 143, "Terminated."),
    ],
)
def test_commands_end_alike(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    printed: str,
) -> None:
    def fail() -> None:
        raise error

    module = types.ModuleType("fake_command")
    module.main = fail
    monkeypatch.setitem(sys.modules, "fake_command", module)
    monkeypatch.setitem(cli.COMMANDS, "fake", ("fake_command:main", "for the test"))
    monkeypatch.setattr(sys, "argv", ["jepa-gym"])
    assert cli.main(["fake"]) == status
    shown = capsys.readouterr().err
    assert printed in shown and "Traceback" not in shown


def test_flags_and_status_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("fake_command")
    module.main = lambda: seen.append(sys.argv) or 3
    seen: list[list[str]] = []
    monkeypatch.setitem(sys.modules, "fake_command", module)
    monkeypatch.setitem(cli.COMMANDS, "fake", ("fake_command:main", "for the test"))
    monkeypatch.setattr(sys, "argv", ["jepa-gym"])
    assert cli.main(["fake", "--seed", "1"]) == 3
    assert seen == [["jepa-gym fake", "--seed", "1"]]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_listed_command_answers_help(name: str) -> None:
    command = [sys.executable, "-m", "jepa_gym.cli", name, "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"jepa-gym {name}" in result.stdout
