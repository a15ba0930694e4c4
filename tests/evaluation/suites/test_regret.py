"""The suite `regret`: figures of planted tables by hand, and small tables of the bundled models, resumed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from maskless.data.errors import MasklessError
from maskless.engine.editor import Editor
from maskless.evaluation.measures.ledger import Ledger
from maskless.evaluation.methods import region_table
from maskless.evaluation.methods.policies import Replay, maskless, policies
from maskless.evaluation.methods.trials import case_of
from maskless.evaluation.requests.jobs import draw_jobs
from maskless.evaluation.suite import SuiteOptions, judge_folder
from maskless.evaluation.suites.regret import policy_rows, preview_rows, run, table_rows
from maskless.storybook.judge import Judge
from planted_tables import planted_table

QUICK = SuiteOptions(split="validation", limit=1, steps=2, anchors=1, iterations=1, seeds=2)
# Means over the noises: column 6 is the best (1.5), then 5 (2), then 4 (3).
FIRST = [9, 8, 7, 6, 3, 1, 2, 4, 9, 8, 7, 6, 0]
SECOND = [9, 8, 7, 6, 3, 3, 1, 4, 9, 8, 7, 6, 0]


def _picks(column):
    return lambda table, noise, rng: Replay(picked=column, inpaintings=2, forwards=7.0, seconds=0.5)


def _values(rows, method):
    return {row["metric"]: row["value"] for row in rows if row["method"] == method}


def test_regret_is_that_of_the_mean_over_the_noises():
    success = [[0.0] * 13, [0.0] * 13]
    success[0][4] = success[1][4] = success[1][5] = 1.0
    table = planted_table([FIRST, SECOND], success=success)
    rows = policy_rows([table], {"second": _picks(5), "centre": _picks(12)} | policies((), 12))
    second, spread = _values(rows, "second"), float(table.mean_losses[:12].std(correction=0))
    assert second["regret"] == pytest.approx(0.5) and second["regret in standard deviations"] == pytest.approx(
        0.5 / spread
    )
    assert (second["best"], second["among the best 3"]) == (0, 1)
    assert second["regret under the judge"] == pytest.approx(0.5) and second["success"] == pytest.approx(0.5)
    assert (second["inpaintings"], second["UNet forwards"], second["seconds"]) == (2, 7, 0.5)
    assert _values(rows, "centre")["regret"] == pytest.approx(-1.5), "the middle is none of the proposals"
    assert _values(rows, "exhaustive")["regret"] == 0 and _values(rows, "exhaustive")["best"] == 1
    one = _values(rows, "exhaustive of one noise")
    assert one["regret"] == pytest.approx(0.25), "luck with the first noise leads it to 5, the second to 6"
    assert one["best"] == 0.5


def test_a_row_is_the_mean_over_tables_with_its_interval():
    tables = [planted_table([FIRST, SECOND]), planted_table([FIRST, SECOND], seed=6)]
    rows = policy_rows(tables, {"random 1": policies((), 12)["random 1"]})
    assert all(row["n"] == 2 and row["low"] <= row["value"] <= row["high"] for row in rows)
    assert _values(rows, "random 1")["regret"] > 0


def test_previews_are_ranked_against_the_finished():
    late = [list(range(12)) + [99], list(range(12)) + [99]]
    early = [list(range(12)) + [-99], list(range(12))[::-1] + [0]]
    rows = preview_rows([planted_table(late, previews={2: early})])
    values = {row["method"]: row["value"] for row in rows}
    assert values == {"preview 2": pytest.approx(0), "another noise": pytest.approx(1)}


def test_the_table_says_what_the_judge_makes_of_it():
    success = [[float(column == 4) for column in range(13)]] * 2
    values = _values(table_rows([planted_table([FIRST, SECOND], success=success)]), "all regions")
    assert values["success of a random region"] == pytest.approx(1 / 12)
    assert values["success of the best by the judge"] == 1 and values["success of the best by the loss"] == 0
    shares = [value for name, value in values.items() if name.startswith("variance")]
    assert len(shares) == 3 and sum(shares) == pytest.approx(1)


def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch):
    measured = []
    original = region_table._Filler.measure

    def counted(self, noise, steps):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append((noise, steps))
        return original(self, noise, steps)

    ledger = tmp_path / "regret.jsonl"
    monkeypatch.setattr(region_table._Filler, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        run(replace(QUICK, ledger=ledger))
    assert measured == [(0, 2), (1, 2)]
    with ledger.open("a", encoding="utf-8") as half:
        half.write('{"suite": "regret", "method": "table of 1')
    measured.clear()
    rows = run(replace(QUICK, ledger=ledger, sheets=tmp_path / "sheets"))
    assert measured == [(0, 1), (1, 1)], "what was measured before the kill is not measured again"
    monkeypatch.setattr(region_table._Filler, "measure", lambda *_: pytest.fail("everything is in the ledger"))
    assert run(replace(QUICK, ledger=ledger)) == rows
    assert (tmp_path / "sheets" / "regret.png").read_bytes()[:4] == b"\x89PNG"
    lines = [json.loads(line) for line in ledger.read_text("utf-8").splitlines() if line.endswith("}")]
    assert {line["method"] for line in lines} == {"table of 2 steps", "table of 1 steps"}
    every = {row["method"] for row in rows if row["task"] == "search"}
    assert every == set(policies((1,), 6))
    forwards = _values(rows, "by caption")["UNet forwards"]
    assert forwards == 4, "two steps, with and without the prompt"
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)


def test_the_replay_of_ours_is_what_the_editor_does():
    """The same region, after as many inpaintings, as an edit of the same request and seed that refines nothing."""
    options = {
        "search": "learned",
        "steps": 1,
        "guidance_scale": 1.0,
        "anchors": 2,
        "iterations": 2,
        "updates": 20,
        "views": 1,
    }
    editor = Editor.from_pretrained("storybook", **options)
    editor = Editor(replace(editor.models, refinement=None), editor.config)
    judge = Judge.from_pretrained(judge_folder("storybook"))
    for job in draw_jobs("replace", "validation", 2):
        case = case_of(editor, job)
        ledger = Ledger(None, suite="regret", fingerprint="")
        table = region_table.fill_table(case, job, judge, ledger, noises=1, previews=())
        made = maskless(table, 0, np.random.default_rng(0))
        result = editor.edit(case.request)
        assert tuple(table.boxes_xyxy[made.picked].tolist()) == result.best.box_xyxy
        assert made.inpaintings == result.cost.inpaintings and made.forwards == result.cost.unet_forwards


def test_an_unknown_policy_is_named():
    with pytest.raises(MasklessError, match="the policies of regret must be among maskless, .*, got magic"):
        run(replace(QUICK, methods=["magic"]))
