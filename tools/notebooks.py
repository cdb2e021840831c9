"""Execute the notebooks in place: `python tools/notebooks.py [NAME ...]` (`make notebooks`).

`JEPA_GYM_NOTEBOOK_SCALE=tiny` makes their trainings small, as the tests do.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
TIMEOUT_S = 1800


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Return a notebook with what its cells give.

    Args:
        path: The notebook.
        folder: Where it runs.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which differ from run to run
    return notebook


def main(names: list[str]) -> int:
    """Execute the named notebooks, or all."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if names and path.name not in names and path.stem not in names:
            continue
        begin = time.perf_counter()
        notebook = executed(path, FOLDER.parent)
        nbformat.write(notebook, path)
        print(f"{path.name}: {time.perf_counter() - begin:.0f} s, {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
