"""What one visitor of the page has done: versions of a picture, to go back and forth between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from maskless.data.errors import MasklessError


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that a visitor opened. address: where the page shows it from. description: its alternative text."""

    file: Path
    address: str
    size_px: tuple[int, int]
    description: str


@dataclass(frozen=True, kw_only=True)
class Version:
    """A state of the picture: as it was opened, or a candidate of an edit.

    title: what the edit shows. before: what its source is. file: the picture of this version, at full resolution.
    source: the file that the edit was made of; None for the opened picture. job: name of the edit, and rank: of the
    candidate.
    """

    title: str
    file: Path
    address: str
    before: str = ""
    source: Path | None = None
    job: str | None = None
    rank: int = 1

    def thumb(self, longest_px: int) -> str:
        """The address of a small copy."""
        joint = "&amp;" if "?" in self.address else "?"
        return f"{self.address}{joint}longest={longest_px}"


@dataclass
class Session:
    """The versions of one picture. position: the one that is shown; later ones were undone."""

    picture: Picture | None = None
    versions: list[Version] = field(default_factory=list)
    position: int = 0

    @property
    def present(self) -> Version | None:
        """The version that is shown."""
        return self.versions[self.position] if self.versions else None

    def open(self, picture: Picture) -> None:
        """Begin with a picture."""
        self.picture, self.position = picture, 0
        self.versions = [Version(title="Original", file=picture.file, address=picture.address)]

    def add(self, version: Version) -> None:
        """Show a new version; those that were undone are forgotten."""
        self.versions = [*self.versions[: self.position + 1], version]
        self.position += 1

    def choose(self, rank: int, version_of: Callable[[int], Version]) -> None:
        """Show another candidate of the present edit."""
        self.versions[self.position] = replace(version_of(rank), before=self.versions[self.position].before)

    def move(self, position: int) -> None:
        """Show the version at a position; one that does not exist leaves the session as it is."""
        if 0 <= position < len(self.versions):
            self.position = position

    def source_of(self, *, again: bool) -> Path:
        """The file that the next edit is made of. again: edit the source of the present edit once more.

        Raises:
            MasklessError: there is no picture, or its time is over.
        """
        present = self.present
        if present is None:
            raise MasklessError("open a picture first")
        file = present.source if again and present.source is not None else present.file
        if not file.exists():
            raise MasklessError("this picture has been deleted because its time is over; open it again")
        return file
