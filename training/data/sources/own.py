"""What `jepa-gym collect` and `write_episode` write: DROID's layout, all episodes in one folder."""

from __future__ import annotations

from pathlib import Path

from jepa_gym.files import parse_json
from jepa_gym.training.data.sources.droid import DroidSource


class OwnSource(DroidSource):
    """The episodes in `episodes/`, each named by its folder."""

    format = "jepa-gym"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        index_path = path / "dataset.json"
        index = parse_json(index_path.read_text()) if index_path.is_file() else {}
        self.state_convention = index.get("state_convention", "hand")
        if "cameras" in index and "sources" not in index:  # an index may show some of the views
            self.cameras = tuple(index["cameras"])

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Say whether a folder has `episodes/` with an episode in it."""
        return next((path / "episodes").glob("*/metadata_*.json"), None) is not None

    def ids(self) -> list[str]:
        """Return the names of the episodes' folders (half-written ones left out)."""
        root = self.path / "episodes"
        return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))

    def files(self, episode_id: str) -> list[Path]:
        """Return all files of an episode."""
        return [path for path in self.folder(episode_id).rglob("*") if path.is_file()]

    def folder(self, episode_id: str) -> Path:
        """Return an episode's folder."""
        return self.path / "episodes" / episode_id
