"""Errors and files as clients get them."""

import pytest

from maskless.data.errors import MasklessError
from maskless.interfaces.jobs.uploads import NotAPicture, TooLarge
from maskless.interfaces.jobs.worker import Busy
from maskless.interfaces.web.answers import NotFound, error_answer, finished_outcome, found_job


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MasklessError("x"), 400),
        (TooLarge("x"), 413),
        (NotAPicture("x"), 415),
        (NotFound("x"), 404),
        (Busy("x", 7), 429),
    ],
)
def test_each_error_has_its_status(error, status):
    answer = error_answer(error)
    assert answer.status_code == status and b'"message":"x"' in answer.body
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)


def test_what_is_not_there_is_said(jobs):
    with pytest.raises(NotFound, match="no such edit"):
        found_job(jobs, "x")
    with pytest.raises(NotFound, match="no such edit"):
        finished_outcome(jobs, "../..")
