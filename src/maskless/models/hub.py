"""Downloads models from the Hugging Face hub or a mirror of it (HF_ENDPOINT), each once and at a fixed commit.

The commit and the files of each download are recorded in a lock file beside the hub's cache. If a model is complete on
this disk, no request is sent to the hub.
"""

from __future__ import annotations

import contextlib
import glob
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from maskless.data.errors import MasklessError, first_line
from maskless.data.files import write_bytes

LOCK_NAME = "maskless.lock.json"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
SETTINGS = (".json", ".txt", ".model", ".jinja")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
VARIANT = re.compile(r"\.(safetensors\.index\.\w+\.json|\w+(-\d+-of-\d+)?\.safetensors|\w+\.safetensors\.index\.json)$")
"""Files that hold the same weights a second time in another precision, such as model.fp16.safetensors."""
CONVERTER = "SFconvertbot"
"""The account of the hub that converts pickled weights to safetensors and offers them in pull requests."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A model on this disk: its hub id, its commit and its folder."""

    repo_id: str
    commit: str
    folder: Path

    @property
    def name(self) -> str:
        """owner/name@commit."""
        return f"{self.repo_id}@{self.commit}"


def is_hub_id(source: str) -> bool:
    """Whether this has the form owner/name or owner/name@revision."""
    return HUB_ID.fullmatch(source) is not None and not source.startswith(".")


def find(sources: Sequence[str], *, settings_only: bool = False) -> Snapshot | None:
    """The first of these models that is complete on this disk; None if none is. No request is sent to the hub.

    sources, settings_only: see `fetch`.
    """
    lock = _read_lock()
    for repo_id, revision in map(_split, sources):
        entry = lock.get(repo_id)
        if entry is not None and _is_sufficient(entry, revision, settings_only) and not _missing_files(repo_id, entry):
            return Snapshot(repo_id=repo_id, commit=entry["commit"], folder=_folder(repo_id, entry["commit"]))
    return None


def fetch(
    sources: Sequence[str],
    *,
    offline: bool = False,
    allow_pickle: bool = False,
    settings_only: bool = False,
    progress: bool = False,
) -> Snapshot:
    """A model from this disk, or else from the hub. An interrupted download continues where it stopped.

    Args:
        sources: the model and its mirrors, tried in this order: owner/name@revision, where the revision is a commit,
            tag or branch. Without a revision, the commit of the first download is used from then on.
        offline: never send a request to the hub; HF_HUB_OFFLINE=1 has the same effect.
        allow_pickle: also download weights that are not safetensors, if the model has no others.
        settings_only: leave the weights out.
        progress: whether to show the hub's progress bars on stderr.
    Raises:
        MasklessError: an unknown or gated model, an unreachable hub, or an interrupted download; the message says what
            to try next.
    """
    from huggingface_hub import constants

    found = find(sources, settings_only=settings_only)
    if found is not None:
        return found
    if offline or constants.HF_HUB_OFFLINE:
        return _found_elsewhere(sources) or _refuse_offline(sources)
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    # The base class of all errors of the HTTP library that the hub's client uses, httpx or its successor.
    network_errors = cast(type[Exception], HfHubHTTPError.__mro__[1])
    first: Exception | None = None
    for repo_id, revision in map(_split, sources):
        try:
            return _download(repo_id, revision, allow_pickle, settings_only, progress)
        except RepositoryNotFoundError as error:
            first = first or error
        except (network_errors, OSError) as error:
            elsewhere = _found_elsewhere(sources)
            if elsewhere is not None:
                return elsewhere
            raise MasklessError(_failure(repo_id, revision, error)) from error
    if isinstance(first, GatedRepoError):
        gated = _split(sources[0])[0]
        raise MasklessError(
            f"{gated} is gated: accept its licence at {constants.ENDPOINT}/{gated}, log in with `hf auth login` (or "
            "set HF_TOKEN), and run this again"
        ) from first
    tried = " or ".join(_split(source)[0] for source in sources)
    raise MasklessError(
        f"no model {tried} at {constants.ENDPOINT}: check the spelling; a private one needs "
        "`hf auth login`, and a local folder can be used as well"
    ) from first


def choose_files(names: Sequence[str], components: Sequence[str] | None, *, settings_only: bool) -> list[str]:
    """The files of a model that loading needs: its settings, and safetensors with each weight once.

    Args:
        names: paths of all files in the repository.
        components: the folders of a pipeline; None for a model whose files are in the repository's root.
        settings_only: leave the weights out.
    """
    chosen = []
    for name in names:
        path = PurePosixPath(name)
        folder = str(path.parent)
        in_place = folder == "." or (components is not None and folder in components)
        weights = path.suffix == ".safetensors"
        if not in_place or VARIANT.search(name) or (weights and (settings_only or (components and folder == "."))):
            continue
        if weights or path.suffix in SETTINGS:
            chosen.append(name)
    return chosen


