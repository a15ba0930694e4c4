"""The shorter commands from outside: what they print, what they write, and what they refuse."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from quick_edit import LAST, QUICK, TEXTS


class TestInspect:
    def test_prints_parts_config_and_progress(self, maskless, scene, tiny_models):
        maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK)
        status, out, _ = maskless("inspect", LAST)
        assert status == 0
        for words in (
            "anchor_net",
            "trained",
            "1,678",
            "projection",
            "dino",
            "frozen",
            "layers.0.weight",
            "iteration 2",
        ):
            assert words in out
        status, out, _ = maskless("inspect", LAST, "--json")
        record = json.loads(out)
        assert record["parts"]["anchor_net"]["state"] == "trained"
        assert record["parts"]["anchor_net"]["parameters"] == 1678
        assert record["parts"]["dino"]["state"] == "frozen" and record["parts"]["dino"]["keys"]
        assert record["progress"]["iteration"] == 2 and record["config"]["anchors"] == 2


class TestStatus:
    """It exits with 0 whatever it finds; processes that are really killed are in test_cli.py."""

    def status(self, maskless, *arguments: str) -> dict:
        status, out, err = maskless("status", "--json", *arguments)
        assert (status, err) == (0, "")
        return json.loads(out)

    def test_of_nothing(self, maskless, scene):
        assert self.status(maskless)["state"] == "not started"
        status, out, _ = maskless("status")
        assert status == 0 and "not started" in out and "none in output" in out and "none in checkpoints" in out

    def test_of_a_complete_run_elsewhere(self, maskless, scene, tiny_models):
        where = ["--output-dir", "o", "--checkpoint-dir", "c"]
        maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--quiet", *where)
        found = self.status(maskless, *where)
        assert (found["started"], found["state"]) == (True, "complete")
        assert (found["step"], found["total_steps"], found["percent"]) == (2, 2, 100.0)
        assert found["models"]["dino"] == str(tiny_models / "dino") and found["problems"] == []
        assert [entry["file"] for entry in found["checkpoints"]] == ["0_a red square/last.pth"]
        assert found["checkpoints"][0]["parts"]["anchor_net"] == 1678
        assert [entry["folder"] for entry in found["results"]] == ["0_a red square"]
        status, out, _ = maskless("status", *where)
        for words in ("complete, 2/2 steps (100 %)", "1 in c", "last.pth", "anchor_net 1,678",
                      "0_a red square", "a blue house", "scene.png: a red square → a blue house"):  # fmt: skip
            assert words in out
        assert self.status(maskless)["state"] == "not started"  # the folders of the default

    def test_of_damage(self, maskless, scene, tiny_models):
        maskless("edit", scene, *TEXTS, "--models", tiny_models, *QUICK, "--quiet")
        last, record = Path(LAST), Path("output/0_a red square/result.json")
        last.write_bytes(last.read_bytes()[:-1000])
        record.write_text(record.read_text("utf-8")[:-100] + "\x1b[31m[bold]", "utf-8")
        found = self.status(maskless)
        assert found["state"] == "complete" and len(found["problems"]) == 2
        last.with_name("run.json").write_bytes(b"\xff")
        found = self.status(maskless)
        assert found["state"] == "unknown" and found["started"] and len(found["problems"]) == 3
        status, out, err = maskless("status")
        assert (status, err) == (0, "") and out.count("Problem") == 3 and "\x1b" not in out


class TestModels:
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
        assert (status, err) == (0, "") and len(presets) == 14
        assert presets["storybook"]["on_disk"] and not presets["sd15"]["on_disk"]
        assert presets["sd2"]["inpainting"][0] == "sd2-community/stable-diffusion-2-inpainting"
        assert presets["sd3"]["gated"] and presets["kontext"]["kind"] == "instruction"


class TestGallery:
    def test_makes_eleven_pictures_and_a_page(self, maskless, scene, tiny_models):
        command = ["gallery", "--image", scene, "--caption", "a red square", "--models", tiny_models, *QUICK]
        status, out, err = maskless(*command)
        assert status == 0 and "output/editing_results/index.html" in out
        assert len(list(Path("output/editing_results").iterdir())) == 12
        assert "11/11  generated_image.png" in err
        status, out, _ = maskless(*command, "--json")
        made = json.loads(out)
        assert status == 0 and len(made) == 11
        assert made[3]["file"].endswith("04_replace_object.png") and made[3]["prompt"] == "a blue house"
        assert {"box_xyxy", "losses", "score", "seconds"} <= set(made[3])

    def test_needs_a_caption_for_a_picture(self, maskless, scene):
        status, out, err = maskless("gallery", "--image", scene)
        assert (status, out) == (2, "") and "--caption" in err and not Path("output").exists()


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
            "storybook",
            *(f"storybook.{suffix}" for suffix in ("csv", "jpg", "json", "jsonl", "md", "png")),
        ]
        assert (folder / "storybook" / "success-against-cost.png").is_file()
        assert json.loads((folder / "storybook.json").read_text("utf-8")) == rows
        assert "maskless evaluate storybook --limit 1 --steps 1 --methods oracle_box" in (
            folder / "storybook.md"
        ).read_text("utf-8")
        monkeypatch.setattr("maskless.evaluation.methods.trials.attempt", pytest.fail)
        again = maskless(*self.COMMAND)
        assert (again[0], json.loads(again[1])) == (0, rows)

    def test_held_out_scenes_unless_another_split_is_chosen(self, maskless, scene, monkeypatch):
        given = []

        def run(options):
            given.append(options)
            return []

        monkeypatch.setattr("maskless.evaluation.suites.storybook.run", run)
        assert maskless("evaluate", "storybook", "--methods", " maskless, release,")[0] == 0
        first = given[-1]
        assert (first.split, first.limit, first.seed_offset, first.steps) == ("held-out", None, 0, None)
        assert first.methods == ["maskless", "release"] and first.ledger == Path("output/evaluation/storybook.jsonl")
        assert maskless("evaluate", "storybook", "--split", "validation", "--limit", "3", "--seed-offset", "9")[0] == 0
        assert (given[-1].split, given[-1].limit, given[-1].seed_offset) == ("validation", 3, 9)

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
            "outside shift px": 0, "outside zoom %": 0, "outside residual": 0, "outside aligned": 1,
        }  # fmt: skip
        assert "maskless evaluate pie-bench bench --results ." in Path("output/evaluation/pie_bench.md").read_text()

    def test_a_hyphen_stands_for_an_underscore(self, maskless, scene, monkeypatch):
        monkeypatch.setattr("maskless.evaluation.suites.search_study.run", lambda options: [])
        assert maskless("evaluate", "search-study", "--json")[:2] == (0, "[]\n")


class TestErrors:
    def test_unknown_commands_and_suites(self, refused):
        assert "nonsense" in refused("nonsense")
        assert "suite must be one of" in refused("evaluate", "nonsense")
        assert "the suite models takes no --iterations" in refused("evaluate", "models", "--iterations", "3")
        assert "maskless: limit must be at least 1, got '0'\n" == refused("evaluate", "storybook", "--limit", "0")
        assert "maskless: limit must be a whole number, got 'x'\n" == refused("evaluate", "storybook", "--limit", "x")
        assert "the suite models takes no folder" in refused("evaluate", "models", ".")
        assert "pie-bench needs the folder of a benchmark" in refused("evaluate", "pie-bench")
        assert "the suite pie-bench takes no --split" in refused("evaluate", "pie-bench", ".", "--split", "train")
        assert "must hold mapping_file.json" in refused("evaluate", "pie-bench", ".")
        assert "methods must be among maskless" in refused("evaluate", "storybook", "--methods", "paint")
        assert "is a file, not a folder" in refused("evaluate", "models", "--output-dir", "scene.png")
        assert "no such checkpoint" in refused("inspect", "none.pth")
