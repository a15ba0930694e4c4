"""Shares and means with their intervals, against values worked out by hand."""

from __future__ import annotations

import pytest

from maskless.evaluation.measures.rows import mean_row, share_row


def test_wilson_interval_by_hand() -> None:
    row = share_row([True] * 9 + [False], suite="models", metric="x")
    # (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = 0.9, n = 10, z = 1.96
    assert row["value"] == 0.9 and row["n"] == 10 and row["suite"] == "models"
    assert (row["low"], row["high"]) == pytest.approx((0.5958, 0.9821), abs=1e-4)


def test_wilson_stays_inside_for_all_and_none() -> None:
    assert share_row([True] * 20)["high"] == pytest.approx(1.0)
    assert 0 < share_row([True] * 20)["low"] < 1
    assert share_row([False] * 20)["low"] == pytest.approx(0.0)
    assert all(share_row([False] * n)["low"] == 0 and share_row([True] * n)["high"] == 1 for n in range(1, 101))


def test_mean_interval_by_hand() -> None:
    row = mean_row([1.0, 2.0, 3.0, 4.0], metric="dB")
    # The standard deviation of 1..4 is 1.29099; half = 1.96 * 1.29099 / 2
    assert (row["value"], row["low"], row["high"]) == pytest.approx((2.5, 1.2348, 3.7652), abs=1e-4)


def test_nothing_measured_is_an_error() -> None:
    for make in (share_row, mean_row):
        with pytest.raises(ValueError, match="nothing was measured for dB"):
            make([], metric="dB")
