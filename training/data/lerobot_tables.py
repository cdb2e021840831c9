"""Tables of LeRobot's format v3, and the statistics that stand beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jepa_gym.training.data.sources.lerobot import parquet

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def episode_table(columns: Mapping[str, np.ndarray], features: Mapping[str, dict[str, Any]]) -> Any:
    """Make an Arrow table of the columns of an episode.

    Args:
        columns: Name -> (T,) or (T, n).
        features: Name -> its description in `meta/info.json`.
    """
    import pyarrow as pa

    kinds = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}
    arrays = {}
    for name, values in columns.items():
        kind = kinds[features[name]["dtype"]]
        if values.ndim == 2:
            kind = pa.list_(kind, values.shape[1])
        arrays[name] = pa.array(values.astype(features[name]["dtype"]).tolist(), kind)
    return pa.table(arrays)


def write_tables(tables: list[Any], path: Path) -> None:
    """Write tables of equal columns, one after the other, as a Parquet file."""
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet().write_table(pa.concat_tables(tables), path)


def tasks_table(tasks: Mapping[str, int]) -> Any:
    """Make the table of tasks, whose texts LeRobot's pandas shall take for the index.

    Args:
        tasks: Text -> number, growing from 0.
    """
    import pyarrow as pa

    table = pa.table({"task_index": list(tasks.values()), "__index_level_0__": list(tasks)})
    described = [
        {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": numpy_kind}
        | {"metadata": None}
        for name, field, kind, numpy_kind in (
            ("task_index", "task_index", "int64", "int64"),
            (None, "__index_level_0__", "unicode", "object"),
        )
    ]
    pandas = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [],
        "columns": described,
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return min, max, mean, std and quantiles of (T, n) or (T,) numbers, (n,) or (1,), and T."""
    numbers = values.reshape(len(values), -1)
    exact = numbers.astype(np.float64)
    found = {"min": numbers.min(0), "max": numbers.max(0)}
    found |= {"mean": exact.mean(0), "std": exact.std(0), "count": np.array([len(numbers)])}
    return found | {name: np.quantile(exact, share, axis=0) for name, share in QUANTILES.items()}


def combined_statistics(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Combine the statistics of episodes; quantiles are averaged, as LeRobot does.

    Args:
        parts: Those of each episode: (...) each, and `count` (1,).
    """
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    counts = stacked["count"].reshape(-1, *[1] * (stacked["mean"].ndim - 1))
    weights = counts / counts.sum()
    mean = (weights * stacked["mean"]).sum(0)
    spread = (weights * (stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)).sum(0)
    found = {"min": stacked["min"].min(0), "max": stacked["max"].max(0)}
    found |= {"mean": mean, "std": np.sqrt(spread), "count": stacked["count"].sum(0)}
    return found | {name: (weights * stacked[name]).sum(0) for name in QUANTILES}
