"""The results of a benchmark in a folder: what is finished is kept, and is never mixed.

Every finished job is one JSON line, appended at once. `settings.json` beside it holds what decides
the numbers: weights, versions, code, environment. A run with the same settings leaves out the jobs
whose lines are there, so an interrupted run goes on where it stopped, and more jobs can be added
later. A run with other settings is refused unless it may overwrite.
"""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jepa_gym.files import atomic_write, parse_json

_LOG = logging.getLogger(__name__)

SETTINGS_FILE = "settings.json"
Record = dict[str, Any]


class ResultsError(RuntimeError):
    """A folder of results cannot be used; it is left as it was."""


class Results:
    """The finished jobs in a folder; a context manager that keeps other runs out of it.

    Args:
        folder: Where the results are; made when missing.
        lines: Name of the file with one JSON line for each job.
        settings: What decides the numbers, by name (JSON types).
        overwrite: Whether lines that were made with other settings are deleted.

    Raises:
        ResultsError: If another run works in the folder, a line is damaged, or the lines were made
            with other settings and must not be overwritten. Nothing is changed then.
    """

    def __init__(self, folder: Path, lines: str, settings: Record, overwrite: bool = False) -> None:
        self.folder, self.path = folder, folder / lines
        settings = json.loads(json.dumps(settings))
        folder.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab+", buffering=0)
        try:
            self._lock()
            self.records = self._read(overwrite)
            earlier = self._earlier_settings()
            if self.records and (changes := _changes(earlier, settings)):
                if not overwrite:
                    raise ResultsError(
                        f"{folder} has {len(self.records)} results of other settings: {changes}. "
                        "Give another --output, or --overwrite to delete them."
                    )
                self.records = []
                self._file.truncate(0)
            self.settings = ((earlier if self.records else None) or {}) | settings
            write_json(self.settings, folder / SETTINGS_FILE)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def finished(self, identities: Sequence[Record]) -> list[Record | None]:
        """Return the record of each job, or None for those that are still to be run.

        Args:
            identities: What tells a job from all others, with the same names for each.
        """
        if not identities:
            return []
        names = tuple(identities[0])
        known = {_key(record, names): record for record in self.records}
        return [known.get(_key(identity, names)) for identity in identities]

    def ordered(self, identities: Sequence[Record]) -> list[Record]:
        """Return all records: first those of some jobs in their order, then those of other runs.

        Args:
            identities: As in `finished`.
        """
        mine = [record for record in self.finished(identities) if record is not None]
        names = tuple(identities[0])
        taken = {_key(record, names) for record in mine}
        others = {_key(r, names): r for r in self.records if _key(r, names) not in taken}
        return mine + [others[key] for key in sorted(others)]

    def append(self, record: Record) -> None:
        """Keep a finished job: its line is on its way to the disk when this returns."""
        rest = memoryview((json.dumps(record) + "\n").encode())
        while rest:
            rest = rest[self._file.write(rest) :]
        self.records.append(record)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultsError(
                f"Another run is writing to {self.path}; wait for its end or give another --output."
            ) from None

    def _read(self, overwrite: bool) -> list[Record]:
        """Return all lines; the last one is dropped if its end was never written."""
        self._file.seek(0)
        text = self._file.readall() or b""
        complete = text.rfind(b"\n") + 1
        if complete < len(text):
            _LOG.warning(f"{self.path}: dropped the last line, it was cut off.")
            self._file.truncate(complete)
        found: list[Record] = []
        for number, line in enumerate(text[:complete].splitlines(), 1):
            try:
                found.append(dict(parse_json(line)))
            except (ValueError, TypeError) as error:
                if not overwrite:
                    raise ResultsError(
                        f"Line {number} of {self.path} is damaged ({error}). Delete the line, give "
                        "another --output, or --overwrite to leave such lines out."
                    ) from error
        return found

    def _earlier_settings(self) -> Record | None:
        """Return the settings of the lines, or None if nothing readable tells them."""
        try:
            found = parse_json((self.folder / SETTINGS_FILE).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None


def _key(record: Record, names: Iterable[str]) -> str:
    return json.dumps([record.get(name) for name in names], sort_keys=True)


def _changes(earlier: Record | None, settings: Record) -> str:
    """Say what differs; a setting that played no part earlier does not."""
    if earlier is None:
        return f"there is no readable {SETTINGS_FILE} beside them"
    names = [name for name in settings if name in earlier and earlier[name] != settings[name]]
    return "; ".join(f"`{n}` was {_short(earlier[n])} and is {_short(settings[n])}" for n in names)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def write_json(content: Any, path: Path) -> None:
    """Write JSON for humans and programs alike, complete or not at all."""
    with atomic_write(path) as file:
        file.write_text(json.dumps(content, indent=2) + "\n")
