"""What goes to stdout and what to stderr, in a log and on a terminal: progress, results, galleries, evaluations."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.data.result import DrawnStep
from maskless.interfaces.console import PLAIN_LINES, EditConsole, EvaluationConsole, GalleryConsole
from maskless.interfaces.gallery import Exhibit, FinishedExhibit
from maskless.records.names import counted
from maskless.records.outputs import save_edit

FAST = {"search": "learned", "iterations": 2, "updates": 2, "anchors": 2, "steps": 1, "views": 1}
TEXTS = {"caption": "a red square", "prompt": "a [blue] house"}


@pytest.fixture(scope="module")
def view(editor):
    return editor.look(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def start(editor, view):
    """A run of this task, not yet iterated."""

    def start(task="replace", state=None, **options):
        request = editor.request(view.source, task=task, **TEXTS)
        return editor.start(request, view=view, state=state, **FAST | options)

    return start


@pytest.fixture(scope="module")
def saved(start, tmp_path_factory):
    """The results of a search and of a fill, and where they were saved."""
    results = [start(task).result() for task in ("replace", "texture")]
    folder = tmp_path_factory.mktemp("out")
    return [(result, save_edit(result, folder, image_id=str(number))) for number, result in enumerate(results)]


@pytest.fixture
def terminal(monkeypatch):
    """As if stdout and stderr were a terminal of 150 columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")


def plain(text: str) -> str:
    """A terminal's output without its colours and cursor movements, with single spaces."""
    return " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).split())


class TestProgressOfAnEdit:
    def reported(self, run, capsys, note=None) -> str:
        """What a whole run prints to stderr; it prints nothing to stdout."""
        with EditConsole().progress(run, note) as progress:
            for step in run:
                progress.update(step)
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    def test_a_log_gets_a_line_for_each_step(self, start, capsys):
        first, *lines = self.reported(start(), capsys).splitlines()
        assert first == "Regions  2 anchors × 6 sizes = 12 boxes to choose from"
        assert len(lines) == 2
        for number, line in enumerate(lines, start=1):
            assert re.fullmatch(rf"Search   {number}/2  loss \d+\.\d{{4}}  \d+ s left", line)

    def test_a_fill_says_what_it_is_to_show(self, start, capsys):
        run = start("texture")
        err = self.reported(run, capsys)
        assert err.startswith(f"Region   drawn as “a [blue] house”, {run.total_steps} candidates\n")
        assert f"Drawing  {run.total_steps}/{run.total_steps}" in err and "Search" not in err

    def test_a_fill_without_a_prompt_says_what_it_continues(self, editor, view, capsys):
        run = editor.start(editor.request(view.source, task="extend", extend="left=8"), **FAST)
        err = self.reported(run, capsys)
        assert err.startswith("Region   filled with a continuation of its surroundings, 4 candidates\n")

    def test_numbers_have_their_noun(self):
        assert [counted(count, "iteration") for count in (0, 1, 2)] == ["0 iterations", "1 iteration", "2 iterations"]

    def test_many_steps_are_few_lines_in_a_log(self, start, capsys):
        run = start()
        console = EditConsole()
        with console.progress(run, None) as progress:
            progress.update(next(iter(run)))
            for number in range(1, 1001):
                progress.update(DrawnStep(step=number, total_steps=1000, inpaintings=1, seconds=0.1, loss=1.5))
        lines = capsys.readouterr().err.splitlines()[1:]
        assert len(lines) == PLAIN_LINES and lines[-1].startswith("Search   1000/1000  loss 1.5000")

    def test_the_time_left_is_that_of_the_steps_to_come(self, start, capsys):
        run = start()
        with EditConsole().progress(run, None) as progress:
            progress.update(next(iter(run)))
            time.sleep(0.2)
            progress.update(DrawnStep(step=1, total_steps=51, inpaintings=1, seconds=0.2, loss=1.5))
            progress.update(DrawnStep(step=2, total_steps=51, inpaintings=1, seconds=0.2, loss=1.5))
        left = int(re.search(r"(\d+) s left", capsys.readouterr().err)[1])
        assert 4 <= left <= 20, "a step every 0.1 seconds or a little more, and 49 to come"

    def test_a_run_that_continues_says_from_where_and_reports_its_own_steps(self, start, capsys):
        run = start()
        steps = iter(run)
        next(steps), next(steps)
        err = self.reported(start(state=run.state()), capsys, note="a [x]/last.pth: after iteration 1")
        resumed, regions, last = err.splitlines()
        assert resumed == "Resumed  a [x]/last.pth: after iteration 1"
        assert regions == "Regions  2 anchors × 6 sizes = 12 boxes to choose from"
        assert last.startswith("Search   2/2  loss ") and last.endswith("  0 s left")

    def test_the_time_left_of_a_run_that_continues_is_judged_by_its_own_steps(self, start, capsys):
        run = start()
        steps = iter(run)
        next(steps), next(steps)
        later = start(state=run.state())
        with EditConsole().progress(later, None) as progress:
            for step in later:
                progress.update(replace(step, seconds=2.0, total_steps=10))
        assert 16 <= int(re.search(r"2/10 .* (\d+) s left", capsys.readouterr().err)[1]) <= 20

    def test_a_finished_run_that_is_continued_has_no_steps_to_report(self, start, capsys, terminal):
        run = start()
        run.result()
        assert "Search" not in plain(self.reported(start(state=run.state()), capsys))

    def test_a_terminal_gets_a_bar(self, start, capsys, terminal):
        shown = plain(self.reported(start(), capsys))
        assert "12 boxes to choose from" in shown and "Search " in shown
        assert re.search(r"2/2 100 % loss \d\.\d{4}", shown)

    def test_quiet_says_nothing_also_on_a_terminal(self, start, capsys, terminal):
        console, run = EditConsole(quiet=True), start()
        with console.waiting("Loading"), console.progress(run, "a note") as progress:
            for step in run:
                progress.update(step)
        console.models_loaded(run.models, 1.0)
        assert capsys.readouterr() == ("", "")

    def test_the_terminal_is_left_in_order_after_an_interruption(self, start, capsys, terminal):
        run = start()
        with pytest.raises(KeyboardInterrupt), EditConsole().progress(run, None) as progress:
            progress.update(next(iter(run)))
            raise KeyboardInterrupt
        err = capsys.readouterr().err
        assert err.count("\x1b[?25l") == err.count("\x1b[?25h") > 0, "the cursor is visible again"


