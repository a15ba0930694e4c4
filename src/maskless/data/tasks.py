"""A table of facts about each kind of edit: what it needs, where it draws and what it is called.

Requests, pages and records read this table, so none of them lists the kinds of edit itself. To add a kind of edit, add
its entry here and its function in engine/tasks.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """Facts about one kind of edit.

    title: its heading on pages. needs_prompt: the request must have a prompt. needs_location: the request must have a
    caption, a mask or a box. whole_picture: without a mask it changes the whole picture. draws_on_nothing: the region
    was empty before, so there is nothing to compare the result with. replaces_caption: the object of the prompt
    replaces the object of the caption. searches: without a mask, one search finds the region, and can continue from a
    checkpoint.
    """

    name: str
    title: str
    needs_prompt: bool = True
    needs_location: bool = False
    whole_picture: bool = False
    draws_on_nothing: bool = False
    replaces_caption: bool = False
    searches: bool = False


FACTS: dict[str, TaskFacts] = {
    facts.name: facts
    for facts in (
        TaskFacts(name="complete", title="Complete the centre", needs_prompt=False, draws_on_nothing=True),
        TaskFacts(name="add", title="Add an object", searches=True),
        TaskFacts(name="remove", title="Remove an object", needs_prompt=False, needs_location=True),
        TaskFacts(name="replace", title="Replace an object", replaces_caption=True, searches=True),
        TaskFacts(name="extend", title="Extend the canvas", needs_prompt=False, draws_on_nothing=True),
        TaskFacts(name="repair", title="Repair scratches", needs_prompt=False),
        TaskFacts(name="style", title="Change the style", whole_picture=True),
        TaskFacts(name="background", title="Change the background"),
        TaskFacts(name="texture", title="Add a texture", needs_location=True),
        TaskFacts(name="creative", title="Add several objects"),
        TaskFacts(
            name="generate", title="Generate a picture from words alone", whole_picture=True, draws_on_nothing=True
        ),
    )
}
TASKS = tuple(FACTS)
