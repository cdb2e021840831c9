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
        index = parse_json((path / "dataset.json").read_text())
        self.cameras = tuple(index["cameras"])
        self.state_convention = index.get("state_convention", "hand")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Say whether a folder has an index and episodes."""
        return (path / "dataset.json").is_file() and (path / "episodes").is_dir()

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
