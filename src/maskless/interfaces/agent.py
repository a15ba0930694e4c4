"""Tools for agents, by the Model Context Protocol: edit a picture, find a region, choose among the candidates, undo.

Every answer begins with the path of the file, because clients of agents drop or shrink pictures.
"""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ImageContent, TextContent, ToolAnnotations
from pydantic import Field

from maskless import __version__
from maskless.data.errors import MasklessError, require
from maskless.data.files import write_bytes
from maskless.data.provenance import ProvenanceOptions
from maskless.data.tasks import TASKS
from maskless.engine.editor import Editor
from maskless.engine.finder import Finder
from maskless.interfaces.jobs.following import changes
from maskless.interfaces.jobs.job import Job
from maskless.interfaces.jobs.outcome import small_view
from maskless.interfaces.jobs.spec import EditSpec
from maskless.interfaces.jobs.uploads import MEGABYTE, UploadLimits, checked_upload
from maskless.interfaces.jobs.worker import JobLimits, Jobs

LIMITS = UploadLimits(max_bytes=200 * MEGABYTE, max_pixels=64_000_000)
QUEUE = JobLimits(waiting=8, keep_seconds=86_400, job_seconds=3600)
PREVIEW_PX = 256
INSTRUCTIONS = (
    "Edits pictures by words; no mask is needed, because the region is found. Say what to change as an instruction "
    "(“replace the red car with a blue house”, “remove the cat”), or as caption (what is there) and prompt (what "
    "should be there). Every pixel outside the region stays as it was. Each edit writes a new file; give its path to "
    "the next edit to go on, or undo it. If the wrong region was changed, look at list_candidates, or give a box to "
    "edit_image."
)


@dataclass(frozen=True, kw_only=True)
class FinishedEdit:
    """An edit that was made for the agent: its job, the picture it was made of, and the file it wrote."""

    job: Job
    source: Path
    output: Path

    def answer(self, rank: int) -> dict[str, Any]:
        """What the agent is told. The path of the file is first."""
        assert self.job.outcome is not None
        facts = self.job.outcome.facts
        chosen = facts["candidates"][rank - 1]
        return {
            "output": str(self.output),
            "source": str(self.source),
            "region": chosen["region"],
            "score": chosen["score"],
            "rank": rank,
            "candidates": len(facts["candidates"]),
            "reason": chosen["reason"],
            **{name: facts[name] for name in ("size_px", "task", "caption", "prompt", "seed", "seconds")},
        }


class AgentFiles:
    """Which files an agent may use: those inside the folders that were named at the start, links followed."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """folders: a relative path of the agent is inside the first.

        Raises:
            MasklessError: a folder that does not exist.
        """
        for folder in folders:
            require(folder.is_dir(), f"no such folder: {folder}")
        self.folders = tuple(folder.resolve() for folder in folders)

    def picture(self, path: str) -> Path:
        """The picture file at a path of the agent."""
        found = self._inside(path)
        require(found.is_file(), f"no such file: {path[:200]}")
        return found

    def new_file(self, path: str, source: Path) -> Path:
        """A path to write to: the agent's, or a new one beside the source. No file is overwritten."""
        if path:
            chosen = self._inside(path)
            require(chosen.suffix.lower() == ".png", f"the output must end in .png, got {path[:200]}")
            require(not chosen.exists(), f"the output exists already: {path[:200]}")
            return chosen
        stem, number = source.stem.partition("_edited")[0], 1
        while (chosen := source.with_name(f"{stem}_edited{'' if number == 1 else f'_{number}'}.png")).exists():
            number += 1
        return self._inside(str(chosen))

    def _inside(self, path: str) -> Path:
        require(bool(path.strip()) and "\0" not in path, "path must name a picture file")
        try:
            found = (self.folders[0] / path).resolve()
        except (OSError, RuntimeError):
            raise MasklessError(f"cannot follow the path {path[:200]}") from None
        allowed = any(found.is_relative_to(folder) for folder in self.folders)
        names = ", ".join(map(str, self.folders))
        require(allowed, f"{path[:200]} is outside the folders that this server may use: {names}")
        return found


