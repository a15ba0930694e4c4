"""The exhaustive table of a request: its columns, its entries in the ledger, and what cannot be a table."""

from dataclasses import replace

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.evaluation.measures.ledger import Ledger
from maskless.evaluation.methods import region_table
from maskless.evaluation.methods.cases import centre_region
from maskless.evaluation.methods.region_table import fill_table
from maskless.evaluation.methods.trials import case_of
from maskless.evaluation.requests.jobs import draw_jobs
from maskless.evaluation.suite import judge_folder
from maskless.storybook.judge import Judge
from planted_tables import K, M, planted_table

LOSSES = [9, 8, 7, 6, 3, 2, 1, 4, 9.5, 8.5, 7.5, 6.5, 0.5]


@pytest.fixture(scope="module")
def filled(editor, tmp_path_factory):
    """A table of one anchor and three sizes, two noises and one preview, and how to fill it again from its ledger."""
    quick = replace(editor.config, steps=2, guidance_scale=1.0, anchors=1, window_step=4, fit_edges=False)
    job, judge = draw_jobs("replace", "validation", 1)[0], Judge.from_pretrained(judge_folder("storybook"))
    case = case_of(type(editor)(editor.models, quick), job)
    file = tmp_path_factory.mktemp("table") / "x.jsonl"

    def fill():
        ledger = Ledger(file, suite="regret", fingerprint="f")
        return case, fill_table(case, job, judge, ledger, noises=2, previews=(1, 2, 9))

    return fill


def test_columns_are_the_proposals_and_last_the_middle(filled):
    case, table = filled()
    assert table.proposals == table.centre <= 3 and table.column_of.shape == (1, 3)
    assert table.boxes_xyxy[-1:].tolist() == centre_region(case.request.size_yx).boxes_xyxy.tolist()
    assert table.losses.shape == table.success.shape == table.score.shape == (2, table.proposals + 1)
    assert set(table.previews) == {1}, "a preview has fewer steps than a finished edit"
    assert table.forwards == {2: 2.0, 1: 1.0} and bool((table.success <= (table.score == 1)).all())
    assert torch.equal(table.mean_losses, table.losses.mean(dim=0))


def test_a_table_is_read_again_from_its_ledger(filled, monkeypatch):
    _, first = filled()
    monkeypatch.setattr(region_table._Filler, "measure", lambda *_: pytest.fail("everything is in the ledger"))
    _, second = filled()
    assert torch.equal(first.losses, second.losses) and torch.equal(first.previews[1], second.previews[1])
    assert all(torch.equal(first.scores[name], second.scores[name]) for name in first.scores)


def test_a_ranking_sees_the_columns_that_it_asks_for():
    names = ("text_to_image", "image_to_image", "location", "gone")
    values = {name: torch.arange(26.0).reshape(2, 13) + 100 * number for number, name in enumerate(names)}
    scores = planted_table([LOSSES, LOSSES], scores=values).scores_of(1, [4, 0])
    assert scores.text_to_image.tolist() == [17, 13] and scores.location.tolist() == [217, 213]


def test_a_table_whose_columns_are_not_all_named_is_refused():
    with pytest.raises(MasklessError, match="column_of must name the columns 0 to 11"):
        planted_table([LOSSES, LOSSES], column_of=torch.zeros(K, M, dtype=torch.long))
    with pytest.raises(MasklessError, match="forwards must be known of 8 steps"):
        planted_table([LOSSES, LOSSES], forwards={1: 2.0})
