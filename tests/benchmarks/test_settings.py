"""What decides the numbers."""

from __future__ import annotations

import json

from jepa_gym.benchmarks.settings import checkpoint_digest, versions
from jepa_gym.checkpoint.sources import locate


def test_digests_of_every_kind_of_checkpoint(tmp_path):
    """A folder of published names and a single file once had no digest, after all episodes ran."""
    weights = {path.name for path in locate("default").glob("*.safetensors")}
    assert {"model.safetensors", "inverse.safetensors"} <= weights
    assert set(checkpoint_digest("default")) == weights | {"config.json"}
    for name in ("config.json", "vjepa2-ac.pt"):
        (tmp_path / name).write_text(name)
    found = checkpoint_digest(str(tmp_path))
    assert set(found) == {"config.json", "vjepa2-ac.pt"}
    single = checkpoint_digest(str(tmp_path / "vjepa2-ac.pt"))
    assert single["vjepa2-ac.pt"] == found["vjepa2-ac.pt"] and len(set(found.values())) == 2


def test_versions_name_code_and_packages():
    found = versions()
    assert {"jepa-gym", "code", "torch", "mujoco", "robosuite"} <= set(found)
    assert found == versions() and json.dumps(found)
