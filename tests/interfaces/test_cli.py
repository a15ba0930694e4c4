"""The command line from outside: what it prints where, what it writes, and how it ends."""

import gc
import html
import json
import os
import re
import shlex
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
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions
from maskless.records.checkpoints import load_checkpoint
from quick_edit import LAST, QUICK, TEXTS, timeless
from tiny_families import build_family


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
        assert Path(LAST).is_file()
        assert "final_output.png" in out and "overview.png" in out and "report.html" in out and "expected loss" in out
        assert "Models" in err and "2/2" in err and "loss" in err and "left" in err

    def test_libraries_and_models_are_loaded_without_garbage_collection(
        self, maskless, scene, tiny_models, monkeypatch
    ):
        from maskless.models import pretrained

        enabled, load = [], pretrained.load_models
        monkeypatch.setattr(
            pretrained, "load_models", lambda options: (enabled.append(gc.isenabled()), load(options))[1]
        )
        status, *_ = maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK)
        assert status == 0 and enabled == [False] and gc.isenabled()

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

    def test_a_warning_is_one_line_and_the_edit_goes_on(self, maskless, scene, tiny_models, tmp_path):
        build_family("flux", tmp_path / "flux")
        parts = ["--models", tmp_path / "flux", "--dino", tiny_models / "dino", "--clip", tiny_models / "clip"]
        long = "a house with the blue tree " * 200
        status, out, err = maskless("edit", scene, "--box", "8,8,40,40", "-p", long, *parts, *QUICK)
        lines = [line for line in err.splitlines() if line.startswith("maskless: ")]
        assert status == 0 and "final_output.png" in out and len(lines) == 1
        assert "FluxInpaintPipeline, which leaves out its end" in lines[0]

    def test_every_option_reaches_the_config(self, maskless, scene, tiny_models, preview_vae):
        layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
        save_file({f"{layer}.lora_{side}.weight": torch.ones(32, 32) for side in "AB"}, "style.safetensors")
        given = {
            "search": "learned", "budget": 2, "iterations": 1, "epochs": 2, "lr": 0.01, "gradient_accumulation": 3,
            "updates": 7, "seed": 5, "anchors": 1,
            "anchor_source": "attention", "max_window_size": 8, "min_window_size": 6, "window_step": 1, "alpha": 0.5,
            "beta": 0.25, "gamma": 0.125, "views": 1, "ranking_alpha": 3.0, "ranking_beta": 0.5, "steps": 1,
            "guidance_scale": 2.0, "negative_prompt": "grey", "context": 0.25, "feather": 0.1, "batch_size": 2,
            "ranking": "paper", "estimator": "table", "strength": 1.0,
            "location_weight": 1.5, "delta": 0.0625, "align_limit": 0.25,
        }  # fmt: skip
        of_models = {"device": "cpu", "dtype": "float32", "scheduler": "unipc", "lora": "style.safetensors:0.5",
                     "memory": "low", "preview_vae": str(preview_vae)}  # fmt: skip
        kept = {"checkpoint_interval": 2, "checkpoint_dir": "deep/er", "output_dir": "else/where", "image_id": "7",
                "format": "webp", "quality": 60}  # fmt: skip
        switches = {"slim_checkpoint": True, "offline": True, "allow_pickle": True, "fit_edges": False,
                    "draw_box": True, "tensorboard": True, "keep_alpha": True, "overwrite": True,
                    "each_part": True, "align": False, "keep_unchanged": True}  # fmt: skip
        flags = [
            text
            for name, value in (given | of_models | kept).items()
            for text in ("--" + name.replace("_", "-"), str(value))
        ]
        flags += [("--" if on else "--no-") + name.replace("_", "-") for name, on in switches.items()]
        status, out, _ = maskless(
            "edit", scene, *TEXTS, "--models", tiny_models, *flags, "--json",
        )  # fmt: skip
        record = json.loads(out)
        assert status == 0 and record["config"] == given | {
            "fit_edges": False, "keep_alpha": True, "each_part": True, "align": False, "whole_window": False,
            "keep_unchanged": True,
        }  # fmt: skip
        assert set(record["config"]) == {option.name for option in fields(EditConfig)}
        loaded = of_models | {"offline": True, "allow_pickle": True, "models": str(tiny_models)}
        assert record["models"] == loaded | {"compile": False} | dict.fromkeys(
            ("dino", "clip", "redraw", "erase", "grounder", "transformer")
        )
        assert set(record["models"]) == {option.name for option in fields(ModelOptions)}
        others = {"slim_checkpoint", "draw_box", "tensorboard", "overwrite", "provenance", "sign", "sign_key"}
        assert set(kept) | others == {option.name for option in fields(KeepOptions)}
        folder = Path("deep/er/7_a red square")
        assert sorted(os.listdir(folder)) == ["last.pth", "run.json", "transformer_epoch_2.pth"]
        assert load_checkpoint(folder / "last.pth").dino == {}
        assert {path.name for path in Path("else/where").iterdir()} == {"7_a red square", "tensorboard"}
        assert Path("else/where/7_a red square/boxes").is_dir()
        assert Path("else/where/7_a red square/results/final_output.webp").is_file()

    def test_going_on_from_a_finished_run_inpaints_nothing_anew(self, maskless, scene, tiny_models):
        command = ["edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--json"]
        first = json.loads(maskless(*command)[1])
        status, out, err = maskless(*command, "--load-checkpoint", LAST)
        second = json.loads(out)
        assert status == 0 and "after iteration 2" in err
        assert timeless(first) == timeless(second)

    def test_of_another_edit_the_anchor_net_is_taken_and_it_is_said(self, maskless, scene, tiny_models):
        base = ["edit", scene, "--models", tiny_models, *QUICK]
        maskless(*base, *TEXTS)
        status, _, err = maskless(*base, "--prompt", "a cat", "--load-checkpoint", LAST)
        assert status == 0 and "only its AnchorNet, because it belongs to an edit with another caption" in err

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
        assert timeless(json.loads(report.with_name("result.json").read_text("utf-8"))) == timeless(first)

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
        assert record["anchor_net"] is None and len(record["history"]) == 5 and "4/4" in err
        assert [path.name for path in Path("checkpoints").rglob("*.*")] == ["run.json"]

    def test_flags_win_over_the_instruction(self, maskless, scene, tiny_models):
        status, out, err = maskless(
            "edit", scene, "extend the picture to the left", "--extend", "top=8", "-p", "empty snow",
            "--models", tiny_models, *QUICK, "--json",
        )  # fmt: skip
        record = json.loads(out)
        assert status == 0 and record["request"]["size_px"] == [120, 80] and record["request"]["prompt"] == "empty snow"
        assert record["folder"] == "output/0_extend"
        said = [line for line in err.splitlines() if line.startswith("maskless: ")]
        assert said == ["maskless: --extend top=8 takes the place of what the instruction says, 'left=0.25'"]

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (
                ["--caption", "a tree"],
                "--caption 'a tree' takes the place of what the instruction says, 'the red square'",
            ),
            (["--task", "add"], "--task add takes the place of what the instruction says, 'replace'"),
            (["-p", "a tent"], "--prompt 'a tent' takes the place of what the instruction says, 'a house'"),
            (["-p", "a house", "--caption", "the red square"], None),
        ],
    )
    def test_a_flag_that_wins_says_so(self, maskless, scene, tiny_models, flags, said):
        command = ["edit", scene, "replace the red square with a house", *flags]
        _status, _, err = maskless(*command, "--models", tiny_models / "missing")
        lines = [line for line in err.splitlines() if "takes the place" in line]
        assert lines == ([] if said is None else [f"maskless: {said}"])

    def test_a_redrawer_takes_the_picture(self, maskless, scene, tiny_models, tmp_path):
        seeing = build_family("instruct-pix2pix", tmp_path / "pix2pix")
        command = ["edit", scene, "make it a pencil sketch", "--models", tiny_models, *QUICK, "--json"]
        forwards = []
        for redraw in ([], ["--redraw", seeing]):
            status, out, _ = maskless(*command, *redraw)
            cost = json.loads(out)["cost"]
            forwards.append(cost["unet_forwards"] / cost["inpaintings"])
        assert status == 0 and forwards == [3, 2], "a model that does not see the picture is asked what it sees as well"
        status, out, err = maskless(*command, "--redraw", tiny_models / "inpainting", "--quiet")
        assert (status, out) == (2, "") and err.startswith("maskless: the redraw model must take the picture")

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

    def test_an_added_object_continues_from_its_checkpoint(self, maskless, scene, tiny_models):
        command = ["edit", scene, "add a yellow star", "--models", tiny_models, *QUICK, "--json"]
        first = json.loads(maskless(*command)[1])
        status, out, err = maskless(*command, "--load-checkpoint", "checkpoints/0_add/last.pth")
        assert status == 0 and "after iteration 2" in err and timeless(json.loads(out)) == timeless(first)

    def test_a_fill_does_not_continue_from_a_checkpoint(self, maskless, scene, tiny_models):
        maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK)
        status, _, err = maskless(
            "edit", scene, "make it a pencil sketch", "--models", tiny_models, *QUICK, "--quiet",
            "--load-checkpoint", LAST,
        )  # fmt: skip
        assert status == 2 and err == (
            "maskless: only a search for a region can continue from a checkpoint, got the task style\n"
        )

    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            (["remove the cat"], "remove"), (["-p", "a tent", "--task", "creative"], "creative"),
            (["-p", "a tent", "--box", "0,0,20,20"], "replace with a mask or a box"),
        ],
    )  # fmt: skip
    def test_it_is_refused_before_any_model_is_loaded(self, refused, arguments, what):
        Path("any.pth").write_bytes(b"")
        message = refused("edit", "scene.png", *arguments, "--load-checkpoint", "any.pth", "--models", "/nowhere")
        assert message == f"maskless: only a search for a region can continue from a checkpoint, got the task {what}\n"


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
        text = " ".join(out.replace("│", " ").split())
        assert "[default: what the model recommends, else 50]" in text

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

    def test_a_memory_level_says_what_it_does_and_is_kept(self, maskless, scene, tiny_models):
        status, _out, err = maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--memory", "low")
        assert status == 0
        told = [line for line in err.splitlines() if line.startswith("Memory")]
        assert len(told) == 1
        assert "low: attention and autoencoder in slices" in told[0] and "no network is moved" in told[0]
        record = json.loads(next(Path("output").rglob("result.json")).read_text())
        assert record["models"]["memory"] == "low" and record["cost"]["peak_memory_mb"] > 0

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
            (["scene.png", "--task", "remove"], "remove needs a location"),
            (["scene.png", "-p", "x", "--extend", "0.5"], "only the task extend"),
            (["scene.png", "-p", "x", "--lr", "7"], "lr must be from 0.00000001 to 1, got 7\n"),
            (["scene.png", "-p", "x", "--lr", "abc"], "maskless: lr must be a number, got 'abc'\n"),
            (["scene.png", "-p", "x", "--iterations", "a b"], "maskless: iterations must be a whole number, got 'a b'"),
            (["scene.png", "-p", "x", "--alpha", "2e6"], "alpha must be from 0 to 1000000, got 2000000"),
            (["scene.png", "-p", "x", "--seed", "-1"], "seed must be from 0 to 9223372036854775807, got -1"),
            (["scene.png", "-p", "x", "--lr", "nan"], "lr must be a finite number"),
            (["scene.png", "-p", "x", "--anchors", "0"], "anchors must be from 1"),
            (["scene.png", "-p", "x", "--iterations", "-1"], "iterations must be from 0"),
            (["scene.png", "-p", "x", "--max-window-size", "17"], "max_window_size must be from 1 to 16"),
            (["scene.png", "-p", "x", "--ranking", "best"], "ranking must be one of paper"),
            (
                ["scene.png", "-p", "x", "--qqqqqqqq"],
                "maskless: no such option: --qqqqqqqq; see maskless edit --help\n",
            ),
            (["scene.png", "-p", "x", "--iteration", "3"], "--iterations? See maskless edit --help\n"),
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

    def test_a_checkpoint_of_another_shape(self, maskless, scene, tiny_models):
        maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK)
        status, out, err = maskless(
            "edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--max-window-size", "8", "--quiet",
            "--load-checkpoint", LAST,
        )  # fmt: skip
        assert (status, out) == (2, "")
        assert err == (
            f"maskless: the AnchorNet in {LAST} chooses among 6 sizes, this edit has 3 (max_window_size 8)\n"
        )

    def test_a_prompt_longer_than_the_context_is_no_error(self, maskless, scene, tiny_models):
        prompt = "a house with a garden and " * 12
        assert maskless("edit", scene, "-p", prompt, "--models", tiny_models, *QUICK, "--quiet")[0] == 0


