"""Checkpoints: what they hold, how they are opened, and going on from them."""

import io
import math
import os
import pickle

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.records.checkpoints import (
    CheckpointKeeper,
    checkpoint_content,
    checkpoint_parts,
    load_checkpoint,
    started_from,
)

SEARCH = {"anchors": 3, "iterations": 2, "epochs": 3, "gradient_accumulation": 5, "updates": 20}


@pytest.fixture
def start(editor, picture):
    def start(state=None, prompt="a blue house", **options):
        request = editor.request(picture, caption="a red square", prompt=prompt)
        return editor.start(request, state=state, **SEARCH | options)

    return start


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


class TestContents:
    def test_opens_with_weights_only_and_holds_every_part(self, start, tmp_path):
        run = start()
        keeper = CheckpointKeeper(tmp_path, run)
        for record in run:
            keeper.after(record)
        content = torch.load(tmp_path / "last.pth", map_location="cpu", weights_only=True)
        assert set(content) == {
            "format", "version", "anchor_net", "projection", "dino", "optimizer", "config", "progress", "models", "run",
            "versions",
        }  # fmt: skip
        assert sum(tensor.numel() for tensor in content["anchor_net"].values()) == 1678
        dino = run.models.dino.model.state_dict()
        assert content["dino"].keys() == dino.keys()
        assert all(torch.equal(content["dino"][name], dino[name]) for name in dino)
        assert torch.equal(content["projection"]["weight"], run.projection)
        assert content["optimizer"]["state"]
        assert content["config"]["anchors"] == 3
        assert content["progress"] == {
            "iteration": 6,
            "total_iterations": 6,
            "epochs_done": 3,
            "epochs": 3,
            "updates": len(run.history) // 2 * 20,
        }

    def test_slim_leaves_dino_out(self, start, tmp_path):
        slim = CheckpointKeeper(tmp_path / "slim", start(slim_checkpoint=True)).last
        whole = CheckpointKeeper(tmp_path / "whole", start()).last
        assert load_checkpoint(slim).dino == {} and load_checkpoint(whole).dino
        assert slim.stat().st_size < whole.stat().st_size

    def test_content_does_not_change_when_the_run_goes_on(self, start):
        run = start()
        content = checkpoint_content(run)
        before = {name: tensor.clone() for name, tensor in content["anchor_net"].items()}
        for _ in run:
            pass
        assert all(torch.equal(content["anchor_net"][name], before[name]) for name in before)
        assert content["run"]["search"]["table"].isnan().all()

    def test_files_at_epochs_and_intervals(self, start, tmp_path):
        run = start(checkpoint_interval=2, epochs=5)
        keeper = CheckpointKeeper(tmp_path, run)
        assert load_checkpoint(tmp_path / "last.pth").progress["iteration"] == 0
        seen = []
        for record in run:
            keeper.after(record)
            seen.append(load_checkpoint(tmp_path / "last.pth").progress["epochs_done"])
        assert seen == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
        assert sorted(os.listdir(tmp_path)) == [
            "last.pth", "run.json", "transformer_epoch_2.pth", "transformer_epoch_4.pth"
        ]  # fmt: skip
        assert load_checkpoint(tmp_path / "transformer_epoch_4.pth").progress["epochs_done"] == 4

    def test_between_epochs_it_is_written_when_time_has_passed(self, start, tmp_path):
        run = start(iterations=4, epochs=1)
        keeper = CheckpointKeeper(tmp_path, run, every_seconds=0.0)
        records = iter(run)
        keeper.after(next(records))
        assert load_checkpoint(tmp_path / "last.pth").progress["iteration"] == 1


class TestGoingOn:
    @pytest.mark.parametrize("stop_after", [0, 1, 3, 5, 6])
    def test_a_resumed_run_ends_like_one_that_was_not_stopped(self, start, tmp_path, stop_after):
        whole = start()
        for _ in whole:
            pass
        expected = whole.result()
        first = start()
        keeper = CheckpointKeeper(tmp_path, first)
        for record, _ in zip(first, range(stop_after), strict=False):
            keeper.after(record)
        path = keeper.save()
        checkpoint = load_checkpoint(path)
        fresh = start()
        assert checkpoint.difference(fresh) is None
        run = start(state=started_from(checkpoint, fresh))
        for _ in run:
            pass
        result = run.result()
        assert torch.equal(result.candidates.crops, expected.candidates.crops)
        assert torch.equal(result.candidates.regions.boxes_xyxy, expected.candidates.regions.boxes_xyxy)
        assert torch.equal(result.scores, expected.scores) and result.order == expected.order
        assert torch.equal(result.anchor_net.probabilities_after, expected.anchor_net.probabilities_after)
        assert [r.loss for r in result.history] == [r.loss for r in expected.history]
        assert result.cost.inpaintings == expected.cost.inpaintings

    @pytest.mark.parametrize(
        "other,why",
        [({"prompt": "a cat"}, "another prompt"), ({"alpha": 2.0}, "made with alpha 1.0, this edit has 2.0")],
    )
    def test_of_another_edit_it_gives_its_anchor_net_alone(self, start, tmp_path, other, why):
        run = start()
        for _ in run:
            pass
        keeper = CheckpointKeeper(tmp_path, run)
        checkpoint = load_checkpoint(keeper.last)
        fresh = start(**other)
        assert why in str(checkpoint.difference(fresh))
        state = started_from(checkpoint, fresh)
        assert all(torch.equal(state["search"]["anchor_net"][n], t) for n, t in checkpoint.anchor_net.items())
        assert state["search"]["table"].isnan().all() and state["search"]["iteration"] == 0

    def test_more_epochs_than_before_are_no_other_edit(self, start, tmp_path):
        keeper = CheckpointKeeper(tmp_path, start())
        assert load_checkpoint(keeper.last).difference(start(epochs=9, ranking="paper")) is None

    def test_another_shape_is_refused_by_name(self, start, tmp_path):
        keeper = CheckpointKeeper(tmp_path, start())
        with pytest.raises(MasklessError, match=r"last\.pth chooses among 6 sizes, this edit has 3"):
            started_from(load_checkpoint(keeper.last), start(max_window_size=8))

    def test_a_tensor_of_another_shape_is_refused_by_name(self, start, tmp_path):
        content = checkpoint_content(start())
        content["anchor_net"]["layers.0.weight"] = torch.zeros(8, 10, 1, 1)
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(MasklessError, match=r"layers\.0\.weight in .*odd\.pth must be \[8, 72, 1, 1\], got \[8"):
            started_from(load_checkpoint(tmp_path / "odd.pth"), start())


