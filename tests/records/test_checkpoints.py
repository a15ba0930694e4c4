"""Checkpoints: their content, how they are opened, and how runs are resumed from them."""

import io
import math
import os
import pickle
from dataclasses import replace

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.data.keep_options import KeepOptions
from maskless.records.checkpoints import checkpoint_content, checkpoint_parts, load_checkpoint, resume
from maskless.records.keeping import kept

SEARCH = {"search": "learned", "anchors": 3, "iterations": 2, "epochs": 3, "gradient_accumulation": 5, "updates": 20}


@pytest.fixture
def start(editor, picture):
    def start(prompt="a blue house", **options):
        request = editor.request(picture, caption="a red square", prompt=prompt)
        return editor.start(request, **SEARCH | options)

    return start


@pytest.fixture
def last(start, tmp_path):
    """The checkpoint file of a run after this many steps; the first one analyses the picture."""

    def last(run=None, steps=1, folder=tmp_path, **keep):
        steps_of = kept(run or start(), folder, keep=KeepOptions(**keep))
        for _, _step in zip(range(steps), steps_of, strict=False):
            pass
        steps_of.close()
        return folder / "last.pth"

    return last


def release_state(sizes: int = 6) -> dict[str, torch.Tensor]:
    """The layout of the published release: the flat state of its wrapped model."""
    shapes = {
        "anchor_net.0.weight": (8, 12 * sizes, 1, 1), "anchor_net.0.bias": (8,),
        "anchor_net.2.weight": (4, 8, 1, 1), "anchor_net.2.bias": (4,),
        "anchor_net.5.weight": (4, 256), "anchor_net.5.bias": (4,),
        "anchor_net.7.weight": (sizes, 4), "anchor_net.7.bias": (sizes,),
        "conv.weight": (12, 768, 1, 1), "conv.bias": (12,), "dino.cls_token": (1, 1, 768),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    return {f"module.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def start_with(models, start):
    """A run of the same edit with these models."""
    run = start()
    return type(run)(run.request, models, run.config)


class TestContents:
    def test_it_opens_with_weights_only_and_contains_every_part(self, start, tmp_path):
        run = start()
        for _step in kept(run, tmp_path):
            pass
        content = torch.load(tmp_path / "last.pth", map_location="cpu", weights_only=True)
        assert set(content) == {
            "format", "version", "anchor_net", "projection", "dino", "optimizer", "config", "progress", "models",
            "weights", "run", "versions",
        }  # fmt: skip
        assert sum(tensor.numel() for tensor in content["anchor_net"].values()) == 1678
        dino = run.models.dino.model.state_dict()
        assert content["dino"].keys() == dino.keys()
        assert all(torch.equal(content["dino"][name], dino[name]) for name in dino)
        assert torch.equal(content["projection"]["weight"], run.setup.projection)
        assert content["optimizer"]["state"]
        assert content["config"]["anchors"] == 3 and content["config"]["dtype"] == "float32"
        assert content["progress"] == {
            "iteration": 6,
            "total_iterations": 6,
            "epochs_done": 3,
            "epochs": 3,
            "updates": 3 * 20,
        }

    def test_a_slim_checkpoint_does_not_contain_dino(self, last, tmp_path):
        slim = last(folder=tmp_path / "slim", slim_checkpoint=True)
        whole = last(folder=tmp_path / "whole")
        assert load_checkpoint(slim).dino == {} and load_checkpoint(whole).dino
        assert slim.stat().st_size < whole.stat().st_size

    def test_the_content_does_not_change_when_the_run_continues(self, start):
        run = start()
        assert checkpoint_content(run) is None, "a run that has made no step has nothing to continue from"
        next(iter(run))
        content = checkpoint_content(run)
        before = {name: tensor.clone() for name, tensor in content["anchor_net"].items()}
        run.result()
        assert all(torch.equal(content["anchor_net"][name], before[name]) for name in before)
        assert content["run"]["search"]["table"].isnan().all()


class TestResuming:
    @pytest.mark.parametrize("stop_after", [1, 2, 4, 6, 7])
    def test_a_resumed_run_has_the_result_of_an_uninterrupted_one(self, start, last, stop_after):
        expected = start().result()
        checkpoint = load_checkpoint(last(steps=stop_after))
        run = start()
        assert checkpoint.difference(run) is None
        assert resume(run, checkpoint).endswith(f"after iteration {stop_after - 1}")
        result = run.result()
        assert torch.equal(result.candidates.crops, expected.candidates.crops)
        assert torch.equal(result.candidates.regions.boxes_xyxy, expected.candidates.regions.boxes_xyxy)
        assert torch.equal(result.scores, expected.scores) and result.order == expected.order
        assert torch.equal(result.anchor_net.probabilities_after, expected.anchor_net.probabilities_after)
        assert [step.loss for step in result.drawn_steps] == [step.loss for step in expected.drawn_steps]
        assert result.cost.inpaintings == expected.cost.inpaintings

    @pytest.mark.parametrize(
        "other,reason",
        [({"prompt": "a cat"}, "another prompt"), ({"alpha": 2.0}, "made with alpha 1.0, this edit has 2.0")],
    )
    def test_from_another_edits_checkpoint_only_anchor_net_is_taken(self, start, last, other, reason):
        checkpoint = load_checkpoint(last(steps=7))
        run = start(**other)
        assert reason in str(checkpoint.difference(run))
        assert "only its AnchorNet, because it" in resume(run, checkpoint) and run.history == ()
        next(iter(run))
        search = run.state()["search"]
        assert all(torch.equal(search["anchor_net"][name], tensor) for name, tensor in checkpoint.anchor_net.items())
        assert search["table"].isnan().all() and search["iteration"] == 0

    def test_epochs_and_ranking_may_differ(self, start, last):
        assert load_checkpoint(last()).difference(start(epochs=9, ranking="paper")) is None

    def test_models_are_compared_by_their_weights_not_by_their_folder(self, editor, start, last):
        checkpoint = load_checkpoint(last())
        assert set(checkpoint.weights) == {"inpainting", "dino", "clip"}
        models = editor.models
        moved = replace(models, names={part: f"elsewhere/{part}" for part in models.names})
        assert checkpoint.difference(start_with(moved, start)) is None
        other = replace(moved, weights={**models.weights, "clip": "another"})
        assert checkpoint.difference(start_with(other, start)) == "it was made with other models"
        earlier = replace(checkpoint, weights={})  # earlier versions kept no weights
        assert earlier.difference(start()) is None
        assert earlier.difference(start_with(moved, start)) == "it was made with other models"

    def test_another_scheduler_is_another_edit(self, start, last):
        run = start()
        run.models = replace(run.models, options=replace(run.models.options, scheduler="lcm"))
        assert load_checkpoint(last()).difference(run) == "it was made with scheduler None, this edit has lcm"

    def test_another_number_of_sizes_is_refused_with_the_files_name(self, start, last):
        with pytest.raises(MasklessError, match=r"last\.pth chooses among 6 sizes, this edit has 3"):
            resume(start(max_window_size=8), load_checkpoint(last()))

    def test_a_tensor_of_another_shape_is_refused_with_its_name(self, start, last, tmp_path):
        content = torch.load(last(), weights_only=True)
        content["anchor_net"]["layers.0.weight"] = torch.zeros(8, 10, 1, 1)
        content["config"]["alpha"] = 7.0
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(MasklessError, match=r"layers\.0\.weight in .*odd\.pth must be \[8, 72, 1, 1\], got \[8"):
            resume(start(), load_checkpoint(tmp_path / "odd.pth"))


class TestRelease:
    def test_its_checkpoint_can_be_read(self, tmp_path):
        torch.save(release_state(), tmp_path / "last.pth")
        checkpoint = load_checkpoint(tmp_path / "last.pth")
        parts = {part.name: part for part in checkpoint_parts(checkpoint)}
        assert checkpoint.origin == "release" and checkpoint.sizes == 6
        assert parts["anchor_net"].parameters == 1678 and parts["anchor_net"].trained
        assert parts["projection"].keys["weight"] == (12, 768, 1, 1) and not parts["projection"].trained
        assert parts["dino"].parameters == 768

    def test_an_edit_can_start_from_it(self, start, tmp_path):
        torch.save(release_state(), tmp_path / "last.pth")
        run = start()
        assert "it was written by the published release" in resume(run, load_checkpoint(tmp_path / "last.pth"))
        next(iter(run))
        first_weights = run.state()["search"]["anchor_net"]
        assert torch.equal(first_weights["layers.7.bias"], release_state()["module.anchor_net.7.bias"])
        assert all(math.isfinite(step.expected_loss) for step in run.result().drawn_steps)

    def test_one_with_another_number_of_sizes_is_refused(self, start, tmp_path):
        torch.save(release_state(sizes=2), tmp_path / "last.pth")
        with pytest.raises(MasklessError, match="chooses among 2 sizes, this edit has 6"):
            resume(start(), load_checkpoint(tmp_path / "last.pth"))


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("executed",)


class TestBadFiles:
    def refused(self, path) -> str:
        """The message with which a file is refused."""
        with pytest.raises(MasklessError) as caught:
            load_checkpoint(path)
        message = str(caught.value)
        assert str(path) in message and "\n" not in message
        return message

    def test_missing_files_and_folders(self, tmp_path):
        assert "no such checkpoint" in self.refused(tmp_path / "none.pth")
        assert "is a folder" in self.refused(tmp_path)

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
    def test_truncated_files(self, last, share):
        path = last()
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        assert "cannot read the checkpoint" in self.refused(path)

    def test_other_files(self, tmp_path):
        (tmp_path / "a.pth").write_text("hello")
        assert "it was not written by torch.save" in self.refused(tmp_path / "a.pth")
        torch.save({"weight": torch.zeros(3), "bias": 1}, tmp_path / "b.pth")
        assert "first keys are: bias, weight" in self.refused(tmp_path / "b.pth")
        torch.save([1, 2], tmp_path / "c.pth")
        assert "expected a dict, got list" in self.refused(tmp_path / "c.pth")
        torch.save({"module.conv.weight": torch.zeros(3)}, tmp_path / "d.pth")
        assert "has no module.anchor_net" in self.refused(tmp_path / "d.pth")
        torch.save({"format": "maskless", "version": 99}, tmp_path / "e.pth")
        assert "must be of checkpoint version 2, got 99" in self.refused(tmp_path / "e.pth")
        torch.save({"format": "maskless", "version": 2, "config": {}}, tmp_path / "f.pth")
        assert "has no anchor_net, projection" in self.refused(tmp_path / "f.pth")

    def test_no_code_in_a_file_is_executed(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        torch.save({"format": "maskless", "run": Exploit()}, "a.pth")
        with open("b.pth", "wb") as file:
            pickle.dump(Exploit(), file)
        self.refused(tmp_path / "a.pth")
        self.refused(tmp_path / "b.pth")
        assert not (tmp_path / "executed").exists()

    def test_torch_can_read_a_checkpoint_from_memory(self, last):
        opened = torch.load(io.BytesIO(last().read_bytes()), weights_only=True)
        assert opened["format"] == "maskless"


def test_a_state_with_another_number_of_losses_is_refused(editor, start):
    run = start()
    next(iter(run))
    state = run.state()
    state["evaluated"]["losses"] = torch.zeros(1, 4)
    again = start()
    again.resume(state)
    with pytest.raises(MasklessError, match="must hold 5 losses of each region .*, got 4: another version wrote it"):
        next(iter(again.result().history))
