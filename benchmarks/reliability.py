"""Campaigns against the promises of docs/reliability.md: each tries many bad inputs or failures and counts what held.

    python benchmarks/reliability.py pictures --count 1000
    python benchmarks/reliability.py allocations --count 40

Each prints one line of figures, and exits with 1 if anything did not hold. Seeds make every campaign repeatable; the
test suite replays the first part of each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def pictures(count: int, first_seed: int) -> dict[str, int]:
    """Mutated pictures: each is edited with its outside unchanged, or refused in one line."""
    from fuzz.pictures import mutated_picture, summary, try_picture

    outcomes, broken = [], 0
    for seed in range(first_seed, first_seed + count):
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcomes.append(try_picture(seed, Path(folder)))
            except Exception as error:  # whatever is not one line is what this campaign looks for
                broken += 1
                print(f"seed {seed} ({mutated_picture(seed)[1]}): {type(error).__name__}: {error}", file=sys.stderr)
    return {**summary(outcomes), "tried": count, "broken": broken}


def allocations(count: int, first_seed: int) -> dict[str, int]:
    """Memory that runs out at any point of an edit: no half file is left, and an earlier edit is whole."""
    from fuzz.allocations import try_allocations
    from tiny_models import build_tiny_models

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as models:
        return try_allocations(count, Path(folder), build_tiny_models(Path(models)))


CAMPAIGNS: dict[str, tuple[Callable[[int, int], dict[str, int]], int]] = {
    "pictures": (pictures, 1000),
    "allocations": (allocations, 40),
}
"""Each campaign and its usual size. It returns figures by name; "broken" counts what did not hold."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--count", type=int, help="how many are tried")
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args()
    campaign, usual = CAMPAIGNS[given.campaign]
    warnings.filterwarnings("ignore")
    figures = campaign(usual if given.count is None else given.count, given.first_seed)
    print(json.dumps({"campaign": given.campaign, **figures}))
    sys.exit(1 if figures["broken"] else 0)


if __name__ == "__main__":
    main()
