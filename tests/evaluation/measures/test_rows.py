"""Shares and means with their intervals, against values worked out by hand, and which of them a figure becomes."""

from __future__ import annotations

import math

import pytest

from maskless.evaluation.measures.rows import difference_row, mean_row, row_of, rows_of_figures, share_row


def test_wilson_interval_by_hand() -> None:
    row = share_row([True] * 9 + [False], suite="models", metric="x")
    # (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = 0.9, n = 10, z = 1.96
    assert row["value"] == 0.9 and row["n"] == 10 and row["suite"] == "models"
    assert (row["low"], row["high"]) == pytest.approx((0.5958, 0.9821), abs=1e-4)


def test_wilson_stays_inside_for_all_and_none() -> None:
    every, none = share_row([True] * 20, metric="x"), share_row([False] * 20, metric="x")
    assert every["high"] == pytest.approx(1.0) and 0 < every["low"] < 1
    assert none["low"] == pytest.approx(0.0)
    for n in range(1, 101):
        assert share_row([False] * n, metric="x")["low"] == 0 and share_row([True] * n, metric="x")["high"] == 1


def test_mean_interval_by_hand() -> None:
    row = mean_row([1.0, 2.0, 3.0, 4.0], metric="dB")
    # The standard deviation of 1..4 is 1.29099; half = 1.96 * 1.29099 / 2
    assert (row["value"], row["low"], row["high"]) == pytest.approx((2.5, 1.2348, 3.7652), abs=1e-4)


def test_nothing_measured_is_an_error() -> None:
    for make in (share_row, mean_row):
        with pytest.raises(ValueError, match="nothing was measured for dB"):
            make([], metric="dB")


def test_keys_come_in_the_order_of_the_columns() -> None:
    names = {"suite": "models", "method": "storybook", "task": "clip", "gate": None}
    assert list(share_row([True], metric="x", **names)) == [
        "suite", "method", "task", "metric", "gate", "value", "low", "high", "n",
    ]  # fmt: skip
    assert "gate" not in mean_row([1.0], metric="x", suite="regret")


def test_truth_values_give_a_share_and_numbers_a_mean() -> None:
    assert row_of([True, False], metric="x") == share_row([True, False], metric="x")
    assert row_of([1.0, 0.0], metric="x") == mean_row([1.0, 0.0], metric="x")
    assert row_of([1, 0], metric="x") == mean_row([1.0, 0.0], metric="x"), "counts are numbers"


def test_differences_are_taken_request_by_request() -> None:
    row = difference_row([True, False, False], [True, True, True], "maskless", metric="success", suite="storybook")
    assert row["metric"] == "success minus that of maskless" and row["suite"] == "storybook"
    assert row["value"] == pytest.approx(-2 / 3) and row["low"] < row["value"] < row["high"] and row["n"] == 3
    with pytest.raises(ValueError):
        difference_row([True], [True, False], "maskless", metric="success")


def test_what_was_not_measured_does_not_count() -> None:
    found = [{"success": True, "psnr": 20.0}, {"success": False, "psnr": None}, {"success": True, "psnr": math.inf}, {}]
    rows = rows_of_figures(found, ["psnr", "success", "unknown"], suite="storybook")
    assert [(row["metric"], row["n"], row["value"]) for row in rows] == [
        ("psnr", 1, 20.0),
        ("success", 3, pytest.approx(2 / 3)),
    ]
