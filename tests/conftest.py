from __future__ import annotations

import pytest

from jepa_gym import logs


@pytest.fixture(autouse=True)
def messages():
    """Show messages on stderr, as commands do, where a test calls what is below a command."""
    logs.begin()
