"""Training: recording and reading episodes, the engine, and what it trains."""

if __name__ == "training":
    raise ImportError(
        "import this package as `jepa_gym.training` (installed with `pip install -e .`), "
        "not as a top-level `training`"
    )