class TestResultOfAnEdit:
    def test_a_search_says_what_it_found_and_learned(self, saved, capsys):
        result, files = saved[0]
        EditConsole().finished(result, files)
        captured = capsys.readouterr()
        rows = dict(line.split(maxsplit=1) for line in captured.out.splitlines())
        x0, y0, x1, y1 = result.best.box_xyxy
        assert f"the {x1 - x0} × {y1 - y0} box at ({x0}, {y0}), around anchor " in rows["Found"]
        assert f"the best of 2: score {float(result.scores.max()):.3f}" in rows["Found"]
        before, after = result.anchor_net.expected_loss_before, result.anchor_net.expected_loss_after
        assert rows["Learned"] == f"expected loss with location cost {before:.4f} → {after:.4f} over 2 iterations"
        assert rows["Cost"].startswith(f"{result.cost.inpaintings} inpaintings, {result.cost.unet_forwards} UNet")
        assert [rows[name] for name in ("Best", "Overview", "Report")] == [
            str(path) for path in (files.final, files.overview, files.report)
        ]
        assert all(Path(rows[name]).exists() for name in ("Best", "All", "Overview", "Report"))
        assert captured.err == ""

    def test_a_fill_learned_nothing_and_has_no_anchor(self, saved, capsys):
        EditConsole().finished(*saved[1])
        out = capsys.readouterr().out
        assert "Learned" not in out and "anchor" not in out and "is the best of 3" in out

    def test_json_is_the_whole_record_in_one_line(self, saved, capsys):
        result, files = saved[0]
        EditConsole(json_only=True).finished(result, files)
        captured = capsys.readouterr()
        assert captured.out.count("\n") == 1 and captured.err == ""
        assert json.loads(captured.out) == json.loads(json.dumps(files.record)) | {"folder": str(files.folder)}

    def test_quiet_says_nothing(self, saved, capsys):
        EditConsole(quiet=True).finished(*saved[0])
        assert capsys.readouterr() == ("", "")


class TestModelsOfAnEdit:
    def test_says_what_was_loaded_and_how_it_is_arranged(self, editor, capsys):
        console = EditConsole()
        console.models_loaded(editor.models, 1.26)
        console.models_loaded(replace(editor.models, options=ModelOptions(memory="low"), placement="in slices"), 0.0)
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "Models   64 × 64 pixels, on cpu, float32, in 1.3 s"
        assert lines[-1] == "Memory   low: in slices"

    def test_models_that_are_there_are_not_fetched(self, tiny_models, capsys):
        EditConsole().fetching(ModelOptions(models=str(tiny_models), offline=True))
        assert capsys.readouterr() == ("", "")

    def test_waiting_is_seen_on_a_terminal_only(self, capsys, monkeypatch):
        with EditConsole().waiting("Loading the models"):
            pass
        assert capsys.readouterr() == ("", "")
        monkeypatch.setenv("FORCE_COLOR", "1")
        with EditConsole().waiting("Loading the models"):
            time.sleep(0.15)
        assert "Loading the models" in capsys.readouterr().err


