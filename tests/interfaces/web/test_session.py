"""The history of one visitor: undo, redo, and what is forgotten."""

from dataclasses import replace
from pathlib import Path

import pytest

from maskless.data.errors import MasklessError
from maskless.interfaces.web.session import Picture, Session, Version


@pytest.fixture
def session(tmp_path: Path) -> Session:
    for name in ("opened.png", "first.png", "second.png"):
        (tmp_path / name).write_bytes(b"x")
    session = Session()
    session.open(Picture(file=tmp_path / "opened.png", address="/p/1", size_px=(64, 48), description="a picture"))
    return session


def version(folder: Path, name: str, source: str) -> Version:
    return Version(
        title=name, file=folder / f"{name}.png", address=f"/v/{name}", source=folder / f"{source}.png", job=name
    )


def test_undo_redo_and_a_new_edit_after_an_undo(session, tmp_path):
    session.add(version(tmp_path, "first", "opened"))
    session.add(version(tmp_path, "second", "first"))
    assert session.source_of(again=False).name == "second.png" and session.source_of(again=True).name == "first.png"
    session.move(session.position - 1)
    session.move(session.position - 1)
    assert session.present.title == "Original" and session.source_of(again=True).name == "opened.png"
    session.move(-1)
    session.move(99)
    assert session.position == 0
    session.add(version(tmp_path, "second", "opened"))
    assert [each.title for each in session.versions] == ["Original", "second"]


def test_another_candidate_takes_the_place_of_the_present_one(session, tmp_path):
    session.add(replace(version(tmp_path, "first", "opened"), before="Original"))
    session.choose(2, lambda rank: replace(version(tmp_path, "second", "opened"), rank=rank))
    assert (session.present.title, session.present.rank, session.present.before) == ("second", 2, "Original")
    assert len(session.versions) == 2


def test_a_picture_whose_time_is_over_is_asked_for_again(session, tmp_path):
    (tmp_path / "opened.png").unlink()
    with pytest.raises(MasklessError, match="open it again"):
        session.source_of(again=False)
    with pytest.raises(MasklessError, match="open a picture first"):
        Session().source_of(again=False)


def test_small_copies_have_an_address_of_their_own(tmp_path):
    plain, asked = version(tmp_path, "a", "b"), replace(version(tmp_path, "a", "b"), address="/v/a?rank=2")
    assert plain.thumb(120) == "/v/a?longest=120" and asked.thumb(120) == "/v/a?rank=2&amp;longest=120"
