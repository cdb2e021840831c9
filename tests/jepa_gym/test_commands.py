from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from jepa_gym import logs
from jepa_gym.commands import Terminated, guarded, run_command


@dataclass(frozen=True)
class Sizes:
    """A command of the tests."""

    count: int = 3
    """How many."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"`count` must be at least 1,\n got {self.count}")


def test_the_configuration_reaches_the_command() -> None:
    seen = []
    assert run_command(seen.append, Sizes, ["--count", "5"]) == 0
    assert seen == [Sizes(5)]


def test_the_status_is_what_the_command_returns() -> None:
    assert guarded(lambda: 7) == 7
    assert guarded(lambda: "text") == 0


def test_a_wrong_value_is_one_line_and_status_1(capsys: pytest.CaptureFixture) -> None:
    assert run_command(lambda _: None, Sizes, ["--count", "0"]) == 1
    assert capsys.readouterr().err == "error: `count` must be at least 1, got 0\n"


@pytest.mark.parametrize("flags", [["--cuont", "1"], ["--count", "many"], ["--count"]])
def test_a_wrong_flag_is_one_line_and_status_2(
    flags: list[str], capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_command(lambda _: None, Sizes, flags)
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1
    assert "--count" in told or "--cuont" in told


@pytest.mark.parametrize("error", [KeyError("x"), AttributeError("x"), NotImplementedError("x")])
def test_a_fault_of_the_program_keeps_its_traceback(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        guarded(fail)


def test_the_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JEPA_GYM_TRACEBACK", "1")
    with pytest.raises(ValueError, match="at least 1"):
        run_command(lambda _: None, Sizes, ["--count", "0"])


def test_a_full_disk_says_what_to_do(capsys: pytest.CaptureFixture) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x.bin")

    assert guarded(fail) == 1
    message = capsys.readouterr().err
    assert "the disk is full while writing x.bin" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_stopping_says_how_to_go_on(
    error: BaseException, status: int, capsys: pytest.CaptureFixture
) -> None:
    def fail() -> None:
        raise error

    assert guarded(fail, stopped="It goes on.") == status
    assert capsys.readouterr().err.endswith(". It goes on.\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_run_clean_up_and_end_the_process(number: signal.Signals, status: int) -> None:
    code = """if True:
        import sys, time
        from jepa_gym.commands import guarded
        def run():
            try:
                print("ready", flush=True)
                time.sleep(60)
            finally:
                print("cleaned", flush=True)
        sys.exit(guarded(run))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    os.kill(process.pid, number)
    out, error = process.communicate(timeout=20)
    assert process.returncode == status
    assert out == "cleaned\n"
    assert "Traceback" not in error


def test_the_handler_of_the_caller_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    guarded(lambda: None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_verbosity_is_a_flag_of_every_command(capsys):
    def tell(sizes):
        logging.getLogger("__main__").info("a script")
        log = logging.getLogger("jepa_gym.some.module")
        log.debug("detail")
        log.info("told")
        log.warning("doubt")
        list(logs.progress_bar(range(2), "bar"))
        print("result")

    for flag, shown, hidden in (
        ("--quiet", ["doubt"], ["detail", "told", "bar"]),
        (None, ["doubt", "told", "bar", "a script"], ["detail"]),
        ("--verbose", ["doubt", "told", "bar", "jepa_gym.some.module: detail"], []),
    ):
        assert run_command(tell, Sizes, ["--count", "2", *([flag] if flag else [])]) == 0
        printed = capsys.readouterr()
        assert printed.out == "result\n"
        assert all(part in printed.err for part in shown), printed.err
        assert not any(part in printed.err for part in hidden), printed.err


def test_progress_into_a_file_is_told_seldom(capsys):
    bar = logs.progress_bar(range(100_000), "many")
    assert (bar.mininterval, bar.maxinterval) == (logs.LINE_EVERY_S,) * 2
    list(bar)
    assert capsys.readouterr().err.count("many") <= 2, "the begin and the end"
