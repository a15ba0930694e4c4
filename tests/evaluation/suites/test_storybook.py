"""The suite `storybook` on the bundled models: what it measures, that it resumes, and what its rows count."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.evaluation.measures import figures
from maskless.evaluation.methods import trials
from maskless.evaluation.suite import SuiteOptions
from maskless.evaluation.suites.storybook import rows_of, run

BOTH = ["maskless", "oracle_box"]
QUICK = SuiteOptions(split="validation", limit=2, steps=1, iterations=1, anchors=2, methods=BOTH)
FROM_A_CLOCK = ("seconds", "peak memory MB")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Rows and files of a run that was stopped after three of four measurements and started again."""
    folder = tmp_path_factory.mktemp("suite")
    files = {"ledger": folder / "storybook.jsonl", "page": folder / "storybook.jpg"}
    counted = []

    def stop(done: int, total: int) -> None:
        assert total == 4
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(replace(QUICK, **files, progress=stop))
    lines = files["ledger"].read_text("utf-8").splitlines()
    assert len(lines) == 3 and not files["page"].exists()
    files["ledger"].write_text("\n".join(lines) + '\n{"suite": "storybook", "meth', "utf-8")
    original = trials.attempt
    trials.attempt = lambda method, case: counted.append(method.__name__) or original(method, case)
    try:
        rows = run(replace(QUICK, **files))
        assert counted == ["oracle_box"], "what was measured before the kill is not measured again"
        again = run(replace(QUICK, **files))
        assert counted == ["oracle_box"] and again == rows
    finally:
        trials.attempt = original
    return rows, files


def _values(rows, method):
    return {row["metric"]: row["value"] for row in rows if row["method"] == method}


def test_a_run_that_was_stopped_has_the_figures_of_one_that_was_not(finished):
    rows, _ = finished
    whole = run(QUICK)
    for first, second in zip(rows, whole, strict=True):
        if first["metric"] not in FROM_A_CLOCK:
            assert first == pytest.approx(second)


def test_every_metric_is_a_row_with_an_interval(finished):
    rows, _ = finished
    for method in BOTH:
        values = _values(rows, method)
        measured = {figures.REGION_HIT, figures.STRUCTURE_DISTANCE, figures.PEAK_MEMORY, *FROM_A_CLOCK}
        assert list(values)[0] == "success" and measured < set(values)
        assert {"new object seen", "named object gone"} < set(values)
        known = [metric for metric in figures.FIGURES if metric in values]
        assert [metric for metric in values if metric in known] == known, "in the order of the table"
    assert all(row["low"] <= row["value"] <= row["high"] and 1 <= row["n"] <= 2 for row in rows)
    assert {(row["suite"], row["task"]) for row in rows} == {("storybook", "replace")}


def test_the_oracle_has_the_true_region_and_nothing_outside_it_changes(finished):
    rows, _ = finished
    oracle, ours = _values(rows, "oracle_box"), _values(rows, "maskless")
    assert oracle["region IoU"] == oracle["region hit"] == oracle["identical outside"] == 1
    assert (oracle["background PSNR dB"], oracle["background MSE"], oracle["inpaintings"]) == (100, 0, 1)
    assert ours["identical outside"] == 1 and ours["inpaintings"] > 1 and ours["region IoU"] < 1
    inpainted = 2 * ours["inpaintings"]  # one step, with and without the prompt
    assert ours["UNet forwards"] > inpainted, "the candidates are refined, too"


def test_the_page_and_the_ledger_hold_the_pictures(finished):
    _, files = finished
    with Image.open(files["page"]) as page:
        assert page.format == "JPEG" and page.width > 400
    kept = []
    for line in files["ledger"].read_text("utf-8").splitlines():
        try:
            kept.append(json.loads(line))
        except ValueError:
            continue
    assert len(kept) == 4 and all("picture" in line["figures"] for line in kept)


def test_other_options_are_measured_anew(finished, tmp_path):
    _, files = finished
    before = files["ledger"].read_text("utf-8").count("\n")
    run(replace(QUICK, limit=1, iterations=0, methods=["oracle_box"], ledger=files["ledger"]))
    assert files["ledger"].read_text("utf-8").count("\n") == before + 1


def test_methods_are_checked():
    for wrong in (["paint"], []):
        with pytest.raises(MasklessError, match="methods must be among maskless, learned"):
            run(SuiteOptions(methods=wrong))


def test_rows_count_what_was_refused_against_success_alone():
    good = {"success": True, "parts": {"seen": True}, figures.REGION_HIT: True, "region IoU": 0.5, "seconds": 1.0}
    bad = {"success": False, "parts": {"seen": False}, figures.REGION_HIT: False, "region IoU": None, "seconds": 1.0}
    refused = {"success": False, "parts": {}, "seconds": 4.0}
    rows = rows_of({"maskless": [good, good, bad], "release": [bad, refused, bad]})
    at = {(row["method"], row["metric"]): row for row in rows}
    assert (at["maskless", "success"]["value"], at["release", "success"]["n"]) == (pytest.approx(2 / 3), 3)
    assert (at["release", "seen"]["n"], at["release", "region hit"]["n"]) == (2, 2)
    assert at["maskless", "region IoU"]["n"] == 2 and ("release", "region IoU") not in at
    assert at["release", "seconds"]["value"] == pytest.approx(2)
    difference = at["release", "success minus that of maskless"]
    assert difference["value"] == pytest.approx(-2 / 3) and ("maskless", difference["metric"]) not in at
