"""Benchmarks: thin scripts over the other rooms, and what they share."""

from __future__ import annotations

if __name__ == "benchmarks":
    raise ImportError(
        "This folder is the package `jepa_gym.benchmarks`; import it by that name, for example "
        "`from jepa_gym.benchmarks.intervals import wilson`."
    )