class TestGallery:
    EXHIBITS = (
        Exhibit(file="a.png", task="remove", image="a.png", caption="a cat"),
        Exhibit(file="b.png", task="generate", image="a.png", prompt="a dog"),
    )
    FACTS = {"asked": "0123", "mask": None, "prompt": "empty snow", "score": 0.5, "seconds": 1.26, "candidates": 4}

    def made(self, folder: Path) -> list[FinishedExhibit]:
        first, second = self.EXHIBITS
        return [
            FinishedExhibit(exhibit=first, path=folder / "a.png", facts=self.FACTS),
            FinishedExhibit(exhibit=second, path=folder / "b.png", facts=self.FACTS, kept=True),
        ]

    def test_a_line_for_each_picture_and_then_where_the_page_is(self, capsys, tmp_path):
        GalleryConsole().show(iter(self.made(tmp_path)), ["Remove", "Generate"], tmp_path)
        captured = capsys.readouterr()
        lines = [" ".join(line.split()) for line in captured.err.splitlines()]
        assert lines == ["1/2 a.png 1.3 s", "2/2 b.png made before"]
        assert captured.out == f"Page     {tmp_path / 'index.html'}\n"

    def test_json_lists_what_was_made_and_nothing_private(self, capsys, tmp_path):
        GalleryConsole(json_only=True).show(iter(self.made(tmp_path)), ["Remove", "Generate"], tmp_path)
        first, second = json.loads(capsys.readouterr().out)
        assert first == {
            "file": str(tmp_path / "a.png"), "task": "remove", "caption": "a cat", "prompt": "", "score": 0.5,
            "seconds": 1.26, "candidates": 4, "problem": None,
        }  # fmt: skip
        assert second["prompt"] == "a dog"

    def test_says_at_the_end_what_was_not_possible(self, capsys, tmp_path):
        exhibit = Exhibit(file="a.png", task="remove", image="a.png")
        failed = FinishedExhibit(exhibit=exhibit, path=tmp_path / "a.png", facts={}, problem="found no [cat]")
        with pytest.raises(MasklessError, match="1 of 1 edits were not possible: remove"):
            GalleryConsole().show(iter([failed]), ["Remove"], tmp_path)
        captured = capsys.readouterr()
        assert "found no [cat]" in captured.err and "index.html" in captured.out


class TestEvaluation:
    def test_a_log_gets_some_lines_of_many_requests(self, capsys):
        with EvaluationConsole().measuring("storybook") as progress:
            for done in range(1001):
                progress(done, 1000)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == PLAIN_LINES and lines[-1] == "storybook  1000/1000 measured"

    def test_an_evaluation_that_has_nothing_to_do(self, capsys):
        with EvaluationConsole().measuring("storybook") as progress:
            progress(0, 0)
        assert capsys.readouterr().err == "storybook  0/0 measured\n"

    def test_a_terminal_gets_a_bar(self, capsys, terminal):
        with EvaluationConsole().measuring("pie-[x]") as progress:
            progress(3, 4)
        assert re.search(r"pie-\[x\] .*3/4", plain(capsys.readouterr().err))

    def test_rows_go_to_stdout_and_files_to_stderr(self, capsys):
        console = EvaluationConsole(json_only=True)
        console.note("Left out: LPIPS [x]")
        console.measured([{"metric": "psnr", "value": 30.5}], [Path("out/[a].csv"), Path("out/b.md")])
        captured = capsys.readouterr()
        assert json.loads(captured.out) == [{"metric": "psnr", "value": 30.5}]
        assert captured.err.splitlines() == ["Left out: LPIPS [x]", "Written  out/[a].csv", "Written  out/b.md"]


NASTY = "[/] [bold]a\x1b[2J\x9b31m\u202e [link=x]"


def test_texts_and_paths_never_break_the_output_nor_reach_the_terminal(start, editor, view, tmp_path, capsys, terminal):
    """Markup and control sequences in the prompt, the folder and the notes, in every line of an edit and a gallery."""
    run = editor.start(
        editor.request(view.source, task="texture", caption="a red square", prompt=NASTY), view=view, **FAST
    )
    console = EditConsole()
    with console.progress(run, NASTY) as progress:
        for step in run:
            progress.update(step)
    console.finished(run.result(), save_edit(run.result(), tmp_path / "out [b]"))
    gallery = [FinishedExhibit(exhibit=Exhibit(file="a.png", task="style", image="a.png", prompt=NASTY),
                               path=Path("a.png"), facts={}, problem=NASTY)]  # fmt: skip
    with pytest.raises(MasklessError, match="1 of 1 edits"):
        GalleryConsole().show(iter(gallery), [NASTY], tmp_path)
    EvaluationConsole().note(NASTY)
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert "\x1b[2J" not in shown and "\x9b" not in shown and "\u202e" not in shown
    assert "[bold]a" in plain(shown) and "[link=x]" in plain(shown)
