"""Kill and stop `jepa-gym collect` at random moments and compare with a run that nothing stopped.

`python tools/interrupt_collect.py FOLDER`, where FOLDER does not exist yet; takes three minutes.
"""

from __future__ import annotations

import filecmp
import random
import signal
import subprocess
import sys
from pathlib import Path

FLAGS = [
    *("--episodes", "400", "--steps", "3", "--image-size", "32"),
    *("--camera", "left", "--workers", "2"),
]
INTERRUPTIONS = 14
WAIT_S = (0.5, 5.0)


def start(output: Path) -> subprocess.Popen[str]:
    """Start the collection."""
    command = [sys.executable, "-m", "jepa_gym.training.collection.collect", "--output"]
    return subprocess.Popen(
        [*command, str(output), *FLAGS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def main() -> int:
    """Interrupt, go on, compare; the status is 0 if the data are the same."""
    root = Path(sys.argv[1])
    root.mkdir(parents=True)
    start(root / "whole").communicate()
    rng = random.Random(0)
    for number in range(INTERRUPTIONS):
        process = start(root / "cut")
        try:
            process.communicate(timeout=rng.uniform(*WAIT_S))
        except subprocess.TimeoutExpired:
            sent = signal.SIGTERM if number % 2 else signal.SIGKILL
            process.send_signal(sent)
            output, _ = process.communicate()
            done = len(list((root / "cut" / "episodes").glob("0*")))
            print(f"{sent.name}: status {process.returncode}, {done} episodes", flush=True)
            assert "Traceback" not in output, output
    output, _ = start(root / "cut").communicate()
    print(output.splitlines()[-1])
    files = [path.relative_to(root / "whole") for path in (root / "whole").rglob("*.*")]
    names = [
        str(path)
        for path in files
        if path.name != "files.json" and (root / "whole" / path).is_file()
    ]
    _, other, missing = filecmp.cmpfiles(root / "whole", root / "cut", names, shallow=False)
    print(f"{len(names)} files, other: {other}, missing: {missing}")
    return int(bool(other or missing))


if __name__ == "__main__":
    raise SystemExit(main())
