"""The command line from outside: what it prints where, what it writes, and how it ends."""

import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.interfaces.cli import main
from maskless.interfaces.console import GalleryConsole
from maskless.interfaces.gallery import Exhibit, Shown
from maskless.interfaces.tables import print_rows
from maskless.records.checkpoints import load_checkpoint
from tiny_families import build_family

QUICK = ["--steps", "1", "--anchors", "2", "--iterations", "2", "--views", "1", "--device", "cpu", "--dtype", "float32"]
TEXTS = ["--caption", "a red square", "--prompt", "a blue house"]


@pytest.fixture
def scene(tmp_path, picture, monkeypatch) -> Path:
    """A picture file in an empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    pixels = (picture.movedim(0, -1) * 255).round().byte().numpy()
    Image.fromarray(pixels).save("scene.png")
    return Path("scene.png")


@pytest.fixture
def maskless(capsys):
    """Run a command in this process: exit status, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


def started(*arguments: object, cwd: Path) -> subprocess.Popen:
    """The same command in a process of its own, one thread wide."""
    command = [sys.executable, "-m", "maskless", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell makes its background jobs ignore Ctrl-C, and so all that they start; the tests may run in one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


class TestEdit:
    def test_writes_the_tree_and_says_where(self, maskless, scene, tiny_models):
        status, out, err = maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--draw-box")
        assert status == 0
        folder = Path("output/0_a red square")
        assert {path.name for path in folder.iterdir()} == {
            "input_image.png", "result.json", "overview.png", "report.html", "results", "boxes"
        }  # fmt: skip
        assert len(list((folder / "boxes").iterdir())) == 2 and len(list((folder / "results").iterdir())) == 3
        assert Path("checkpoints/last.pth").is_file()
        assert "final_output.png" in out and "overview.png" in out and "report.html" in out and "expected loss" in out
        assert "Models" in err and "2/2" in err and "loss" in err and "left" in err

    def test_json_is_alone_on_stdout(self, maskless, scene, tiny_models):
        status, out, err = maskless(
            "edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--json", "--image-id", "x7"
        )
        printed = json.loads(out)
        assert status == 0 and out.count("\n") == 1
        folder = Path(printed.pop("folder"))
        assert folder == Path("output/x7_a red square")
        assert printed == json.loads((folder / "result.json").read_text("utf-8"))
        assert printed["config"]["steps"] == 1 and printed["request"]["image"] == "scene.png"
        assert len(printed["candidates"]) == 2

    def test_quiet_says_nothing(self, maskless, scene, tiny_models):
        status, out, err = maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--quiet")
        assert (status, out, err) == (0, "", "")
        assert Path("output/0_a red square/result.json").is_file()

    def test_every_option_reaches_the_config(self, maskless, scene, tiny_models):
        layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
        save_file({f"{layer}.lora_{side}.weight": torch.ones(32, 32) for side in "AB"}, "style.safetensors")
        given = {
            "iterations": 1, "epochs": 2, "lr": 0.01, "gradient_accumulation": 3, "updates": 7, "seed": 5, "anchors": 1,
            "anchor_source": "attention", "max_window_size": 8, "min_window_size": 6, "window_step": 1, "alpha": 0.5,
            "beta": 0.25, "gamma": 0.125, "views": 1, "ranking_alpha": 3.0, "ranking_beta": 0.5, "steps": 1,
            "guidance_scale": 2.0, "negative_prompt": "grey", "context": 0.25, "feather": 0.1, "batch_size": 2,
            "checkpoint_interval": 2, "device": "cpu", "dtype": "float32", "ranking": "paper", "estimator": "table",
            "scheduler": "unipc", "lora": "style.safetensors:0.5",
            "memory": "low", "place": 1.5, "delta": 0.0625,
        }  # fmt: skip
        switches = {"slim_checkpoint": True, "offline": True, "allow_pickle": True, "fit_edges": False}
        flags = [text for name, value in given.items() for text in ("--" + name.replace("_", "-"), str(value))]
        flags += [("--" if on else "--no-") + name.replace("_", "-") for name, on in switches.items()]
        status, out, _ = maskless(
            "edit", scene, *TEXTS, "--models", tiny_models, *flags, "--json",
            "--checkpoint-dir", "deep/er", "--output-dir", "else/where",
        )  # fmt: skip
        assert status == 0 and json.loads(out)["config"] == given | switches
        assert set(given | switches) == {option.name for option in fields(EditConfig)}
        assert sorted(os.listdir("deep/er")) == ["last.pth", "run.json", "transformer_epoch_2.pth"]
        assert load_checkpoint("deep/er/last.pth").dino == {}
        assert Path("else/where/0_a red square/result.json").is_file()

    def test_going_on_from_a_finished_run_inpaints_nothing_anew(self, maskless, scene, tiny_models):
        command = ["edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--json"]
        first = json.loads(maskless(*command)[1])
        status, out, err = maskless(*command, "--load-checkpoint", "checkpoints/last.pth")
        second = json.loads(out)
        assert status == 0 and "after iteration 2" in err
        assert same(first) == same(second)

    def test_of_another_edit_the_anchor_net_is_taken_and_it_is_said(self, maskless, scene, tiny_models):
        base = ["edit", scene, "--models", tiny_models, *QUICK]
        maskless(*base, *TEXTS)
        status, _, err = maskless(*base, "--prompt", "a cat", "--load-checkpoint", "checkpoints/last.pth")
        assert status == 0 and "its AnchorNet alone, as it is of another caption" in err

    def test_the_report_tells_how_to_make_it_again(self, maskless, scene, tiny_models):
        """The command is taken from the page, by a browser's rules, and run through a shell's."""
        prompt = 'it\'s <b>"a" $HOME & b'
        command = ["edit", scene, "--caption", "", "--prompt", prompt, "--models", tiny_models, *QUICK, "--seed", "42",
                   "--lr", "0.01", "--slim-checkpoint", "--image-id", "-1", "--quiet"]  # fmt: skip
        assert maskless(*command)[0] == 0
        (report,) = Path("output").glob("*/report.html")
        shown = html.unescape(re.search(r"<pre[^>]*><code>(.*?)</code>", report.read_text("utf-8"), re.DOTALL)[1])
        script = f"maskless() {{ printf '%s\\0' \"$@\"; }}; {shown}"
        words = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
        assert words[:2] == ["edit", "scene.png"] and words[words.index("--prompt") + 1] == prompt
        assert "--slim-checkpoint" in words and words[words.index("--lr") + 1] == "0.01"
        # 4 of QUICK's options differ from the defaults by value; the seed, the caption and --quiet do not count.
        for absent in ("--seed", "--caption", "--quiet", "--epochs", "--output-dir"):
            assert absent not in words
        first = json.loads(report.with_name("result.json").read_text("utf-8"))
        report.unlink()
        assert maskless(*words)[0] == 0
        assert same(json.loads(report.with_name("result.json").read_text("utf-8"))) == same(first)

    def test_tensorboard_logs_beside_the_results(self, maskless, scene, tiny_models):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        assert maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--quiet", "--tensorboard")[0] == 0
        (folder,) = Path("output/tensorboard").iterdir()
        read = EventAccumulator(str(folder))
        read.Reload()
        assert [event.step for event in read.Scalars("loss")] == [1, 2] and read.Tags()["images"] == ["overview"]
        assert len([tag for tag in read.Tags()["scalars"] if tag.startswith("probability/")]) == 2 * 6


class TestTasks:
    """Instructions, masks and the tasks that search for nothing."""

    def test_an_instruction_is_an_edit(self, maskless, scene, tiny_models):
        status, out, err = maskless("edit", scene, "remove the red square", "--models", tiny_models, *QUICK, "--json")
        record = json.loads(out)
        assert status == 0 and record["request"]["task"] == "remove"
        assert record["request"]["caption"] == "the red square" and record["request"]["prompt"].startswith("empty ")
        assert record["anchor_net"] is None and len(record["history"]) == 4 and "4/4" in err
        assert not Path("checkpoints/last.pth").exists() and Path("checkpoints/run.json").is_file()

    def test_flags_win_over_the_instruction(self, maskless, scene, tiny_models):
        status, out, _ = maskless(
            "edit", scene, "extend the picture to the left", "--extend", "top=8", "-p", "empty snow",
            "--models", tiny_models, *QUICK, "--json",
        )  # fmt: skip
        record = json.loads(out)
        assert status == 0 and record["request"]["size_px"] == [120, 80] and record["request"]["prompt"] == "empty snow"
        assert record["folder"] == "output/0_extend"

    def test_a_redrawer_draws_over_what_it_sees(self, maskless, scene, tiny_models, tmp_path):
        seeing = build_family("instruct-pix2pix", tmp_path / "pix2pix")
        command = ["edit", scene, "make it a pencil sketch", "--models", tiny_models, *QUICK, "--json"]
        forwards = []
        for redraw in ([], ["--redraw", seeing]):
            status, out, _ = maskless(*command, *redraw)
            cost = json.loads(out)["cost"]
            forwards.append(cost["unet_forwards"] / cost["inpaintings"])
        assert status == 0 and forwards == [3, 2], "a model that does not see the picture is asked what it sees as well"
        status, out, err = maskless(*command, "--redraw", tiny_models / "inpainting", "--quiet")
        assert (status, out) == (2, "") and err.startswith("maskless: the redraw model must see the picture")

    def test_a_mask_file_overrides_the_search(self, maskless, scene, tiny_models):
        mask = np.zeros((72, 120), np.uint8)
        mask[10:30, 20:60] = 255
        Image.fromarray(mask).save("mask.png")
        status, out, _ = maskless(
            "edit", scene, *TEXTS, "--mask", "mask.png", "--models", tiny_models, *QUICK, "--json"
        )
        record = json.loads(out)
        assert status == 0 and record["request"]["task"] == "replace"
        assert [entry["box_xyxy"] for entry in record["candidates"]] == [[20, 10, 60, 30]] * 4

    def test_an_added_thing_goes_on_from_its_checkpoint(self, maskless, scene, tiny_models):
        command = ["edit", scene, "add a yellow star", "--models", tiny_models, *QUICK, "--json"]
        first = json.loads(maskless(*command)[1])
        status, out, err = maskless(*command, "--load-checkpoint", "checkpoints/last.pth")
        assert status == 0 and "after iteration 2" in err and same(json.loads(out)) == same(first)

    def test_a_fill_does_not_go_on_from_a_checkpoint(self, maskless, scene, tiny_models):
        maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK)
        status, _, err = maskless(
            "edit", scene, "make it a pencil sketch", "--models", tiny_models, *QUICK, "--quiet",
            "--load-checkpoint", "checkpoints/last.pth",
        )  # fmt: skip
        assert status == 2 and err == (
            "maskless: only a search for a region goes on from a checkpoint, got the task style\n"
        )


