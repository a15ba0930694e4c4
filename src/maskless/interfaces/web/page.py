"""The page at /: Gradio's components, and the parts of page_html.

Pictures never pass through Gradio, whose image components write lossy copies: they are uploaded to an address of this
server, and shown and downloaded from those of the HTTP API.
"""

from __future__ import annotations

import os
from dataclasses import fields
from importlib.resources import files
from typing import Any

import anyio
from fastapi import FastAPI, UploadFile
from fastapi.responses import FileResponse

from maskless.data.config import EditConfig
from maskless.data.tasks import FACTS
from maskless.interfaces.jobs.outcome import small_view
from maskless.interfaces.jobs.uploads import UploadLimits
from maskless.interfaces.jobs.worker import Jobs
from maskless.interfaces.web import page_html
from maskless.interfaces.web.answers import NotFound
from maskless.interfaces.web.page_events import PageEvents
from maskless.interfaces.web.session import Session

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported
import gradio as gr  # noqa: E402

ASSETS = files("maskless") / "assets"
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Consolas", "monospace")
KINDS = [("As the words say", ""), *((facts.title, name) for name, facts in FACTS.items())]
HIDDEN_OPTIONS = ("batch_size",)
"""Options that only the owner of a server can judge."""


def add_page(app: FastAPI, jobs: Jobs, limits: UploadLimits) -> None:
    """Put the page at /, with the pictures that it shows."""
    events = PageEvents(jobs, limits)

    @app.post("/pictures", include_in_schema=False)
    async def open_picture(image: UploadFile) -> dict[str, str]:
        return {"name": await anyio.to_thread.run_sync(events.keep_picture, await image.read())}

    @app.get("/samples/{name}", include_in_schema=False)
    def sample(name: str) -> FileResponse:
        if name not in page_html.SAMPLES:
            raise NotFound("there is no such sample")
        return FileResponse(str(ASSETS / "samples" / name))

    @app.get("/pictures/{name}", include_in_schema=False)
    def picture(name: str, longest: int = page_html.VIEW_PX) -> FileResponse:
        file = events.pictures.get(name)
        if file is None or not file.exists():
            raise NotFound("there is no such picture")
        return FileResponse(small_view(file, min(2048, max(16, longest))), media_type="image/png")

    blocks = _blocks(events)
    # A mounted page counts as not launched, and Gradio would then open any file of the server that a request names.
    blocks.has_launched = True
    gr.mount_gradio_app(
        app,
        blocks,
        path="",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        show_error=True,
        enable_monitoring=False,
        pwa=False,
        theme=_theme(),
        css=_asset("page.css"),
        head='<meta name="color-scheme" content="light dark"><meta name="description" content="Edit pictures">',
    )


def _asset(name: str) -> str:
    return (ASSETS / "web" / name).read_text("utf-8")


def _theme() -> gr.themes.Base:
    """Fonts of the visitor's system, so that none is loaded, and the colours of Maskless's reports."""
    accent = gr.themes.Color(
        "#fff4ef", "#ffe4d9", "#ffc8b3", "#ffa685", "#f97b50", "#e4572e", "#c23f17", "#9d3313", "#7e2c13", "#682813",
        "#381106",
    )  # fmt: skip
    return gr.themes.Base(
        primary_hue=accent, secondary_hue="blue", neutral_hue="slate", font=FONT, font_mono=MONO, radius_size="md"
    ).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        block_border_width="0px",
        block_shadow="none",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_label_background_fill="transparent",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


def _html(value: str, name: str, **more: Any) -> gr.HTML:
    """A part of the page whose buttons send the events that page.js names."""
    return gr.HTML(value, elem_id=name, js_on_load=_asset("page.js"), apply_default_css=False, **more)