class TestInterruption:
    """Real processes, real signals."""

    SEARCH = ["--search", "learned", "--steps", "2", "--anchors", "3", "--iterations", "2", "--epochs", "6",
              "--views", "2", "--device", "cpu", "--dtype", "float32", "--gradient-accumulation", "5"]  # fmt: skip

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
        *_, last = err.splitlines()
        begin = "maskless: interrupted; continue with: "
        words = shlex.split(last.removeprefix(begin))
        assert last.startswith(begin) and words[:3] == ["maskless", "edit", "scene.png"]
        assert words[-2:] == ["--load-checkpoint", LAST] and words[words.index("--caption") + 1] == "a red square"
        assert "Traceback" not in err
        assert self.status(tmp_path)["state"] == "interrupted"
        assert 3 <= load_checkpoint(tmp_path / LAST).progress["iteration"] < 12
        assert not (tmp_path / "output").exists() or not list((tmp_path / "output").rglob("*.json"))
        process = started(*words[1:], cwd=tmp_path)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0 and "Resumed" in err and "final_output.png" in out

    def interrupted(self, monkeypatch, maskless, *command: object, at: str) -> str:
        """The last line of a command that is interrupted when it calls the function `at`."""

        def interrupt(*_given, **_named):
            raise KeyboardInterrupt

        monkeypatch.setattr(at, interrupt)
        status, out, err = maskless(*command)
        assert (status, out) == (130, "") and "Traceback" not in err
        return err.splitlines()[-1]

    def test_ctrl_c_while_models_load_says_so(self, maskless, scene, tiny_models, monkeypatch):
        command = ["edit", scene, *TEXTS, "--models", tiny_models, *QUICK]
        at = "maskless.models.pretrained.load_models"
        assert self.interrupted(monkeypatch, maskless, *command, at=at) == "maskless: interrupted"

    @pytest.mark.parametrize("arguments", [["remove the red square"], ["add a house and a tree"]])
    def test_ctrl_c_in_an_edit_without_checkpoints_says_that_it_starts_again(
        self, maskless, scene, tiny_models, monkeypatch, arguments
    ):
        command = ["edit", scene, *arguments, "--models", tiny_models, *QUICK]
        last = self.interrupted(monkeypatch, maskless, *command, at="maskless.engine.scoring.ClipScorer.losses")
        assert last == ("maskless: interrupted; this edit leaves no checkpoint, so the same command starts it again")

    def test_a_gallery_and_an_evaluation_say_that_they_continue(self, maskless, scene, tiny_models, monkeypatch):
        expected = "maskless: interrupted; the same command continues where it stopped"
        gallery = ["gallery", "--models", tiny_models, "--device", "cpu"]
        assert self.interrupted(monkeypatch, maskless, *gallery, at="maskless.engine.editor.Editor.edit") == expected
        suite = ["evaluate", "models", "--limit", "1"]
        at = "maskless.evaluation.suites.models.run"
        assert self.interrupted(monkeypatch, maskless, *suite, at=at) == expected

    def test_how_to_continue_is_a_command_for_a_shell(self):
        from maskless.interfaces.cli import _how_to_continue

        last = Path("check points/it's/last.pth")
        option = "--load-checkpoint 'check points/it'\"'\"'s/last.pth'"
        several = "maskless edit a.png \\\n  --caption 'a  red car' \\\n  --prompt x"
        whole = "maskless edit a.png --caption 'a  red car' --prompt x"
        assert _how_to_continue(several, last) == f"continue with: {whole} {option}"
        assert _how_to_continue("maskless edit --prompt x \\\n  -- -a.png", last) == (
            f"continue with: maskless edit --prompt x {option} -- -a.png"
        )
        assert _how_to_continue("maskless edit a.png -p 'x\x1b[1m'", last) == f"continue with {option}"

    @pytest.mark.slow
    @pytest.mark.parametrize("moment", ["middle", "between"])
    def test_a_killed_run_resumes_to_the_same_result(self, scene, tiny_models, tmp_path, moment):
        """Bytes agree between processes of the same number of threads, so all three are `started`."""
        process = started(*self.command(tiny_models), cwd=tmp_path)
        assert process.stderr is not None
        wanted = {"middle": "Search   5/12", "between": "Search   8/12"}[moment]
        for line in process.stderr:
            if line.startswith(wanted):
                break
        deadline = time.monotonic() + 120
        while not (tmp_path / LAST).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        if moment == "middle":
            process.send_signal(signal.SIGSTOP)  # else it may come to its end while it is asked after
            running = self.status(tmp_path)
            assert running["state"] == "running" and running["run"]["pid"] == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed = self.status(tmp_path)
        assert killed["state"] == "interrupted" and killed["started"] and killed["problems"] == []
        wanted_least = {"middle": 5, "between": 8}[moment]
        assert wanted_least <= killed["step"] < 12 == killed["total_steps"] and killed["results"] == []
        done = load_checkpoint(tmp_path / LAST).progress["iteration"]
        assert done < 12
        resumed = [
            *self.command(tiny_models, output="resumed"),
            "--load-checkpoint",
            LAST,
        ]
        for command in (resumed, self.command(tiny_models, output="whole", checkpoint="other")):
            process = started(*command, cwd=tmp_path)
            process.communicate(timeout=300)
            assert process.returncode == 0
        folders = [tmp_path / name / "0_a red square" for name in ("resumed", "whole")]
        records = [json.loads((folder / "result.json").read_text("utf-8")) for folder in folders]
        assert timeless(records[0]) == timeless(records[1])
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
        assert run.stderr.startswith(f"maskless: cannot write {LAST}: ") and run.stderr.count("\n") == 1
        left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
        assert sorted(left) == ["run.json", "scene.png"], "nothing half-written"


