"""Training: episodes and datasets on disk, losses, the two recipes and the energy landscape."""

import os

if __name__ == "training":
    raise ImportError(
        "import this package as `jepa_gym.training` (installed with `pip install -e .`), "
        "not as a top-level `training`"
    )

# Threads that spin while they wait for each other make a step ten times slower as soon as anything
# else runs on the same cores. The thread library reads this when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