def _blocks(events: PageEvents) -> gr.Blocks:
    """The whole page, with its events."""
    storybook = events.draws_scenes
    with gr.Blocks(title="Maskless", analytics_enabled=False, fill_width=True) as blocks:
        session = gr.State(Session())
        gr.HTML(page_html.HEAD, elem_id="ms-header", apply_default_css=False, js_on_load=None)
        with gr.Row(elem_id="ms-columns", equal_height=False):
            with gr.Column(scale=7, min_width=320, elem_id="ms-left"):
                with gr.Row(elem_id="ms-open"):
                    samples = _html(page_html.opener(), "ms-samples")
                    scene = gr.Button(
                        "New scene", size="md", scale=0, min_width=110, visible=storybook, elem_id="ms-scene"
                    )
                    seed = gr.Number(
                        value=events.first_scene, precision=0, minimum=0, label="Number of the scene", scale=0,
                        min_width=84, visible=storybook, elem_id="ms-seed", show_label=False, container=False,
                    )  # fmt: skip
                stage = _html(page_html.empty_stage(events.keep_minutes), "ms-stage")
            with gr.Column(scale=3, min_width=300, elem_id="ms-right"):
                instruction = gr.Textbox(
                    label="What to change", lines=1, max_lines=3, elem_id="ms-instruction",
                    placeholder="replace the red car with a blue house",
                    info="Or: remove the cat · add a tree · make the car striped · make it a pencil sketch",
                )  # fmt: skip
                with gr.Accordion("Or say it in two parts", open=False, elem_id="ms-parts"):
                    caption = gr.Textbox(label="What is there", placeholder="a red car", max_lines=2)
                    prompt = gr.Textbox(label="What should be there", placeholder="a blue house", max_lines=2)
                kind = gr.Dropdown(KINDS, value="", label="Kind of edit", filterable=False, elem_id="ms-kind")
                with gr.Row(elem_id="ms-actions"):
                    edit = gr.Button("Edit", variant="primary", elem_id="ms-edit", min_width=100)
                    cancel = gr.Button("Cancel", variant="stop", elem_id="ms-cancel", visible=False, min_width=100)
                with gr.Row(elem_id="ms-steps"):
                    undo = gr.Button("Undo", interactive=False, elem_id="ms-undo", min_width=80)
                    redo = gr.Button("Redo", interactive=False, elem_id="ms-redo", min_width=80)
                status = _html("", "ms-status")
                options = _advanced(events.jobs.editor.config)
        cards = _html("", "ms-candidates")
        history = _html("", "ms-history")
        views = [session, stage, status, cards, history, edit, cancel, undo, redo]
        words = [session, instruction, caption, prompt, kind, *options.values()]
        events.names = tuple(options)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        running: dict[str, Any] = {**quiet, "concurrency_limit": None, "trigger_mode": "once"}
        samples.opened(events.open_upload, session, views, **quiet)
        samples.refused(events.refuse, session, views, **quiet)
        samples.sample(events.open_sample, session, [*views, instruction], **quiet)
        scene.click(events.new_scene, [session, seed], [*views, instruction, seed], **quiet)
        gr.on([edit.click, instruction.submit, prompt.submit], events.edit, words, views, **running)
        stage.here(events.edit_here, words, views, **running)
        cancel.click(events.cancel, None, None, concurrency_limit=None, **quiet)
        cards.choose(events.choose, session, views, **quiet)
        history.visit(events.visit, session, views, **quiet)
        undo.click(events.undo, session, views, **quiet)
        redo.click(events.redo, session, views, **quiet)
        blocks.unload(events.left)
    return blocks


def _advanced(config: EditConfig) -> dict[str, gr.components.Component]:
    """A component for each option of an edit, in folded groups, with its help and its range."""
    made: dict[str, gr.components.Component] = {}
    groups: dict[str, list[Any]] = {}
    for option in fields(EditConfig):
        if option.name not in HIDDEN_OPTIONS:
            groups.setdefault(option.metadata["group"], []).append(option)
    with gr.Accordion("Advanced options", open=False, elem_id="ms-advanced"):
        made["extend"] = gr.Textbox(
            label="Canvas to add", info="For “Extend the canvas”: 0.25 of each side, 64 pixels, or left=0.5,top=40.",
            max_lines=1,
        )  # fmt: skip
        for group, options in groups.items():
            with gr.Accordion(group, open=False):
                for option in options:
                    made[option.name] = _component(option, getattr(config, option.name))
    return made


def _component(option: Any, value: Any) -> gr.components.Component:
    """The component of one option. Ranges are checked when the edit starts, whose message says more."""
    facts = option.metadata
    label, info = option.name.replace("_", " ").capitalize(), facts["help"].partition(" [default")[0].rstrip(".") + "."
    base = str(option.type).partition(" ")[0]
    named = [(choice, choice) for choice in facts["choices"] or ()]
    if base == "bool" and value is None:
        named = [("Yes", "true"), ("No", "false")]
    if named:
        left_out = [("As the search does", "")] if value is None else []
        return gr.Dropdown([*left_out, *named], value=value or "", label=label, info=info, filterable=False)
    if base == "bool":
        return gr.Checkbox(value=value, label=label, info=info)
    if base == "str":
        return gr.Textbox(value=value, label=label, info=info, max_lines=2)
    hint = "" if value is not None else " Empty: what the model recommends."
    return gr.Number(value=value, label=label, info=info + hint, precision=0 if base == "int" else None)
