"""What works for each of robosuite's tasks: `python tools/robosuite_tasks.py` prints a table.

Times are CPU time of one thread (set OMP_NUM_THREADS=1), with the two pictures of a dataset. The
last column plays eight episodes of the behaviour `grasp`, which takes whatever object it has drawn
from above at its middle, and counts those in which something rises by 3 cm. It is the table of
docs/collect.md.
"""

from __future__ import annotations

import sys
import time

from jepa_gym import ROBOSUITE_TASKS
from jepa_gym.training.collection.robosuite_adapter import RobosuiteAdapter

FRAME = {"camera": "left+wrist", "image_size": 128, "step_s": 0.25, "max_move_m": 0.075}
EPISODES, STEPS = 8, 12
RISE_M = 0.03


def row(task: str) -> str:
    """Measure one task and return its row of the table."""
    adapter = RobosuiteAdapter(RobosuiteAdapter.make(f"robosuite/{task}", FRAME), 128)
    resets, steps, lifted = [], [], 0
    for seed in range(EPISODES):
        start = time.process_time()
        _, policy = adapter.begin(seed, {"grasp": 1.0})
        resets.append(time.process_time() - start)
        before = adapter.objects()
        rise_m = 0.0
        for step in range(STEPS):
            action = policy(step)
            start = time.process_time()
            adapter.act(action)
            steps.append(time.process_time() - start)
            now = adapter.objects()
            rises = [now[name][2] - before[name][2] for name in before.keys() & now.keys()]
            rise_m = max([rise_m, *rises])
        lifted += rise_m > RISE_M
    adapter.env.close()
    times = (f"{1e3 * sum(values) / len(values):.0f}" for values in (resets, steps))
    return f"| `robosuite/{task}` | {' | '.join(times)} | {lifted} of {EPISODES} |"


def main() -> int:
    """Print the table."""
    print("| task | reset, ms | step with two pictures, ms | `grasp` lifts something |")
    print("|---|---|---|---|")
    for task in ROBOSUITE_TASKS:
        print(row(task), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