class Agent:
    """What the tools do. Edits are jobs of one queue, as on the server."""

    def __init__(
        self,
        load: Callable[[], Editor],
        folders: Sequence[Path],
        working_folder: Path,
        provenance: ProvenanceOptions | None = None,
    ) -> None:
        """load: loads the models; called at the first use. working_folder: for candidates, until the server ends.
        provenance: what edited pictures say about where they come from."""
        self.files = AgentFiles(folders)
        self._load, self._working_folder, self._provenance = load, working_folder, provenance
        self._loading = threading.Lock()
        self._jobs: Jobs | None = None
        self._edits: dict[Path, FinishedEdit] = {}

    @property
    def jobs(self) -> Jobs:
        """The queue; the models are loaded when it is first used."""
        with self._loading:
            if self._jobs is None:
                self._jobs = Jobs(self._load(), self._working_folder, QUEUE, self._provenance)
            return self._jobs

    def stop(self) -> None:
        """End the worker."""
        if self._jobs is not None:
            self._jobs.stop()

    async def edit(self, path: str, output: str, given: dict[str, Any], report: Callable[..., Any]) -> CallToolResult:
        """Edit a picture, and write the best candidate to a new file. report: called with step, total and a text."""
        source = self.files.picture(path)
        target = self.files.new_file(output, source)
        spec = EditSpec.read(given)
        upload = checked_upload(await anyio.to_thread.run_sync(source.read_bytes), LIMITS)
        jobs = await anyio.to_thread.run_sync(lambda: self.jobs)
        job = await anyio.to_thread.run_sync(jobs.submit, spec, upload)
        async for _version in changes(job, jobs, _never):
            if job.steps and job.steps[-1].total_steps:
                await report(job.steps[-1].step, job.steps[-1].total_steps, "editing")
        if job.outcome is None:
            raise MasklessError(job.error or f"the edit was {job.state}")
        write_bytes(target, job.outcome.pictures[0].read_bytes())
        self._edits[target] = FinishedEdit(job=job, source=source, output=target)
        return await anyio.to_thread.run_sync(self._answer, self._edits[target], 1)

    def find(self, path: str, caption: str) -> CallToolResult:
        """Where the object is that a caption names, and why; nothing is drawn or written."""
        require(bool(caption.strip()), "caption must say what to find")
        source = self.files.picture(path)
        checked_upload(source.read_bytes(), LIMITS)
        editor = self.jobs.editor
        finding = Finder(editor.models, editor.config).find(source, caption)
        (x0, y0, x1, y1), (height, width) = finding.box_xyxy, finding.size_yx
        region = {"box_xyxy": [x0, y0, x1, y1], "share": round((x1 - x0) * (y1 - y0) / (width * height), 4)}
        facts = ("looks_like", "clear", "score", "reason", "alternatives")
        found = finding.to_dict()
        told = {name: found[name] for name in facts}
        return _result({"path": str(source), "size_px": [width, height], "region": region, **told})

    def candidates(self, path: str) -> CallToolResult:
        """The candidates of an edit that was made here."""
        edit = self._edit_of(path)
        assert edit.job.outcome is not None
        listed = edit.job.outcome.facts["candidates"]
        return _result({"output": str(edit.output), "candidates": listed})

    def choose(self, path: str, rank: int) -> CallToolResult:
        """Put another candidate in place of the one in the file."""
        edit = self._edit_of(path)
        assert edit.job.outcome is not None
        pictures = edit.job.outcome.pictures
        require(1 <= rank <= len(pictures), f"rank must be from 1 to {len(pictures)}, got {rank}")
        write_bytes(edit.output, pictures[rank - 1].read_bytes())
        return self._answer(edit, rank)

    def undo(self, path: str) -> CallToolResult:
        """Delete the file that an edit wrote; its source is as it was."""
        edit = self._edit_of(path)
        later = [str(each.output) for each in self._edits.values() if each.source == edit.output]
        require(not later, f"{path[:200]} was edited further; first undo {', '.join(later)}")
        edit.output.unlink(missing_ok=True)
        del self._edits[edit.output]
        return _result({"path": str(edit.source), "deleted": str(edit.output)})

    def _edit_of(self, path: str) -> FinishedEdit:
        found = self._edits.get(self.files.picture(path))
        if found is None:
            raise MasklessError(f"{path[:200]} was not written by edit_image since this server started")
        return found

    def _answer(self, edit: FinishedEdit, rank: int) -> CallToolResult:
        assert edit.job.outcome is not None
        preview = small_view(edit.job.outcome.pictures[rank - 1], PREVIEW_PX).read_bytes()
        return _result(edit.answer(rank), preview)