def same(record: dict) -> dict:
    """A record without what a clock or a memory meter says."""
    record = json.loads(json.dumps(record))
    del record["cost"]["seconds"], record["cost"]["peak_memory_mb"]
    for step in record["history"]:
        del step["seconds"]
    return record


class TestGallery:
    def test_makes_eleven_pictures_and_a_page(self, maskless, scene, tiny_models):
        asked = ["--image", scene, "--caption", "a red square", "--models", tiny_models, *QUICK]
        status, out, err = maskless("gallery", *asked)
        assert status == 0 and "output/editing_results/index.html" in out
        assert len(list(Path("output/editing_results").iterdir())) == 12
        assert "11/11  generated_image.png" in err
        status, out, _ = maskless("gallery", *asked, "--json")
        made = json.loads(out)
        assert status == 0 and len(made) == 11
        assert made[3]["file"].endswith("04_replace_object.png") and made[3]["prompt"] == "a blue house"
        assert {"box_xyxy", "losses", "score", "seconds"} <= set(made[3])

    def test_says_at_the_end_what_was_not_possible(self, capsys, tmp_path):
        exhibit = Exhibit(file="a.png", title="Remove", task="remove", image="a.png")
        failed = Shown(exhibit=exhibit, path=tmp_path / "a.png", facts={}, problem="found no [cat]")
        with pytest.raises(MasklessError, match="1 of 1 edits were not possible: remove"):
            GalleryConsole().show(iter([failed]), ["Remove"], tmp_path)
        captured = capsys.readouterr()
        assert "found no [cat]" in captured.err and "index.html" in captured.out

    def test_needs_a_caption_for_a_picture(self, maskless, scene):
        status, out, err = maskless("gallery", "--image", scene)
        assert (status, out) == (2, "") and "--caption" in err and not Path("output").exists()