def test_untouched_pixels_of_the_final_picture_are_the_inputs(maskless, scene, tiny_models):
    _, out, _ = maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--json")
    record = json.loads(out)
    source = np.asarray(Image.open(scene))
    final = np.asarray(Image.open(Path(record["folder"]) / "results/final_output.png"))
    x0, y0, x1, y1 = record["candidates"][record["order"][0]]["box_xyxy"]
    outside = np.ones(source.shape[:2], bool)
    outside[y0:y1, x0:x1] = False
    assert np.array_equal(final[outside], source[outside])


class TestFoldersAndFormats:
    def test_another_seed_or_picture_overwrites_nothing(self, maskless, scene, tiny_models):
        base = ["edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--json"]
        folders = [json.loads(maskless(*base, *more)[1])["folder"] for more in ([], ["--seed", 1])]
        assert folders == ["output/0_a red square", "output/0_a red square (2)"]
        assert Path("checkpoints/0_a red square (2)/run.json").is_file()
        status, out, _ = maskless(*base, "--seed", 2, "--overwrite")
        assert status == 0 and json.loads(out)["folder"] == "output/0_a red square"

    def test_a_random_seed_is_recorded_and_repeats_the_edit(self, maskless, scene, tiny_models):
        base = ["edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--json"]
        first = json.loads(maskless(*base, "--seed", "random")[1])
        seed = first["request"]["seed"]
        assert seed == first["config"]["seed"] and seed != 42
        assert f"--seed {seed}" in Path(first["folder"], "report.html").read_text("utf-8")
        assert timeless(json.loads(maskless(*base, "--seed", seed)[1])) == timeless(first)

    def test_names_and_letters_that_an_encoding_lacks(self, scene, tiny_models):
        """The file's name is no UTF-8, and cp1252 has neither the emoji of the caption nor the printed arrow."""
        name = b"sc\xffne.png"
        try:
            os.rename(os.fsencode(scene), name)
        except OSError:
            pytest.skip("this file system takes names in UTF-8 only")
        texts = ["--caption", "ein Baum 🌳", "--prompt", "a blue house"]
        command = [sys.executable, "-m", "maskless", "edit", name, *texts, "--models", str(tiny_models), *QUICK]
        done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "cp1252"})
        assert done.returncode == 0 and b"Traceback" not in done.stderr and b"\\u2192" in done.stdout
        record = json.loads(next(Path("output").glob("*/result.json")).read_text("utf-8"))
        assert os.fsencode(record["request"]["image"]) == name and record["request"]["caption"] == "ein Baum 🌳"

    @pytest.mark.parametrize(
        "given,suffix,kind",
        [([], ".tif", "TIFF"), (["--format", "jpeg"], ".jpg", "JPEG"), (["--format", "png"], ".png", "PNG")],
    )
    def test_the_format_is_the_sources_own_or_another(self, maskless, scene, tiny_models, given, suffix, kind):
        Image.open(scene).save("scene.tif")
        status, out, _ = maskless("edit", "scene.tif", *TEXTS, "--models", tiny_models, *QUICK, "--json", *given)
        folder = Path(json.loads(out)["folder"])
        assert status == 0 and Image.open(folder / f"results/final_output{suffix}").format == kind
        assert all(candidate["file"].endswith(suffix) for candidate in json.loads(out)["candidates"])
        assert Image.open(folder / "input_image.png").format == "PNG"

    def test_a_format_that_cannot_hold_the_picture_is_refused_before_the_work(self, refused, scene):
        Image.open(scene).convert("RGBA").save("alpha.png")
        base = ["edit", "alpha.png", *TEXTS]
        assert "JPEG cannot store the source's alpha" in refused(*base, "--format", "jpeg")
        assert "PNG keeps every pixel and takes no quality" in refused(*base, "--quality", 80)