async def _never() -> bool:
    """The agent waits for its edit until the call is cancelled."""
    return False


def _result(answer: dict[str, Any], preview: bytes | None = None) -> CallToolResult:
    content: list[Any] = [TextContent(type="text", text=json.dumps(answer, ensure_ascii=False, indent=1))]
    if preview is not None:
        encoded = base64.b64encode(preview).decode()
        content.append(ImageContent(type="image", data=encoded, mime_type="image/png"))
    return CallToolResult(content=content, structured_content=answer)


Picture = Annotated[str, Field(description="Path of the picture, inside the folders of this server.")]
Output = Annotated[str, Field(description="Path of a file that edit_image has written.")]


def agent_server(agent: Agent) -> MCPServer[Any]:
    """The MCP server with the tools of an agent."""
    server: MCPServer[Any] = MCPServer("maskless", instructions=INSTRUCTIONS, version=__version__, log_level="ERROR")
    reading = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    changing = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
    deleting = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)

    @server.tool(title="Edit a picture by words", annotations=changing)
    async def edit_image(
        path: Picture,
        ctx: Context,
        instruction: Annotated[str, Field(description="Such as “replace the red car with a blue house”.")] = "",
        caption: Annotated[str, Field(description="What is there now, such as “a red car”.")] = "",
        prompt: Annotated[str, Field(description="What should be there, such as “a blue house”.")] = "",
        task: Annotated[str, Field(description=f"Kind of edit: {', '.join(TASKS)}; replace if left out.")] = "",
        box: Annotated[
            list[int] | None, Field(description="x0, y0, x1, y1 in pixels, in place of finding the region.")
        ] = None,
        seed: Annotated[int | None, Field(description="The same seed gives the same picture.")] = None,
        output: Annotated[str, Field(description="A new .png file; left out, one beside the picture.")] = "",
    ) -> CallToolResult:
        """Edit a picture by words, without a mask: find the region, change it, leave every other pixel as it was.

        Writes a new file. The answer is its path, the region as JSON, the score, and a small preview.
        """
        given = {
            "instruction": instruction,
            "caption": caption,
            "prompt": prompt,
            "task": task,
            "seed": seed,
            "box": box,
        }
        with _as_tool_error():
            return await agent.edit(path, output, given, ctx.report_progress)

    @server.tool(title="Find where something is", annotations=reading)
    async def find_region(
        path: Picture, caption: Annotated[str, Field(description="What to find, such as “a red car”.")]
    ) -> CallToolResult:
        """Find the region of what a caption names, without changing anything."""
        with _as_tool_error():
            return await anyio.to_thread.run_sync(agent.find, path, caption)

    @server.tool(title="List the candidates of an edit", annotations=reading)
    async def list_candidates(output: Output) -> CallToolResult:
        """List every candidate of an edit, best first: its region, its score, and why it has its rank."""
        with _as_tool_error():
            return await anyio.to_thread.run_sync(agent.candidates, output)

    @server.tool(title="Choose another candidate", annotations=deleting)
    async def choose_candidate(
        output: Output, rank: Annotated[int, Field(description="Rank of the candidate, best first, from 1.")]
    ) -> CallToolResult:
        """Put another candidate of the same edit into the file."""
        with _as_tool_error():
            return await anyio.to_thread.run_sync(agent.choose, output, rank)

    @server.tool(title="Undo an edit", annotations=deleting)
    async def undo(output: Output) -> CallToolResult:
        """Delete the file of an edit; the answer is the path of the picture before it."""
        with _as_tool_error():
            return await anyio.to_thread.run_sync(agent.undo, output)

    return server


class _as_tool_error:
    """A block whose MasklessError the agent reads as the tool's answer."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, MasklessError):
            raise ToolError(str(error)) from None


def run_agent(load: Callable[[], Editor], folders: Sequence[Path], provenance: ProvenanceOptions | None = None) -> None:
    """Serve an agent on stdin and stdout until it closes them.

    Raises:
        MasklessError: a folder that does not exist.
    """
    import tempfile

    working_folder = Path(tempfile.mkdtemp(prefix="maskless-"))
    agent = Agent(load, folders, working_folder, provenance)
    try:
        agent_server(agent).run("stdio")
    finally:
        agent.stop()
        shutil.rmtree(working_folder, ignore_errors=True)
