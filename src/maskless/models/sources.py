"""Where the parts of a set of models are: in folders, in files, or on the hub, from which they are downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.models import hub
from maskless.models.gguf_file import find_file, read_header, require_library
from maskless.models.inpainters.gguf_transformer import check_transformer
from maskless.models.listing import INDEXES
from maskless.models.parts import check_weights
from maskless.models.presets import BY_NAME, PINNED, Preset, with_mirrors

BUNDLED = "storybook"
"""Name of the models that the package contains."""
ENCODERS = ("dino", "clip")
PARTS = ("inpainting", *ENCODERS)
GROUNDER = "grounder"
"""The optional detector that finds what words name."""
REDRAW = "redraw"
"""The optional part of a set of models: the model that redraws pictures."""
TRANSFORMER = "transformer"
"""The part of an inpainting model that a GGUF file may replace."""
ERASE = "erase"
"""The optional part that fills the place of what is removed."""
PREVIEW = "preview_vae"
"""The optional small autoencoder that shows drawings while they are made."""
OPTIONAL = (REDRAW, ERASE, PREVIEW)
"""The optional parts that draw or decode; a folder of models may hold them."""


@dataclass(frozen=True, kw_only=True)
class LocalPart:
    """One of the models, on this disk.

    path: a folder or a file. name: the folder or file that the user named, or the hub id and its commit.
    """

    path: Path
    name: str


def fetch_models(
    options: ModelOptions, *, progress: bool = False, wanted: Sequence[str] = PARTS
) -> dict[str, LocalPart]:
    """Where each part is on this disk. Missing parts are downloaded first.

    progress: whether to show progress bars of downloads on stderr. wanted: PARTS, or ENCODERS where nothing is drawn.

    Raises:
        MasklessError: unknown models, damaged files, or a failed download.
    """
    found = {}
    named: dict[str, Any] = {part: getattr(options, part) for part in (*ENCODERS, GROUNDER, *OPTIONAL)}
    if options.transformer is not None and "inpainting" in wanted:
        require_library()
        path = find_file(options.transformer, offline=options.offline, progress=progress)
        read_header(path)
        found[TRANSFORMER] = LocalPart(path=path, name=options.transformer)
    left_out = (TRANSFORMER,) if TRANSFORMER in found else ()
    for part, source in model_sources(options.models, wanted=wanted, without=left_out, **named).items():
        if not hub.is_hub_id(source) or Path(source).exists():
            found[part] = LocalPart(path=Path(source), name=source)
            continue
        trust: dict[str, Any] = {"allow_pickle": options.allow_pickle, "progress": progress}
        if part == "inpainting" and left_out:
            trust["without"] = left_out
            if hub.find(with_commits(source), without=left_out) is None:
                settings = hub.fetch(with_commits(source), offline=options.offline, settings_only=True)
                check_transformer(found[TRANSFORMER].path, settings.folder)
        snapshot = hub.fetch(with_commits(source), offline=options.offline, **trust)
        try:
            check_weights(snapshot.folder, without=trust.get("without", ()))
        except MasklessError:
            if options.offline or hub.is_offline():
                raise
            # A file in the cache is damaged: those that are not what their hashes say are downloaded again.
            snapshot = hub.fetch(with_commits(source), again=True, **trust)
            check_weights(snapshot.folder, without=trust.get("without", ()))
        found[part] = LocalPart(path=snapshot.folder, name=snapshot.name)
    return found


def on_disk(models: str) -> bool:
    """Whether all parts of a preset are on this disk, so that it can be loaded offline."""
    sources = model_sources(models).values()
    return all(Path(source).exists() or hub.find(with_commits(source)) is not None for source in sources)


def with_commits(source: str) -> list[str]:
    """A hub id and its mirrors, each with its pinned commit if it has one. owner/name@revision does not change."""
    if "@" in source:
        return [source]
    return [f"{repo_id}@{PINNED[repo_id]}" if repo_id in PINNED else repo_id for repo_id in with_mirrors(source)]


def model_sources(
    models: str,
    *,
    dino: str | None = None,
    clip: str | None = None,
    redraw: str | None = None,
    erase: str | None = None,
    grounder: str | None = None,
    preview_vae: str | None = None,
    wanted: Sequence[str] = PARTS,
    without: tuple[str, ...] = (),
) -> dict[str, str]:
    """The folder, file or hub id of each part.

    models, dino, clip, redraw, erase, grounder, preview_vae: the options of these names, see `ModelOptions`. wanted:
    PARTS, or ENCODERS where nothing is drawn. without: parts of the inpainting model whose weights need not be there.

    Raises:
        MasklessError: unknown models, or a folder with missing or damaged files.
    """
    root = Path(str(resources.files("maskless"))) / "assets" / BUNDLED if models == BUNDLED else Path(models)
    preset = preset_of(models)
    if preset is not None:
        found: dict[str, str | None] = {"inpainting": preset.inpainting[0], "dino": preset.dino, "clip": preset.clip}
        further = {ERASE: preset.erase, GROUNDER: preset.grounder, PREVIEW: preset.preview_vae}
        found |= {part: source for part, source in further.items() if source}
    elif all((root / part).is_dir() for part in wanted):
        found = {part: str(root / part) for part in wanted}
        found |= {part: str(root / part) for part in OPTIONAL if (root / part).is_dir()}
    elif _is_pipeline(root) or (hub.is_hub_id(models) and not root.exists()):
        found = {"inpainting": str(root) if root.exists() else models, "dino": None, "clip": None}
    elif root.exists():
        missing = [part for part in wanted if not (root / part).is_dir()]
        raise MasklessError(f"models folder {root} must hold {', '.join(wanted)}; missing: {', '.join(missing)}")
    else:
        raise MasklessError(
            f"models must be one of {', '.join(BY_NAME)}, a folder, a .safetensors file or a hub id (owner/name), "
            f"got {models!r}"
        )
    own = {"dino": dino, "clip": clip, REDRAW: redraw, ERASE: erase, GROUNDER: grounder, PREVIEW: preview_vae}
    found |= {part: source for part, source in own.items() if source}
    if "inpainting" not in wanted:
        found = {part: source for part, source in found.items() if part not in ("inpainting", *OPTIONAL)}
    for part, source in found.items():
        if source is None:
            raise MasklessError(
                f"{models} is only an inpainting model; name the {part} model to use with it (--{part})"
            )
        if Path(source).is_dir():
            check_weights(Path(source), without=without if part == "inpainting" else ())
        elif Path(source).is_file() and part in ("clip", REDRAW, GROUNDER, PREVIEW):
            raise MasklessError(f"the {part} model must be a folder or a hub id, got the file {source}")
        elif not Path(source).is_file() and not hub.is_hub_id(source):
            raise MasklessError(f"no such {part} model: {source!r} is neither a folder nor a hub id such as owner/name")
    return {part: str(source) for part, source in found.items()}


def preset_of(models: str) -> Preset | None:
    """The preset of this name; None for the bundled models, and for a folder or file of this name."""
    return None if models == BUNDLED or Path(models).exists() else BY_NAME.get(models)


def _is_pipeline(root: Path) -> bool:
    """Whether this is the folder or the file of a model that draws."""
    return root.is_file() or any((root / index).is_file() for index in INDEXES)
