"""What happens when a visitor of the page does something. Edits are jobs of the server's one queue."""

from __future__ import annotations

import base64
import binascii
import io
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np

from maskless.data.errors import MasklessError, require
from maskless.data.files import write_bytes
from maskless.data.picture import load_image
from maskless.interfaces.jobs.following import changes
from maskless.interfaces.jobs.job import Job
from maskless.interfaces.jobs.spec import OPTIONS, EditSpec, loaded
from maskless.interfaces.jobs.uploads import Upload, UploadLimits, checked_upload
from maskless.interfaces.jobs.worker import Jobs
from maskless.interfaces.web import page_html
from maskless.interfaces.web.session import Picture, Session, Version

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported
import gradio as gr  # noqa: E402

SAMPLES = Path(__file__).parents[2] / "assets" / "samples"
SCENE_PX = 256
SCENE_SEEDS = range(900_000_000, 1_000_000_000)
"""Scenes that no bundled model was trained on."""
REFRESH_SECONDS = 0.25
MOST_BYTES = 2**31
Views = tuple[Any, ...]


class PageEvents:
    """The handlers of the page. They return what `_views` gives: the session, four parts as HTML, and four buttons."""

    def __init__(self, jobs: Jobs, limits: UploadLimits) -> None:
        self.jobs, self._limits = jobs, limits
        self.pictures: dict[str, Path] = {}
        self.names: tuple[str, ...] = ()
        self._running: dict[str, Job] = {}

    @property
    def draws_scenes(self) -> bool:
        """Whether the models know the drawn world, so that new scenes of it make sense."""
        return self.jobs.editor.models.options.models == "storybook"

    @property
    def first_scene(self) -> int:
        """The seed that the page begins with."""
        return 7

    @property
    def keep_minutes(self) -> float:
        """How long pictures are kept."""
        return self.jobs.limits.keep_seconds / 60

    def keep_picture(self, content: bytes) -> str:
        """Check and keep a visitor's picture, and return the name by which only this visitor knows it."""
        upload = checked_upload(content, self._limits)
        self._remove_expired()
        name = secrets.token_urlsafe(18)
        file = self.jobs.folder / "pictures" / name / f"picture{upload.suffix}"
        write_bytes(file, content)
        try:
            loaded(file)
        except MasklessError:
            shutil.rmtree(file.parent)
            raise
        self.pictures[name] = file
        return name

    def open_upload(self, session: Session, event: gr.EventData) -> Views:
        """A picture of the visitor's own, which the page has sent before."""
        name = str(_detail(event).get("name"))
        if name not in self.pictures:
            return self._views(session, page_html.problem("this picture has been deleted; open it again"))
        return self._views(self._opened(name, "The picture that you opened"))

    def refuse(self, session: Session, event: gr.EventData) -> Views:
        """Say why a picture could not be opened."""
        return self._views(session, page_html.problem(str(_detail(event).get("message"))[:500]))

    def open_sample(self, session: Session, event: gr.EventData) -> Views:
        """One of the bundled pictures, with words for it."""
        name = str(_detail(event).get("name"))
        if name not in page_html.SAMPLES:
            return (*self._views(session), gr.skip())
        opened = self._opened(self.keep_picture((SAMPLES / name).read_bytes()), f"The sample “{name[:-4]}”")
        return (*self._views(opened), page_html.SAMPLES[name])

    def new_scene(self, session: Session, seed: float | None) -> Views:
        """A drawn scene by its number, with words for it; the next number is offered."""
        from maskless.storybook.world.scenes import render

        number = int(seed or 0) % len(SCENE_SEEDS)
        scene = render(SCENE_SEEDS[number], SCENE_PX)
        file = io.BytesIO()
        scene.image.save(file, format="PNG")
        opened = self._opened(self.keep_picture(file.getvalue()), f"A drawn scene: {scene.caption}")
        words = gr.skip()
        if scene.objects:
            largest = max(scene.objects, key=lambda item: int(item.mask.sum()))
            other = "a blue house" if largest.kind != "house" else "a red car"
            words = f"replace the {largest.colour} {largest.kind} with {other}"
        return (*self._views(opened, page_html.note(f"Scene {number}: {scene.caption}")), words, number + 1)

    async def edit(self, request: gr.Request, session: Session, *given: Any) -> AsyncIterator[Views]:
        """Edit the present version by the words of the form."""
        async for views in self._edited(session, given, request, again=False):
            yield views

    async def edit_here(
        self, event: gr.EventData, request: gr.Request, session: Session, *given: Any
    ) -> AsyncIterator[Views]:
        """Make the present edit again, in the region that the visitor drew."""
        async for views in self._edited(session, given, request, again=True, drawn=_detail(event)):
            yield views

    def cancel(self, request: gr.Request) -> None:
        """Cancel the visitor's edit."""
        job = self._running.get(str(request.session_hash))
        if job is not None:
            self.jobs.cancel(job)

    def left(self, request: gr.Request) -> None:
        """The visitor has closed the page: free the place of the edit."""
        self.cancel(request)

    def choose(self, session: Session, event: gr.EventData) -> Views:
        """Show another candidate."""
        present = session.present
        job = None if present is None or present.job is None else self.jobs.get(present.job)
        rank = _detail(event).get("rank")
        if job is not None and job.outcome is not None and isinstance(rank, int):
            finished = job
            if 1 <= rank <= len(job.outcome.pictures):
                session.choose(rank, lambda chosen: _version(finished, chosen))
        return self._views(session)

    def visit(self, session: Session, event: gr.EventData) -> Views:
        """Show a version of the history."""
        position = _detail(event).get("position")
        session.move(position if isinstance(position, int) else -1)
        return self._views(session)

    def undo(self, session: Session) -> Views:
        """Show the version before the present one."""
        session.move(session.position - 1)
        return self._views(session)

    def redo(self, session: Session) -> Views:
        """Show the version after the present one."""
        session.move(session.position + 1)
        return self._views(session)

    async def _edited(
        self, session: Session, given: tuple[Any, ...], request: gr.Request, *, again: bool, drawn: Any = None
    ) -> AsyncIterator[Views]:
        """Make an edit, and give the views whenever it has come further."""
        visitor = str(request.session_hash)
        try:
            require(visitor not in self._running, "an edit of yours is being made; cancel it first")
            source = session.source_of(again=again)
            spec = EditSpec.read(self._values(given, drawn))
            # What an edit wrote may have more bytes than an upload: a PNG of a large JPEG.
            upload = checked_upload(source.read_bytes(), replace(self._limits, max_bytes=MOST_BYTES))
            mask = self._mask(drawn, source)
            job = await anyio.to_thread.run_sync(self.jobs.submit, spec, upload, mask)
        except MasklessError as error:
            yield self._views(session, page_html.problem(str(error)))
            return
        self._running[visitor] = job
        present = session.present
        assert present is not None
        before = f"{present.address}{'&amp;' if '?' in present.address else '?'}longest={page_html.VIEW_PX}"
        try:
            shown_at = 0.0
            async for _version_number in changes(job, self.jobs, _stays):
                if job.is_finished or time.monotonic() - shown_at < REFRESH_SECONDS and job.steps:
                    continue
                shown_at = time.monotonic()
                yield self._running_views(session, job, before, upload.size_px)
        except MasklessError as error:
            yield self._views(session, page_html.problem(str(error)))
            return
        finally:
            self._running.pop(visitor, None)
        if job.outcome is not None:
            version = _version(job, 1)
            session.add(Version(**{**vars(version), "before": present.title, "source": source}))
        yield self._views(session, page_html.ended(job))

    def _values(self, given: tuple[Any, ...], drawn: Any) -> dict[str, Any]:
        """The fields of an edit from the form: texts, kind, and the options that differ from the server's."""
        instruction, caption, prompt, kind, *options = given
        values: dict[str, Any] = {"task": kind or None, "caption": caption, "prompt": prompt}
        if str(instruction).strip():
            values["instruction"] = instruction
        defaults = self.jobs.editor.config.to_dict()
        for name, value in zip(self.names, options, strict=True):
            if isinstance(value, float) and name in (*OPTIONS, "seed") and value.is_integer():
                value = int(value)
            if value != defaults.get(name, ""):
                values[name] = value
        if isinstance(drawn, dict) and "box" in drawn:
            values["box"] = drawn["box"]
        return values

    def _mask(self, drawn: Any, source: Path) -> Upload | None:
        """What the visitor has painted as a mask of the picture's size; None without a brush."""
        if not isinstance(drawn, dict) or "mask" not in drawn:
            return None
        from PIL import Image

        kind, _comma, encoded = str(drawn["mask"]).partition(",")
        try:
            require(kind == "data:image/png;base64", "the painted region must be a PNG")
            painted = checked_upload(base64.b64decode(encoded, validate=True), self._limits, what="painted region")
        except (binascii.Error, ValueError) as error:
            raise MasklessError(str(error)) from None
        height, width = load_image(source).pixels.shape[:2]
        with Image.open(io.BytesIO(painted.content)) as image:
            bright = (
                image.convert("L")
                .resize((width, height), Image.Resampling.BILINEAR)
                .point([255 * (value > 127) for value in range(256)])
            )
        require(bool(np.asarray(bright).any()), "paint over what should change first")
        file = io.BytesIO()
        bright.save(file, format="PNG")
        return Upload(content=file.getvalue(), suffix=".png", size_px=(width, height))

    def _opened(self, name: str, description: str) -> Session:
        """A session that begins with a picture that was kept."""
        file = self.pictures[name]
        height, width = load_image(file).pixels.shape[:2]
        session = Session()
        session.open(Picture(file=file, address=f"/pictures/{name}", size_px=(width, height), description=description))
        return session

    def _remove_expired(self) -> None:
        """Delete pictures whose time is over, those and those that an earlier server left."""
        for folder in (self.jobs.folder / "pictures").glob("*"):
            if time.time() - folder.stat().st_mtime > self.jobs.limits.keep_seconds:
                self.pictures.pop(folder.name, None)
                shutil.rmtree(folder, ignore_errors=True)

    def _views(self, session: Session, status: str = "") -> Views:
        """What the page shows of a session."""
        present, picture = session.present, session.picture
        job = None if present is None or present.job is None else self.jobs.get(present.job)
        stage, cards = page_html.empty_stage(self.keep_minutes), ""
        if present is not None and job is not None and job.outcome is not None:
            stage, cards = page_html.result_stage(present, job), page_html.cards(present, job)
        elif present is not None and present.job is not None:
            status = status or page_html.problem("this edit has been deleted because its time is over")
        elif picture is not None:
            stage = page_html.picture_stage(picture)
        return (
            session, stage, status, cards, page_html.history(session),
            gr.Button(interactive=True), gr.Button(visible=False),
            gr.Button(interactive=session.position > 0),
            gr.Button(interactive=session.position < len(session.versions) - 1),
        )  # fmt: skip

    def _running_views(self, session: Session, job: Job, before: str, size_px: tuple[int, int]) -> Views:
        """What the page shows while an edit is made."""
        off = gr.Button(interactive=False)
        return (
            session, page_html.running_stage(job, before, size_px),
            page_html.progress(job, self.jobs.position(job)), "", page_html.history(session),
            off, gr.Button(visible=True), off, off,
        )  # fmt: skip


def _version(job: Job, rank: int) -> Version:
    """A candidate as a version of the picture."""
    assert job.outcome is not None
    facts = job.outcome.facts
    words = facts["prompt"] if facts["task"] != "remove" else f"without {facts['caption']}"
    return Version(
        title=" ".join((words or facts["task"]).split())[:80],
        file=job.outcome.pictures[rank - 1],
        address=f"/v1/edits/{job.name}/image?rank={rank}",
        source=job.image,
        job=job.name,
        rank=rank,
    )


def _detail(event: gr.EventData) -> dict[str, Any]:
    """What a button of the page has sent with its event; anybody can send anything."""
    return event._data if isinstance(event._data, dict) else {}


async def _stays() -> bool:
    """Visitors who go away are noticed by `left`, and by the end of their connection."""
    return False