class TestHelp:
    def test_lists_every_option_in_groups(self, maskless, monkeypatch):
        monkeypatch.setenv("COLUMNS", "120")
        status, out, _ = maskless("edit", "--help")
        assert status == 0
        for option in fields(EditConfig):
            assert "--" + option.name.replace("_", "-") in out
        for group in (
            "Search",
            "Regions",
            "Losses",
            "Ranking",
            "Inpainting",
            "Checkpoints",
            "Models",
            "Output",
            "Display",
        ):
            assert f"─ {group} ─" in out
        assert "[default: the model's, else 50]" in out

    def test_version(self, maskless):
        assert re.fullmatch(r"maskless \d+\.\d+\.\d+\n", maskless("--version")[1])

    def test_help_is_quick(self):
        """It reads no model library."""
        script = "import sys, maskless.interfaces.cli; print([m for m in ('torch', 'diffusers') if m in sys.modules])"
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "[]"


class TestModels:
    """`maskless models`, and the options that say how models are loaded."""

    @pytest.fixture(autouse=True)
    def empty_cache(self, tmp_path, monkeypatch):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))

    def test_lists_the_presets(self, maskless):
        status, out, err = maskless("models")
        assert (status, err) == (0, "")
        row = next(line for line in out.splitlines() if line.startswith("flux-fill"))
        assert re.search(r"34\.7 GB .* no .*FLUX", row) and "gated" in out
        assert re.search(r"storybook .*bundled .* yes .*Apache-2.0", out)

    def test_lists_them_as_json(self, maskless):
        status, out, err = maskless("models", "--json")
        presets = {preset["name"]: preset for preset in json.loads(out)}
        assert (status, err) == (0, "") and len(presets) == 11
        assert presets["storybook"]["on_disk"] and not presets["sd15"]["on_disk"]
        assert presets["sd2"]["inpainting"][0] == "sd2-community/stable-diffusion-2-inpainting"
        assert presets["sd3"]["gated"] and presets["kontext"]["kind"] == "instruction"

    def test_a_memory_level_says_what_it_does_and_is_kept(self, maskless, scene, tiny_models):
        status, _out, err = maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--memory", "low")
        assert status == 0
        told = [line for line in err.splitlines() if line.startswith("Memory")]
        assert len(told) == 1 and "low: attention and autoencoder in slices" in told[0] and "nothing to move" in told[0]
        record = json.loads(next(Path("output").rglob("result.json")).read_text())
        assert record["config"]["memory"] == "low" and record["cost"]["peak_memory_mb"] > 0

    def test_a_preset_that_is_not_there_offline(self, maskless, scene):
        status, out, err = maskless("edit", scene, *TEXTS, "--models", "sd15", "--offline")
        assert (status, out) == (2, "") and err.count("\n") == 1
        assert "stable-diffusion-v1-5/stable-diffusion-inpainting is not on this disk" in err
        assert "run once without --offline" in err

    def test_out_of_memory_anywhere_is_one_line(self, maskless, scene, tiny_models, monkeypatch):
        import torch

        def no_room(*_arguments):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

        monkeypatch.setattr("maskless.models.dino.Dino.features", no_room)
        status, out, err = maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--quiet")
        assert (status, out) == (1, "") and "out of memory; try a lower --memory level" in err


