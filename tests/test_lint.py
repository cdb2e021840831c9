"""Rules, format and types: what `make lint` runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
COMMANDS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("pyright",))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_is_found(command: tuple[str, ...]) -> None:
    interpreter = ["--pythonpath", sys.executable] if command == ("pyright",) else []
    call = [sys.executable, "-m", *command, *interpreter]
    result = subprocess.run(call, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_make_lint_runs_the_same() -> None:
    recipe = (REPOSITORY / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0]
    assert all(" ".join(command) in recipe for command in COMMANDS)