def pickled_folders(names: Sequence[str], chosen: Sequence[str], components: Sequence[str] | None) -> list[str]:
    """The pickled files of weights in folders that loading needs and that have no safetensors.

    names, components: see `choose_files`. chosen: the result of `choose_files`.
    """
    safe = {str(PurePosixPath(name).parent) for name in chosen if name.endswith(".safetensors")}
    wanted = set(components) if components is not None else {"."}
    return [
        name
        for name in names
        if PurePosixPath(name).suffix in PICKLES
        and PurePosixPath(name).name.count(".") == 1
        and str(PurePosixPath(name).parent) in wanted - safe
    ]


def _download(repo_id: str, revision: str | None, allow_pickle: bool, settings_only: bool, progress: bool) -> Snapshot:
    """Download a model from the hub, and record it in the lock file."""
    from huggingface_hub import snapshot_download

    entry = _read_lock().get(repo_id)
    with _progress_bars(progress):
        if entry is None or not _is_sufficient(entry, revision, settings_only):
            entry = _plan(repo_id, revision, allow_pickle, settings_only)
            # Written before the download, so that an interrupted download continues at the same commit.
            _write_lock(_read_lock() | {repo_id: entry})
        for name in entry["files"]:
            if PurePosixPath(name).suffix in (".safetensors", *PICKLES):
                _download_weights(repo_id, entry["commit"], name)
        names = [glob.escape(name) for name in entry["files"]]
        snapshot_download(repo_id, revision=entry["commit"], allow_patterns=names, max_workers=4)
    missing = _missing_files(repo_id, entry)
    if missing:
        raise OSError(f"{len(missing)} files were not downloaded, the first is {missing[0]}")
    return Snapshot(repo_id=repo_id, commit=entry["commit"], folder=_folder(repo_id, entry["commit"]))


def _download_weights(repo_id: str, commit: str, name: str) -> None:
    """Download one large file into the hub's cache as a blob, where the hub's client then finds it.

    When the client itself is interrupted, it discards the downloaded part of a file. This function keeps that part, so
    that the next call only downloads the rest.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    if (_folder(repo_id, commit) / name).is_file():
        return
    url = hf_hub_url(repo_id, name, revision=commit)
    about = get_hf_file_metadata(url)
    if about.etag is None or about.size is None:  # the mirror does not send them, so the client downloads the file
        return
    blob = _folder(repo_id, commit).parents[1] / "blobs" / about.etag
    part = blob.with_name(f"{blob.name}.maskless")
    part.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(blob.with_name(f"{blob.name}.lock")):
        if blob.is_file():  # another model has the same file, or another process has just downloaded it
            return
        with part.open("ab") as file:
            downloaded = file.tell()
            http_get(url, file, resume_size=downloaded, headers=build_hf_headers(), expected_size=about.size)
        part.replace(blob)


def _plan(repo_id: str, revision: str | None, allow_pickle: bool, settings_only: bool) -> dict[str, Any]:
    """The entry of the lock file for a download: {revision, commit, files, settings_only}."""
    from huggingface_hub import HfApi

    api = HfApi()
    commit, names = _listing(api, repo_id, revision)
    components = _components(repo_id, commit) if "model_index.json" in names else None
    chosen = choose_files(names, components, settings_only=settings_only)
    pickled = [] if settings_only else pickled_folders(names, chosen, components)
    if pickled and allow_pickle:
        chosen += pickled
    elif pickled:
        converted = _converted(api, repo_id) if components is None else None
        if converted is None:
            raise MasklessError(
                f"{repo_id} has {pickled[0]}, a pickle, which can contain code, and no safetensors instead; name "
                "another model, or read it with --allow-pickle if you trust it"
            )
        commit, names = _listing(api, repo_id, converted)
        chosen = choose_files(names, None, settings_only=False)
    return {"revision": revision, "commit": commit, "files": sorted(chosen), "settings_only": settings_only}


def _listing(api: Any, repo_id: str, revision: str | None) -> tuple[str, list[str]]:
    """The commit of the revision, and the names of its files."""
    info = api.model_info(repo_id, revision=revision)
    return str(info.sha), [file.rfilename for file in info.siblings or ()]


def _components(repo_id: str, commit: str) -> list[str]:
    """The folders of a pipeline on the hub."""
    from huggingface_hub import hf_hub_download

    return _folders_of(Path(hf_hub_download(repo_id, "model_index.json", revision=commit)))


def _folders_of(index: Path) -> list[str]:
    """The folders that a pipeline's model_index.json names, without the safety checker, which is never loaded."""
    parts = json.loads(index.read_text("utf-8"))
    return [
        name
        for name, kind in parts.items()
        if isinstance(kind, list) and kind[0] is not None and name != "safety_checker"
    ]


