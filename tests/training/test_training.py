from __future__ import annotations

import subprocess
import sys


def test_importing_leaves_the_environment_alone():
    code = (
        "import os; before = dict(os.environ); import jepa_gym.training.recipes.joint; "
        "changed = {k for k in os.environ if os.environ[k] != before.get(k)}; "
        "assert 'OMP_WAIT_POLICY' not in changed, changed"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
