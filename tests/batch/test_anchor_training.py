"""One AnchorNet for many pictures: it learns what is common, and searches can start from it."""

import json
from pathlib import Path

import pytest
import torch

from batch_tools import records
from maskless.batch.anchor_training import Lesson, fit
from maskless.batch.worker import Worker
from maskless.data.config import EditConfig
from maskless.records.checkpoints import load_checkpoint


def test_what_all_pictures_have_in_common_is_learned():
    generator = torch.Generator().manual_seed(3)
    lessons = []
    for _ in range(6):
        features = torch.randn(2, 36, 8, 8, generator=generator)
        costs = torch.tensor([[3.0, 0.0, 5.0], [4.0, 1.0, float("nan")]]) * float(
            torch.rand((), generator=generator) + 1
        )
        lessons.append(Lesson(features=features, costs=costs, projection=torch.zeros(12, 4, 1, 1)))
    net, before, after = fit(lessons, EditConfig(updates=60, lr=0.02))
    assert after < before - 0.5
    chances = net(torch.randn(2, 36, 8, 8, generator=generator)).exp()
    assert chances.argmax(dim=1).tolist() == [1, 1]
    assert torch.equal(fit(lessons, EditConfig(updates=60, lr=0.02))[0](lessons[0].features), net(lessons[0].features))


def test_the_command_writes_a_checkpoint_that_searches_start_from(place, maskless, command, monkeypatch):
    with Path("rows.jsonl").open("a") as file:
        file.write(json.dumps({"image": "0.png", "id": "filled", "prompt": "a tent", "box": [4, 4, 40, 40]}) + "\n")
    train = ["train", *command[1:], "--output", "shared.pth"]
    status, out, err = maskless(*train)
    assert (status, out) == (0, "") and "Lessons  4/4" in err and "learned from 3 pictures" in err
    assert load_checkpoint("shared.pth").sizes == 6
    first = Path("shared.pth").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Worker, "start", lambda self, request, row: None if row.id == "filled" else pytest.fail(row.id))
        assert maskless(*train)[0] == 0, "the lessons of earlier training are used"
    assert Path("shared.pth").read_bytes() == first
    assert maskless(*command, "--load-checkpoint", "shared.pth")[0] == 0
    keys = {line["id"]: line["key"] for line in records("output")}
    assert maskless(*command, "--share-anchornet", "--output-dir", "again")[0] == 0
    assert {line["id"]: line["key"] for line in records("again")} == keys, "it is the same network"
    status, out, _err = maskless("inspect", "shared.pth")
    assert status == 0 and "1,678" in out
    status, _out, err = maskless("edit", "0.png", "-c", "x", "-p", "y", *command[2:], "--load-checkpoint", "shared.pth")
    assert status == 0 and "only its AnchorNet, because it is of many pictures" in err


def test_nothing_to_train(place, maskless, command):
    Path("rows.jsonl").write_text('{"image": "0.png", "prompt": "a tent", "box": [4, 4, 40, 40]}', "utf-8")
    status, out, err = maskless("train", *command[1:])
    assert (status, out) == (2, "") and "no row of the manifest searches for a region" in err
    assert maskless(*command, "--share-anchornet", "--engine", "ray")[0] == 2


def test_a_search_that_trains_no_anchornet_cannot_start_from_one(place, maskless, command):
    command = [*command, "--search", "placed"]
    status, out, err = maskless(*command, "--share-anchornet")
    assert (status, out) == (2, "") and "--search learned or paper" in err and "got placed" in err
    Path("net.pth").touch()
    status, out, err = maskless(*command, "--load-checkpoint", "net.pth")
    assert (status, out) == (2, "") and "load_checkpoint needs a search that trains AnchorNet" in err
    assert not Path("output").exists()
