"""The README's examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_example_runs(capsys) -> None:
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(examples) == 3
    names: dict = {}
    for example in examples:  # the later ones use the imports of the first
        exec(compile(example, str(README), "exec"), names)
    names["vector"].close()
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("reached:", "best dx in m:", "energy:"))
