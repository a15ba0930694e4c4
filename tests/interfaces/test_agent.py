"""The tools for agents, by the SDK's own client: in this process, and as the command that an agent starts."""

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from PIL import Image

from maskless.engine.editor import Editor
from maskless.interfaces.agent import Agent, AgentFiles, agent_server

WORDS = {"caption": "a red square", "prompt": "a blue house"}


@pytest.fixture
def folder(tmp_path: Path, noisy_png: bytes) -> Path:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "scene.png").write_bytes(noisy_png)
    (tmp_path / "secret.png").write_bytes(noisy_png)
    (pictures / "link.png").symlink_to(tmp_path / "secret.png")
    return pictures


@pytest.fixture
def agent(editor: Editor, folder: Path, tmp_path: Path):
    config = replace(editor.config, search="learned", iterations=2, anchors=2, steps=1, views=1)
    agent = Agent(lambda: Editor(editor.models, config), [folder], tmp_path / "work")
    yield agent
    agent.stop()


def call(agent: Agent, *calls: tuple[str, dict]) -> list:
    """The answers of several calls in one session."""

    async def session():
        async with Client(agent_server(agent)) as client:
            return [await client.call_tool(name, arguments) for name, arguments in calls]

    return asyncio.run(session())


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_an_edit_is_a_new_file_whose_path_comes_first(agent, folder):
    (answer,) = call(agent, ("edit_image", {"path": "scene.png", **WORDS}))
    assert not answer.is_error, answer.content
    told = json.loads(answer.content[0].text)
    assert next(iter(told)) == "output" and told == answer.structured_content
    output = Path(told["output"])
    assert output == folder / "scene_edited.png"
    x0, y0, x1, y1 = told["region"]["box_xyxy"]
    differs = (pixels(output) != pixels(folder / "scene.png")).any(axis=2)
    assert differs.any() and differs[y0:y1, x0:x1].sum() == differs.sum()
    preview = answer.content[1]
    assert preview.type == "image" and len(preview.data) < 200_000


def test_candidates_can_be_listed_and_chosen_and_the_edit_undone(agent, folder):
    edited, listed, chosen = call(
        agent,
        ("edit_image", {"path": str(folder / "scene.png"), **WORDS}),
        ("list_candidates", {"output": "scene_edited.png"}),
        ("choose_candidate", {"output": "scene_edited.png", "rank": 2}),
    )
    candidates = listed.structured_content["candidates"]
    assert [each["rank"] for each in candidates] == [1, 2] and "Ranked 2nd of 2" in candidates[1]["reason"]
    assert chosen.structured_content["region"] == candidates[1]["region"] and chosen.structured_content["rank"] == 2
    second = pixels(folder / "scene_edited.png")
    further, refused, undone = call(
        agent,
        ("edit_image", {"path": "scene_edited.png", **WORDS, "box": [10, 10, 50, 50]}),
        ("undo", {"output": "scene_edited.png"}),
        ("undo", {"output": "scene_edited_2.png"}),
    )
    assert further.structured_content["region"]["box_xyxy"] == [10, 10, 50, 50]
    assert refused.is_error and "edited further" in refused.content[0].text
    assert undone.structured_content["path"] == str(folder / "scene_edited.png")
    assert not (folder / "scene_edited_2.png").exists() and (pixels(folder / "scene_edited.png") == second).all()
    (last,) = call(agent, ("undo", {"output": "scene_edited.png"}))
    assert last.structured_content["path"] == str(folder / "scene.png")
    assert sorted(path.name for path in folder.iterdir()) == ["link.png", "scene.png"]


def test_a_region_is_found_without_changing_anything(agent, folder):
    (answer,) = call(agent, ("find_region", {"path": "scene.png", "caption": "a red square"}))
    x0, y0, x1, y1 = answer.structured_content["region"]["box_xyxy"]
    assert 0 <= x0 < x1 <= 120 and 0 <= y0 < y1 <= 72 and next(iter(answer.structured_content)) == "path"
    assert type(answer.structured_content["looks_like"]) is bool and answer.structured_content["reason"]
    assert all(len(other["box_xyxy"]) == 4 for other in answer.structured_content["alternatives"])
    assert sorted(path.name for path in folder.iterdir()) == ["link.png", "scene.png"]


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("edit_image", {"path": "../secret.png", **WORDS}, "outside the folders"),
        ("edit_image", {"path": "link.png", **WORDS}, "outside the folders"),
        ("edit_image", {"path": "scene.png", "output": "../new.png", **WORDS}, "outside the folders"),
        ("edit_image", {"path": "scene.png", "output": "scene.png", **WORDS}, "exists already"),
        ("edit_image", {"path": "scene.png", "output": "new.sh", **WORDS}, "must end in .png"),
        ("edit_image", {"path": "scene.png", "instruction": "fly"}, "cannot understand the instruction"),
        ("edit_image", {"path": "nothing.png", **WORDS}, "no such file"),
        ("find_region", {"path": "/etc/passwd", "caption": "x"}, "outside the folders"),
        ("undo", {"output": "scene.png"}, "was not written by edit_image"),
    ],
)
def test_what_an_agent_may_not_do_is_said_in_one_line(agent, folder, tool, arguments, words):
    before = {path: path.read_bytes() for path in folder.parent.rglob("*.png")}
    (answer,) = call(agent, (tool, arguments))
    assert answer.is_error and words in answer.content[0].text and "\n" not in answer.content[0].text
    assert {path: path.read_bytes() for path in folder.parent.rglob("*.png")} == before


def test_folders_must_be_there(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        AgentFiles([tmp_path / "missing"])


@pytest.mark.slow
def test_the_command_serves_on_stdin_and_stdout(folder):
    """Started as an agent's client starts it; anything else on stdout would break the protocol."""
    command = [
        "-m",
        "maskless",
        "mcp",
        str(folder),
        "--iterations",
        "1",
        "--anchors",
        "1",
        "--views",
        "1",
        "--steps",
        "1",
    ]

    async def session():
        async with Client(StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            answer = await client.call_tool("edit_image", {"path": "scene.png", **WORDS})
            return tools, answer

    tools, answer = asyncio.run(session())
    assert set(tools) == {"edit_image", "find_region", "list_candidates", "choose_candidate", "undo"}
    assert not answer.is_error and Path(answer.structured_content["output"]).is_file()
