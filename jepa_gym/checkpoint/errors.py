"""What goes wrong with files of models; the messages say what to do."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A file of a model that cannot be used."""


class DownloadError(OSError):
    """A file that could not be got, or is not what was published."""
