"""tools/system_libs.sh installs what is missing where it may, and never fails silently."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine without EGL: a Python that reports it, and stand-ins for apt-get, sudo and id."""
    lacks = f'test -e "{tmp_path}/libegl1" || printf "libegl1\\tno EGL device\\n"'
    script(tmp_path / "python", f'case "$1" in -c) echo "$0";; *) {lacks};; esac')
    script(tmp_path / "apt-get", f'echo "$@" >> "{tmp_path}/apt.log"')
    script(tmp_path / "sudo", "exit 1")
    script(tmp_path / "id", "echo 1000")
    return tmp_path


def system_libs(machine: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHON": str(machine / "python"),
        "PATH": f"{machine}:{os.environ['PATH']}",
    }
    command = ["bash", str(TOOLS / "system_libs.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_this_machine_has_everything() -> None:
    command = [sys.executable, str(TOOLS / "missing_packages.py")]
    assert subprocess.check_output(command, text=True) == ""


def test_without_rights_it_names_the_packages_and_the_command(machine: Path) -> None:
    result = system_libs(machine)
    assert result.returncode == 1
    assert "libegl1\tno EGL device" in result.stderr
    assert "sudo apt-get update && sudo apt-get install" in result.stderr
    assert not (machine / "apt.log").exists()


def test_root_installs(machine: Path) -> None:
    script(machine / "id", "echo 0")
    script(machine / "apt-get", f'echo "$@" >> "{machine}/apt.log"; touch "{machine}/libegl1"')
    result = system_libs(machine)
    assert result.returncode == 0, result.stderr
    assert "libegl1" in (machine / "apt.log").read_text()


@pytest.mark.parametrize("body", ["exit 100", "exit 0"], ids=["apt fails", "apt lies"])
def test_root_is_told_when_apt_did_not_help(machine: Path, body: str) -> None:
    script(machine / "id", "echo 0")
    script(machine / "apt-get", body)
    result = system_libs(machine)
    assert result.returncode == 1
    assert "still missing after apt-get" in result.stderr
    assert ("apt-get install failed" in result.stderr) == (body == "exit 100")


def test_a_crash_of_the_check_is_not_taken_for_success(machine: Path) -> None:
    script(machine / "python", 'case "$1" in -c) echo "$0";; *) exit 139;; esac')
    result = system_libs(machine)
    assert result.returncode == 1
    assert "the check itself failed" in result.stderr


def test_a_python_that_does_not_work_is_named() -> None:
    environment = os.environ | {"PYTHON": "/bin/false"}
    command = ["bash", str(TOOLS / "find_python.sh")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "PYTHON=/bin/false is not a working Python 3.11 or 3.12" in result.stderr
