"""From a key to new frames in `jepa-gym play`, in a real headless browser.

`python benchmarks/play_latency.py` starts the server and Chromium, presses keys and measures, in
the page, the time from the key to when the new pictures are decoded.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jepa_gym.benchmarks.results import Record
from jepa_gym.benchmarks.timing import Measurement, command

BAR_MS = 100.0
KEYS = ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "w", "s", "q", "e")
WARM_UP = 4


@dataclass(frozen=True)
class Arguments(Measurement):
    """Measure the time from a key to new frames in `jepa-gym play`."""

    presses: int = 48
    """Keys to press in each round."""
    browser: str = "chromium"
    """Program of the browser."""

    QUICK: ClassVar[dict[str, int]] = {"presses": 8, "rounds": 1}
    LEAST: ClassVar[dict[str, float]] = {"presses": 1}


def pressed(address: str, program: str, presses: int) -> list[float]:
    """Return the milliseconds of each key on the page at `address`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("body[data-step]")
        for number in range(WARM_UP + presses):
            page.keyboard.press(KEYS[number % len(KEYS)])
            page.wait_for_function(f"latency_ms.length > {number}")
        found = page.evaluate("latency_ms")
        browser.close()
    return found[WARM_UP:]


def run(arguments: Arguments) -> Record:
    """Measure and print.

    Returns:
        Median, 95th percentile and largest of the milliseconds, and whether the bar was `met` by
        the first two.

    Raises:
        FileNotFoundError: If there is no such browser.
        RuntimeError: If the server does not start.
    """
    program = shutil.which(arguments.browser)
    if program is None:
        raise FileNotFoundError(f"no browser {arguments.browser!r}: apt-get install chromium")
    found: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        server = [sys.executable, "-m", "jepa_gym.benchmarks.play", "--port", "0"]
        process = subprocess.Popen([*server, "--output", folder], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        try:
            told = next((line for line in process.stderr if "open http" in line), "")
            address = re.search(r"http://[\d.:]+", told)
            if address is None:
                raise RuntimeError("`jepa-gym play` did not start; call it to see why")
            for _ in range(arguments.rounds):
                found += pressed(address[0], program, arguments.presses)
        finally:
            process.terminate()
            process.wait()
    median = statistics.median(found)
    high = sorted(found)[int(0.95 * (len(found) - 1))]
    print(f"{len(found)} keys: median {median:.0f} ms, 95 % within {high:.0f} ms", end="")
    print(f", at most {max(found):.0f} ms (bar {BAR_MS:.0f})")
    met = max(median, high) <= BAR_MS
    return {"median_ms": median, "high_ms": high, "max_ms": max(found), "met": met}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return command(run, Arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
