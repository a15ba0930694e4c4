"""Print the SHA-256 of all weights of the presets, as the entries of SHA256_OF in src/maskless/models/presets.py.

    python docs/pin_models.py                        # every pinned model, and those that have no commit yet
    python docs/pin_models.py owner/name …           # these models

It asks the hub (or HF_ENDPOINT) for the lists of files of the pinned commits and downloads no weights. For gated models
set HF_TOKEN. A model that cannot be listed is named on stderr, and the exit status is then 1; one whose hashes differ
from those that are known already is refused in the same way.
"""

from __future__ import annotations

import re
import sys

from maskless.data.errors import MasklessError, first_line
from maskless.models.listing import plan_download
from maskless.models.presets import CLIP, DINO, PINNED, PRESETS

WEIGHTS, SHA256 = (".safetensors",), re.compile("[0-9a-f]{64}")


def main(names: list[str]) -> int:
    """Print the entries of these models, of all presets if none is named, and return the exit status."""
    of_presets = [repo_id for preset in PRESETS for repo_id in preset.inpainting]
    failed = 0
    for repo_id in names or dict.fromkeys([*PINNED, *of_presets, DINO, CLIP]):
        try:
            print("\n".join(entries_of(repo_id)), flush=True)
        except Exception as error:  # whatever the hub answers
            failed += 1
            print(f"{repo_id}: {error if isinstance(error, MasklessError) else first_line(error)}", file=sys.stderr)
    return 1 if failed else 0


def entries_of(repo_id: str) -> list[str]:
    """The lines of a model: its commit, if PINNED has none, and the hash of each of its files of weights.

    Raises:
        MasklessError: the hub lists no SHA-256 of a file of weights, or another than the one that is known.
    """
    entry = plan_download(repo_id, PINNED.get(repo_id), allow_pickle=False, settings_only=False)
    weights = {name: file.digest or "" for name, file in entry.files.items() if name.endswith(WEIGHTS)}
    unknown = [name for name, digest in weights.items() if not SHA256.fullmatch(digest)]
    if unknown:
        raise MasklessError(f"the hub lists no SHA-256 of {unknown[0]}")
    pinned = [] if repo_id in PINNED else [f'    "{repo_id}": "{entry.commit}",  # an entry of PINNED']
    return [
        f"    # {repo_id}",
        *pinned,
        *(f'    ("{entry.commit}", "{name}"):\n        "{digest}",' for name, digest in sorted(weights.items())),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