class TestRelease:
    def test_is_read(self, tmp_path):
        torch.save(release_state(), tmp_path / "last.pth")
        checkpoint = load_checkpoint(tmp_path / "last.pth")
        parts = {part.name: part for part in checkpoint_parts(checkpoint)}
        assert checkpoint.origin == "release" and checkpoint.sizes == 6
        assert parts["anchor_net"].parameters == 1678 and parts["anchor_net"].trained
        assert parts["projection"].keys["weight"] == (12, 768, 1, 1) and not parts["projection"].trained
        assert parts["dino"].parameters == 768

    def test_starts_an_edit(self, start, tmp_path):
        torch.save(release_state(), tmp_path / "last.pth")
        fresh = start()
        state = started_from(load_checkpoint(tmp_path / "last.pth"), fresh)
        assert torch.equal(state["search"]["anchor_net"]["layers.7.bias"], release_state()["module.anchor_net.7.bias"])
        run = start(state=state)
        assert all(math.isfinite(record.expected_loss) for record in run)

    def test_of_another_shape(self, start, tmp_path):
        torch.save(release_state(sizes=2), tmp_path / "last.pth")
        with pytest.raises(MasklessError, match="chooses among 2 sizes, this edit has 6"):
            started_from(load_checkpoint(tmp_path / "last.pth"), start())


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("executed",)


class TestBadFiles:
    def refused(self, path) -> str:
        with pytest.raises(MasklessError) as caught:
            load_checkpoint(path)
        message = str(caught.value)
        assert str(path) in message and "\n" not in message
        return message

    def test_missing_and_folders(self, tmp_path):
        assert "no such checkpoint" in self.refused(tmp_path / "none.pth")
        assert "is a folder" in self.refused(tmp_path)

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
    def test_cut_short(self, start, tmp_path, share):
        keeper = CheckpointKeeper(tmp_path, start())
        content = keeper.last.read_bytes()
        keeper.last.write_bytes(content[: int(len(content) * share)])
        assert "cannot read the checkpoint" in self.refused(keeper.last)

    def test_foreign_files(self, tmp_path):
        (tmp_path / "a.pth").write_text("hello")
        assert "no file that torch.save wrote" in self.refused(tmp_path / "a.pth")
        torch.save({"weight": torch.zeros(3), "bias": 1}, tmp_path / "b.pth")
        assert "keys begin with: bias, weight" in self.refused(tmp_path / "b.pth")
        torch.save([1, 2], tmp_path / "c.pth")
        assert "expected a dict, got list" in self.refused(tmp_path / "c.pth")
        torch.save({"module.conv.weight": torch.zeros(3)}, tmp_path / "d.pth")
        assert "lacks module.anchor_net" in self.refused(tmp_path / "d.pth")
        torch.save({"format": "maskless", "version": 99}, tmp_path / "e.pth")
        assert "must be of checkpoint version 1, got 99" in self.refused(tmp_path / "e.pth")
        torch.save({"format": "maskless", "version": 1, "config": {}}, tmp_path / "f.pth")
        assert "lacks anchor_net, projection" in self.refused(tmp_path / "f.pth")

    def test_nothing_in_a_file_is_executed(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        torch.save({"format": "maskless", "run": Exploit()}, "a.pth")
        with open("b.pth", "wb") as file:
            pickle.dump(Exploit(), file)
        self.refused(tmp_path / "a.pth")
        self.refused(tmp_path / "b.pth")
        assert not (tmp_path / "executed").exists()

    def test_a_folder_that_cannot_be_written(self, start, tmp_path):
        (tmp_path / "checkpoints").write_text("a file")
        with pytest.raises(MasklessError, match="cannot write .*last.pth"):
            CheckpointKeeper(tmp_path / "checkpoints", start())

    def test_what_a_torch_writer_makes_is_what_we_write(self, start, tmp_path):
        keeper = CheckpointKeeper(tmp_path, start())
        opened = torch.load(io.BytesIO(keeper.last.read_bytes()), weights_only=True)
        assert opened["format"] == "maskless"


def test_a_state_with_other_losses_is_refused(start):
    run = start()
    next(iter(run))
    state = run.state()
    state["evaluated"]["losses"] = state["evaluated"]["losses"][:, :4]
    with pytest.raises(MasklessError, match="must hold 5 losses of each region .*, got 4: another version wrote it"):
        start(state)
