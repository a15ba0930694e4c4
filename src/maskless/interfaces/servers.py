"""The commands that serve: `maskless serve` for people and programs, `maskless mcp` for agents."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.files import require_writable
from maskless.data.model_options import ModelOptions
from maskless.data.provenance import ProvenanceOptions
from maskless.interfaces.options import with_options
from maskless.interfaces.web.options import ServeOptions, listening

if TYPE_CHECKING:
    from maskless.engine.editor import Editor

WEB = ("gradio", "fastapi", "uvicorn", "multipart", "prometheus_client")
"""What the extra `web` installs, by the names of its modules."""


@with_options
def serve(*, options: ServeOptions, config: EditConfig, provenance: ProvenanceOptions, models: ModelOptions) -> None:
    """Serve a page for people and an HTTP API for programs.

    [bold]maskless serve[/]

    Options of an edit are the defaults of the page and of requests that leave them out.
    """
    _require_extra("web", WEB)
    require_writable(options.folder)
    _require_signer(provenance)
    listener = listening(options)
    editor = _editor(models, config)
    from maskless.interfaces.jobs.worker import Jobs
    from maskless.interfaces.web.server import job_limits
    from maskless.interfaces.web.server import serve as serve_until_stopped

    jobs = Jobs(editor, options.folder, job_limits(options), provenance)
    serve_until_stopped(jobs, options, listener)


@with_options
def mcp(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Folders that the agent may use.", show_default="."),
    ] = None,
    *,
    config: EditConfig,
    provenance: ProvenanceOptions,
    models: ModelOptions,
) -> None:
    """Serve tools for agents on stdin and stdout, by the Model Context Protocol.

    [bold]maskless mcp[/] ~/Pictures
    """
    _require_extra("mcp", ("mcp",))
    from maskless.interfaces.agent import run_agent

    _require_signer(provenance)
    run_agent(lambda: _editor(models, config), folders or [Path()], provenance)


def _editor(models: ModelOptions, config: EditConfig) -> Editor:
    from maskless.engine.editor import Editor
    from maskless.models.pretrained import load_models

    return Editor(load_models(models), config)


def _require_signer(provenance: ProvenanceOptions) -> None:
    """Check that the certificate can sign, before the models are loaded."""
    from maskless.records.credentials import Signer

    Signer.of(provenance)


def _require_extra(extra: str, modules: tuple[str, ...]) -> None:
    """Check that an extra is installed, without importing it."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MasklessError(f"this command needs {', '.join(missing)}: pip install 'maskless[{extra}]'")
