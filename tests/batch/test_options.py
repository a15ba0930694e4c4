"""The options of a batch."""

import pytest

from maskless.batch.options import BatchOptions
from maskless.data.errors import MasklessError


def test_the_flags_are_checked():
    assert BatchOptions(engine="ray", workers=2).workers == 2
    for wrong in ({"engine": "slurm"}, {"workers": 2}, {"address": "auto"}, {"row_timeout": 0}, {"threads": 0}):
        with pytest.raises(MasklessError):
            BatchOptions(**wrong)