def _converted(api: Any, repo_id: str) -> str | None:
    """The revision of CONVERTER's open pull request with this model as safetensors; None if there is none."""
    for offer in api.get_repo_discussions(repo_id, author=CONVERTER, discussion_type="pull_request"):
        if offer.author == CONVERTER and offer.status == "open" and "safetensors" in offer.title:
            return f"refs/pr/{offer.num}"
    return None


def _found_elsewhere(sources: Sequence[str]) -> Snapshot | None:
    """A model that another program has downloaded into the same cache; None if any of its parts is missing."""
    lock = _read_lock()
    for repo_id, revision in map(_split, sources):
        reference = _folder(repo_id, "").parent / "refs" / (revision or "main")
        commit = reference.read_text("utf-8").strip() if reference.is_file() else revision
        if commit is None or repo_id in lock:  # a model in the lock file is an incomplete download of this package
            continue
        folder = _folder(repo_id, commit)
        index = folder / "model_index.json"
        needed = _folders_of(index) if index.is_file() else ["config.json"]
        if all((folder / name).exists() for name in needed) and any(map(Path.is_file, folder.rglob("*.safetensors"))):
            return Snapshot(repo_id=repo_id, commit=commit, folder=folder)
    return None


def _refuse_offline(sources: Sequence[str]) -> Snapshot:
    """Raise the MasklessError for a model that is not complete on this disk when downloads are not allowed."""
    lock = _read_lock()
    for repo_id, revision in map(_split, sources):
        entry = lock.get(repo_id)
        if entry is not None and entry["revision"] == revision:
            missing = _missing_files(repo_id, entry)
            raise MasklessError(
                f"the download of {repo_id} was interrupted, {len(missing)} of {len(entry['files'])} files are "
                "missing; run once without --offline (and HF_HUB_OFFLINE) to continue it"
            )
    raise MasklessError(
        f"{_split(sources[0])[0]} is not on this disk and offline use is set; run once without --offline (and "
        "HF_HUB_OFFLINE) to download it, or name a local folder"
    )


def _failure(repo_id: str, revision: str | None, error: Exception) -> str:
    """The error message of a failed download: why it failed, and what to try next."""
    from huggingface_hub import constants
    from huggingface_hub.errors import RevisionNotFoundError

    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} has no revision {revision}; name another, such as {repo_id}@main"
    entry = _read_lock().get(repo_id)
    missing = [] if entry is None else _missing_files(repo_id, entry)
    reason = first_line(error)
    if entry is not None and entry["revision"] == revision and len(missing) < len(entry["files"]):
        return f"the download of {repo_id} was interrupted ({reason}); the same command continues where it stopped"
    return (
        f"cannot download {repo_id} from {constants.ENDPOINT} ({reason}), and it is not on this disk; connect to the "
        "network, set HF_ENDPOINT to a mirror, or name a local folder"
    )


def _split(source: str) -> tuple[str, str | None]:
    """The hub id and the revision of owner/name@revision; the revision is None if it is left out."""
    repo_id, _, revision = source.partition("@")
    return repo_id, revision or None


def _is_sufficient(entry: dict[str, Any], revision: str | None, settings_only: bool) -> bool:
    """Whether an entry of the lock file has this revision and lists all files that are needed."""
    return entry["revision"] == revision and (settings_only or not entry["settings_only"])


def _folder(repo_id: str, commit: str) -> Path:
    """The folder of a commit in the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}" / "snapshots" / commit


def _missing_files(repo_id: str, entry: dict[str, Any]) -> list[str]:
    """The files of an entry of the lock file that are not on this disk."""
    folder = _folder(repo_id, entry["commit"])
    return [name for name in entry["files"] if not (folder / name).is_file()]


def _lock_path() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).parent / LOCK_NAME


def _read_lock() -> dict[str, dict[str, Any]]:
    path = _lock_path()
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise MasklessError(
            f"cannot read {path} ({error}); delete it, and the models will be looked up again"
        ) from error


def _write_lock(lock: dict[str, dict[str, Any]]) -> None:
    write_bytes(_lock_path(), (json.dumps(lock, indent=2, sort_keys=True) + "\n").encode())


@contextlib.contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    """Show or hide the hub's progress bars in a block, and hide its warnings: this package has its own messages."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    before, level = are_progress_bars_disabled(), logging.get_verbosity()
    logging.set_verbosity_error()
    if not shown:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if not shown and not before:
            enable_progress_bars()
