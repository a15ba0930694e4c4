"""The ablations: a replay on the table of regions is what the engine does, and no region is inpainted twice."""

from dataclasses import replace

import pytest

from maskless.data.choices import AS_IN_THE_PAPER
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.evaluation.measures import figures
from maskless.evaluation.methods.trials import case_of
from maskless.evaluation.requests.jobs import draw_jobs
from maskless.evaluation.suite import SuiteOptions, judge_folder
from maskless.evaluation.suites.ablations import LOSSES, LentRegions, Variant, rows_of, run, variants
from maskless.storybook.judge import Judge

ONE_REQUEST = {
    figures.SUCCESS: True,
    figures.REGION_HIT: True,
    **dict.fromkeys([figures.REGION_IOU, figures.REGION_SIZE, *LOSSES, figures.INPAINTINGS], 0.5),
}
"""Figures of one request, as a replay gives them."""
QUICK = {"search": "learned", "steps": 1, "iterations": 2, "anchors": 3, "updates": 100}
CHANGED = (
    {},
    {"beta": 0.0},
    {"location_weight": 0.0},
    {"anchors": 2},
    {"window_step": 5},
    {"iterations": 0},
    {"anchor_source": "attention", "ranking": "paper"},
    {"estimator": "straight-through", "updates": 20},
)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.from_pretrained(judge_folder("storybook"))


@pytest.fixture(scope="module")
def among() -> list[Variant]:
    return [Variant(group="g", label=str(options), options=options) for options in CHANGED]


@pytest.fixture(scope="module")
def table(editor, judge) -> LentRegions:
    """The table of one request, three anchors, on small random models."""
    quick = type(editor)(editor.models, replace(editor.config, **QUICK))
    job = draw_jobs("replace", "validation", 1)[0]
    return LentRegions(case_of(quick, job), job, judge)


@pytest.mark.parametrize("number", range(len(CHANGED)))
def test_a_replay_picks_what_the_engine_picks(editor, table, among, number):
    found = table.replay(among[number])
    result = editor.edit(table.case.request, **QUICK | CHANGED[number])
    x0, y0, x1, y1 = result.best.box_xyxy
    assert found[figures.REGION_SIZE] == pytest.approx((x1 - x0) * (y1 - y0) / 128**2)
    assert found[figures.INPAINTINGS] == result.cost.inpaintings
    best = result.order[0]
    losses = result.losses.of(best)
    assert found[figures.CLIP_LOSS] == pytest.approx(losses["clip"], abs=1e-4)
    assert found[figures.STRUCTURE_LOSS] == pytest.approx(losses["structure"], abs=1e-4)


def test_no_region_is_inpainted_twice(table, among):
    first = [table.replay(variant) for variant in among]
    known, forwards = len(table.known), table.case.models.inpainter.unet_forwards
    assert [table.replay(variant) for variant in among] == first
    assert (len(table.known), table.case.models.inpainter.unet_forwards) == (known, forwards)


def test_random_sizes_cost_one_inpainting_for_each_anchor(table):
    found = table.replay(Variant(group="g", label="random", anchors_at_random=True, sizes_at_random=True))
    assert found[figures.INPAINTINGS] == 3 and 0 <= found[figures.REGION_IOU] <= 1


def test_the_default_is_measured_once_whatever_it_is_called():
    every = variants(EditConfig(search="learned").resolved())
    groups = {variant.group: [v for v in every if v.group == variant.group] for variant in every}
    default = groups["regions"][0].name
    for group, members in groups.items():
        if not group.endswith("as in the paper"):
            assert members[0].name == default, f"the default comes first in {group}"
        assert len({variant.name for variant in members}) == len({v.label for v in members}) == len(members)
    assert len({variant.name for variant in every}) < len(every)
    paper = [v.options | {"beta": 1.0} for v in groups["losses as in the paper"] if v.label == "without L_dir"]
    assert paper == [AS_IN_THE_PAPER | {"beta": 1.0}]
    assert groups["losses as in the paper"][0].name == groups["regions as in the paper"][0].name != default
    assert [v.label for v in groups["anchors K"]] == ["9", "1", "3", "16"]
    for variant in groups["sizes M"]:
        assert len(replace(EditConfig(), **variant.options).sizes) == int(variant.label)
    assert any(v.name == default for v in variants(EditConfig(search="learned", steps=3).resolved()))


def test_the_suite_resumes(tmp_path, monkeypatch):
    ledger = tmp_path / "x.jsonl"
    options = SuiteOptions(split="validation", limit=1, steps=1, methods=["ranking"], ledger=ledger)
    rows = run(options)
    assert {row["task"] for row in rows} == {"ranking"} and {row["suite"] for row in rows} == {"ablations"}
    assert all(row["low"] <= row["value"] <= row["high"] and row["n"] == 1 for row in rows)
    monkeypatch.setattr(LentRegions, "replay", pytest.fail)
    assert run(options) == rows
    with pytest.raises(MasklessError, match="the groups of ablations must be among regions, .*, got paint"):
        run(replace(options, methods=["paint"]))


def test_slow_variants_are_measured_on_a_tenth(monkeypatch):
    replayed = []
    monkeypatch.setattr(LentRegions, "replay", lambda self, variant: replayed.append(variant.label) or ONE_REQUEST)
    rows = run(SuiteOptions(split="validation", limit=11, steps=1, methods=["estimator", "losses"]))
    assert (replayed.count("straight-through"), replayed.count("without L_dir")) == (1, 11)
    assert {row["n"] for row in rows if row["task"] == "estimator"} == {1}


def test_rows_compare_with_the_first_of_the_group_request_by_request():
    worse = ONE_REQUEST | {figures.SUCCESS: False, figures.REGION_IOU: 0.25}
    rows = rows_of({("g", "default"): [ONE_REQUEST, ONE_REQUEST], ("g", "other"): [ONE_REQUEST, worse]})
    at = {(row["method"], row["metric"]): row["value"] for row in rows}
    assert at["other", "success minus that of default"] == -0.5 and at["other", "success"] == 0.5
    assert at["other", "region IoU minus that of default"] == pytest.approx(-0.125)
    assert ("default", "success minus that of default") not in at