class TestErrors:
    """One line on stderr, status 2, nothing written."""

    @pytest.fixture
    def refused(self, maskless, scene):
        def check(*arguments: object) -> str:
            before = sorted(Path().rglob("*"))
            status, out, err = maskless(*arguments)
            assert (status, out) == (2, "")
            assert err.startswith("maskless: ") and err.count("\n") == 1 and "Traceback" not in err
            assert sorted(Path().rglob("*")) == before
            return err

        return check

    @pytest.mark.parametrize(
        "arguments,message",
        [
            (["nothing.png", "-p", "x"], "no such file: nothing.png"),
            ([".", "-p", "x"], "is a folder"),
            (["scene.png", "-p", " "], "prompt must not be empty"),
            (["scene.png"], "--prompt"),
            (["scene.png", "-p", "x", "--task", "paint"], "task must be one of complete, add"),
            (["scene.png", "make it nice"], "the forms are: replace A with B; add B; remove A;"),
            (["scene.png", "-p", "x", "--mask", "none.png"], "no such file: none.png"),
            (["scene.png", "-p", "x", "--box", "0,0,500,20"], "inside the picture of 120 x 72"),
            (["scene.png", "--task", "complete"], "has none; give --mask FILE"),
            (["scene.png", "--task", "remove"], "remove needs to know what"),
            (["scene.png", "-p", "x", "--extend", "0.5"], "only the task extend"),
            (["scene.png", "-p", "x", "--lr", "7"], "lr must be from 1e-08 to 1, got 7"),
            (["scene.png", "-p", "x", "--lr", "abc"], "--lr"),
            (["scene.png", "-p", "x", "--lr", "nan"], "lr must be a finite number"),
            (["scene.png", "-p", "x", "--anchors", "0"], "anchors must be from 1"),
            (["scene.png", "-p", "x", "--iterations", "-1"], "iterations must be from 0"),
            (["scene.png", "-p", "x", "--max-window-size", "17"], "max_window_size must be from 1 to 16"),
            (["scene.png", "-p", "x", "--ranking", "best"], "ranking must be one of paper"),
            (["scene.png", "-p", "x", "--nonsense"], "--nonsense"),
            (["scene.png", "-p", "x", "--output-dir", "scene.png/deep"], "is a file, not a folder"),
            (["scene.png", "-p", "x", "--checkpoint-dir", "scene.png"], "is a file, not a folder"),
            (["scene.png", "-p", "x", "--load-checkpoint", "none.pth"], "no such checkpoint: none.pth"),
            (["scene.png", "-p", "x", "--load-checkpoint", "scene.png"], "cannot read the checkpoint scene.png"),
            (
                ["scene.png", "-p", "x", "--models", "no-such-models"],
                "models must be one of storybook, sd15, sd2, sdxl",
            ),
        ],
    )
    def test_bad_input(self, refused, arguments, message):
        assert message in refused("edit", *arguments)

    @pytest.mark.skipif("__import__('torch').cuda.is_available()")
    def test_no_cuda(self, refused, tiny_models):
        assert "cuda is not available" in refused(
            "edit", "scene.png", "-p", "x", "--models", tiny_models, "--device", "cuda"
        )

    def test_tensorboard_that_is_not_installed(self, refused, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorboard", None)
        monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
        assert "pip install 'maskless[tensorboard]'" in refused("edit", "scene.png", "-p", "x", "--tensorboard")

    def test_not_an_image(self, refused):
        Path("text.png").write_text("hello")
        assert "not a picture" in refused("edit", "text.png", "-p", "x")

    def test_truncated(self, refused):
        content = Path("scene.png").read_bytes()
        Path("cut.png").write_bytes(content[: len(content) // 2])
        assert "damaged or incomplete" in refused("edit", "cut.png", "-p", "x")

    def test_unknown_commands_and_suites(self, refused):
        assert "nonsense" in refused("nonsense")
        assert "suite must be one of" in refused("evaluate", "nonsense")
        assert "the suite models takes no --iterations" in refused("evaluate", "models", "--iterations", "3")
        assert "the suite models takes no folder" in refused("evaluate", "models", ".")
        assert "pie-bench needs the folder of a benchmark" in refused("evaluate", "pie-bench")
        assert "the suite pie-bench takes no --split" in refused("evaluate", "pie-bench", ".", "--split", "train")
        assert "must hold mapping_file.json" in refused("evaluate", "pie-bench", ".")
        assert "methods must be among maskless" in refused("evaluate", "storybook", "--methods", "paint")
        assert "is a file, not a folder" in refused("evaluate", "models", "--output-dir", "scene.png")
        assert "no such checkpoint" in refused("inspect", "none.pth")

    def test_a_checkpoint_of_another_shape(self, maskless, scene, tiny_models):
        maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK)
        status, out, err = maskless(
            "edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--max-window-size", "8", "--quiet",
            "--load-checkpoint", "checkpoints/last.pth",
        )  # fmt: skip
        assert (status, out) == (2, "")
        assert err == (
            "maskless: the AnchorNet in checkpoints/last.pth chooses among 6 sizes, "
            "this edit has 3 (max_window_size 8)\n"
        )

    def test_a_prompt_longer_than_the_context_is_no_error(self, maskless, scene, tiny_models):
        prompt = "a house with a garden and " * 12
        assert maskless("edit", scene, "-p", prompt, "--models", tiny_models, *QUICK, "--quiet")[0] == 0


class TestInspect:
    def test_prints_parts_config_and_progress(self, maskless, scene, tiny_models):
        maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK)
        status, out, _ = maskless("inspect", "checkpoints/last.pth")
        assert status == 0
        for told in (
            "anchor_net",
            "trained",
            "1,678",
            "projection",
            "dino",
            "frozen",
            "layers.0.weight",
            "iteration 2",
        ):
            assert told in out
        status, out, _ = maskless("inspect", "checkpoints/last.pth", "--json")
        record = json.loads(out)
        assert record["parts"]["anchor_net"]["state"] == "trained"
        assert record["parts"]["anchor_net"]["parameters"] == 1678
        assert record["parts"]["dino"]["state"] == "frozen" and record["parts"]["dino"]["keys"]
        assert record["progress"]["iteration"] == 2 and record["config"]["anchors"] == 2


class TestStatus:
    """In every condition it exits with 0 and tells what is true; the real kill is in TestInterruption."""

    def told(self, maskless, *arguments: str) -> dict:
        status, out, err = maskless("status", "--json", *arguments)
        assert (status, err) == (0, "")
        return json.loads(out)

    def test_of_nothing(self, maskless, scene):
        assert self.told(maskless)["state"] == "not started"
        status, out, _ = maskless("status")
        assert status == 0 and "not started" in out and "none in output" in out and "none in checkpoints" in out

    def test_of_a_complete_run_elsewhere(self, maskless, scene, tiny_models):
        where = ["--output-dir", "o", "--checkpoint-dir", "c"]
        maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--quiet", *where)
        told = self.told(maskless, *where)
        assert (told["started"], told["state"], told["mode"]) == (True, "complete", "single process")
        assert (told["iteration"], told["total_iterations"], told["percent"]) == (2, 2, 100.0)
        assert told["models"]["dino"] == str(tiny_models / "dino") and told["problems"] == []
        assert [entry["file"] for entry in told["checkpoints"]] == ["last.pth"]
        assert told["checkpoints"][0]["parts"]["anchor_net"] == 1678
        assert [entry["folder"] for entry in told["results"]] == ["0_a red square"]
        status, out, _ = maskless("status", *where)
        for words in ("complete, 2/2 iterations (100 %)", "single process", "1 in c", "last.pth", "anchor_net 1,678",
                      "0_a red square", "a blue house", "scene.png: a red square → a blue house"):  # fmt: skip
            assert words in out
        assert self.told(maskless)["state"] == "not started"  # the folders of the default

    def test_of_damage(self, maskless, scene, tiny_models):
        maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--quiet")
        last, record = Path("checkpoints/last.pth"), Path("output/0_a red square/result.json")
        last.write_bytes(last.read_bytes()[:-1000])
        record.write_text(record.read_text("utf-8")[:-100] + "\x1b[31m[bold]", "utf-8")
        told = self.told(maskless)
        assert told["state"] == "complete" and len(told["problems"]) == 2
        Path("checkpoints/run.json").write_bytes(b"\xff")
        told = self.told(maskless)
        assert told["state"] == "unknown" and told["started"] and len(told["problems"]) == 3
        status, out, err = maskless("status")
        assert (status, err) == (0, "") and out.count("Problem") == 3 and "\x1b" not in out


class TestInterruption:
    """Real processes, real signals."""

    SEARCH = ["--steps", "2", "--anchors", "3", "--iterations", "2", "--epochs", "6", "--views", "2",
              "--device", "cpu", "--dtype", "float32", "--gradient-accumulation", "5"]  # fmt: skip

    def command(self, tiny_models: Path, **folders: str) -> list[object]:
        folders = {"output": "output", "checkpoint": "checkpoints"} | folders
        where = [text for name, folder in folders.items() for text in (f"--{name}-dir", folder)]
        return ["edit", "scene.png", *TEXTS, "--models", tiny_models, *self.SEARCH, *where]

    def status(self, folder: Path) -> dict:
        """What `maskless status` says, asked in a process of its own."""
        asked = started("status", "--json", cwd=folder)
        out, err = asked.communicate(timeout=120)
        assert (asked.returncode, err) == (0, "")
        return json.loads(out)

    @pytest.mark.slow
    def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(self, scene, tiny_models, tmp_path):
        process = started(*self.command(tiny_models), cwd=tmp_path)
        assert process.stderr is not None
        for line in process.stderr:
            if "Search   3/12" in line:
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=300)
        assert process.returncode == 130 and out == ""
        assert err.splitlines()[-1] == "maskless: interrupted; go on with --load-checkpoint checkpoints/last.pth"
        assert "Traceback" not in err
        assert self.status(tmp_path)["state"] == "interrupted"
        assert 3 <= load_checkpoint(tmp_path / "checkpoints/last.pth").progress["iteration"] < 12
        assert not (tmp_path / "output").exists() or not list((tmp_path / "output").rglob("*.json"))

    @pytest.mark.slow
    @pytest.mark.parametrize("moment", ["start", "middle", "between"])
    def test_a_killed_run_resumes_to_the_same_result(self, scene, tiny_models, tmp_path, moment):
        """Bytes agree between processes of the same number of threads, so all three are `started`."""
        process = started(*self.command(tiny_models), cwd=tmp_path)
        assert process.stderr is not None
        wanted = {"start": "Regions", "middle": "Search   5/12", "between": "Search   8/12"}[moment]
        for line in process.stderr:
            if line.startswith(wanted):
                break
        deadline = time.monotonic() + 120
        while not (tmp_path / "checkpoints/last.pth").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        if moment == "middle":
            process.send_signal(signal.SIGSTOP)  # else it may come to its end while it is asked after
            running = self.status(tmp_path)
            assert running["state"] == "running" and running["run"]["pid"] == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed = self.status(tmp_path)
        assert killed["state"] == "interrupted" and killed["started"] and killed["problems"] == []
        wanted_least = {"start": 0, "middle": 5, "between": 8}[moment]
        assert wanted_least <= killed["iteration"] < 12 == killed["total_iterations"] and killed["results"] == []
        done = load_checkpoint(tmp_path / "checkpoints/last.pth").progress["iteration"]
        assert done < 12
        resumed = [*self.command(tiny_models, output="resumed"), "--load-checkpoint", "checkpoints/last.pth"]
        for command in (resumed, self.command(tiny_models, output="whole", checkpoint="other")):
            process = started(*command, cwd=tmp_path)
            process.communicate(timeout=300)
            assert process.returncode == 0
        folders = [tmp_path / name / "0_a red square" for name in ("resumed", "whole")]
        records = [json.loads((folder / "result.json").read_text("utf-8")) for folder in folders]
        assert same(records[0]) == same(records[1])
        pictures = [sorted(folder.glob("results/*.png")) for folder in folders]
        assert len(pictures[0]) == 4
        for one, other in zip(*pictures, strict=True):
            assert one.name == other.name and one.read_bytes() == other.read_bytes()

    def test_a_full_disk_is_one_line(self, scene, tiny_models, tmp_path):
        """A limit on file sizes stands for the disk that runs full: the first checkpoint does not fit."""
        script = (
            "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
            "from maskless.interfaces.cli import main; main(sys.argv[1:])"
        )
        command = [sys.executable, "-c", script, *map(str, self.command(tiny_models)), "--quiet"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 2 and run.stdout == ""
        assert run.stderr.startswith("maskless: cannot write checkpoints/last.pth: ") and run.stderr.count("\n") == 1
        left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
        assert left == ["scene.png"]


def test_untouched_pixels_of_the_final_picture_are_the_inputs(maskless, scene, tiny_models):
    _, out, _ = maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--json")
    record = json.loads(out)
    source = np.asarray(Image.open(scene))
    final = np.asarray(Image.open(Path(record["folder"]) / "results/final_output.png"))
    x0, y0, x1, y1 = record["candidates"][record["order"][0]]["box_xyxy"]
    outside = np.ones(source.shape[:2], bool)
    outside[y0:y1, x0:x1] = False
    assert np.array_equal(final[outside], source[outside])


class TestRows:
    """What `maskless evaluate` prints of the rows that a suite gives."""

    NAMES = {"suite": "models", "method": "storybook", "task": "clip"}
    ROWS = [
        NAMES | {"metric": "recall", "value": 0.91234, "low": 0.88, "high": 0.93, "n": 200},
        NAMES | {"metric": "psnr", "value": 33.1, "low": None, "high": None, "n": 64},
    ]

    def test_as_a_table(self, capsys):
        print_rows(self.ROWS, as_json=False)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["suite", "method", "task", "metric", "value", "low", "high", "n"]
        assert lines[1].split() == ["models", "storybook", "clip", "recall", "0.9123", "0.88", "0.93", "200"]
        assert lines[2].split() == ["models", "storybook", "clip", "psnr", "33.1", "–", "–", "64"]

    def test_as_json(self, capsys):
        print_rows(self.ROWS, as_json=True)
        assert json.loads(capsys.readouterr().out) == self.ROWS

    def test_none(self, capsys):
        print_rows([], as_json=True)
        assert json.loads(capsys.readouterr().out) == []


class TestEvaluate:
    """`maskless evaluate`: rows on stdout, tables and plots in a folder, and it goes on where it was."""

    COMMAND = ("evaluate", "storybook", "--methods", "oracle_box", "--limit", "1", "--steps", "1", "--json")

    def test_rows_files_and_going_on(self, maskless, scene, monkeypatch):
        status, out, err = maskless(*self.COMMAND)
        rows = json.loads(out)
        assert status == 0 and "1/1 measured" in err
        assert all(set(row) == {"suite", "method", "task", "metric", "value", "low", "high", "n"} for row in rows)
        folder = Path("output/evaluation")
        assert sorted(path.name for path in folder.iterdir()) == [
            f"storybook.{suffix}" for suffix in ("csv", "jpg", "json", "jsonl", "md", "png")
        ]
        assert json.loads((folder / "storybook.json").read_text("utf-8")) == rows
        assert "maskless evaluate storybook --limit 1 --steps 1 --methods oracle_box" in (
            folder / "storybook.md"
        ).read_text("utf-8")
        monkeypatch.setattr("maskless.evaluation.trials.attempt", pytest.fail)
        again = maskless(*self.COMMAND)
        assert (again[0], json.loads(again[1])) == (0, rows)

    def test_held_out_scenes_unless_told(self, maskless, scene, monkeypatch):
        asked = {}

        def run(split, limit=None, seed_offset=0, methods=None, steps=None):
            asked.update(split=split, limit=limit, seed_offset=seed_offset, methods=methods, steps=steps)
            return []

        monkeypatch.setattr("maskless.evaluation.storybook.run", run)
        assert maskless("evaluate", "storybook", "--methods", " maskless, release,")[0] == 0
        assert asked == {
            "split": "held-out", "limit": None, "seed_offset": 0, "methods": ["maskless", "release"], "steps": None,
        }  # fmt: skip
        assert maskless("evaluate", "storybook", "--split", "validation", "--limit", "3", "--seed-offset", "9")[0] == 0
        assert (asked["split"], asked["limit"], asked["seed_offset"]) == ("validation", 3, 9)

    def test_a_benchmarks_folder_comes_second(self, maskless, scene):
        Path("bench").mkdir()
        Path("bench/requests.csv").write_text("image,caption,prompt,mask\nscene.png,x,y,mask.png\n", "utf-8")
        with Image.open("scene.png") as picture:
            picture.save("bench/scene.png")
            Image.new("L", picture.size, 255).save("bench/mask.png")
        status, out, err = maskless("evaluate", "pie-bench", "bench", "--results", ".", "--clip", "no", "--json")
        assert status == 2 and out == "" and "clip" in err.lower()
        status, out, err = maskless("evaluate", "pie-bench", "bench", "--results", ".", "--json")
        assert (status, json.loads(out)) == (0, []), "all of it is edited and no network is named: nothing to measure"
        assert "Left out: LPIPS; name the network's folder with --lpips" in err
        Path("bench/mask.png").unlink()
        Path("bench/requests.csv").write_text("image,caption,prompt,mask\nscene.png,x,y,half.png\n", "utf-8")
        with Image.open("scene.png") as picture:
            half = Image.new("L", picture.size)
            half.paste(255, (0, 0, picture.width // 2, picture.height))
            half.save("bench/half.png")
        status, out, _ = maskless("evaluate", "pie-bench", "bench", "--results", ".", "--json")
        assert {row["metric"]: row["value"] for row in json.loads(out)} == {
            "background PSNR dB": 100, "background MSE": 0, "background SSIM": 1, "background identical": 1,
        }  # fmt: skip
        assert "maskless evaluate pie-bench bench --results ." in Path("output/evaluation/pie_bench.md").read_text()

    def test_a_hyphen_stands_for_an_underscore(self, maskless, scene, monkeypatch):
        monkeypatch.setattr("maskless.evaluation.search_study.run", lambda **_: [])
        assert maskless("evaluate", "search-study", "--json")[:2] == (0, "[]\n")
