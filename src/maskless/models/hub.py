"""Models of the Hugging Face hub, or of a mirror of it (HF_ENDPOINT): downloaded once, at one commit, then never asked
for again. The commit and the files of each download are kept in a lock file beside the hub's cache."""

from __future__ import annotations

import contextlib
import glob
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from maskless.data.errors import MasklessError
from maskless.data.files import write_bytes

LOCK_NAME = "maskless.lock.json"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
SETTINGS = (".json", ".txt", ".model", ".jinja")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
VARIANT = re.compile(r"\.(safetensors\.index\.\w+\.json|\w+(-\d+-of-\d+)?\.safetensors|\w+\.safetensors\.index\.json)$")
"""Weights that come a second time, in another precision: model.fp16.safetensors and the like."""
CONVERTER = "SFconvertbot"
"""The hub's own account that offers pickled weights as safetensors, in pull requests."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A model on this disk: where, whose, and at which commit."""

    repo_id: str
    commit: str
    folder: Path

    @property
    def name(self) -> str:
        """owner/name@commit."""
        return f"{self.repo_id}@{self.commit}"


def is_hub_id(source: str) -> bool:
    """Whether this can be owner/name, or owner/name@revision."""
    return HUB_ID.fullmatch(source) is not None and not source.startswith(".")


def find(sources: Sequence[str], *, settings_only: bool = False) -> Snapshot | None:
    """The first of these models that was downloaded whole; asks the disk only. sources: see `fetch`."""
    lock = _read_lock()
    for repo_id, revision in map(_split, sources):
        entry = lock.get(repo_id)
        if entry is not None and _serves(entry, revision, settings_only) and not _absent(repo_id, entry):
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
    """A model from this disk, else from the hub; a download that was broken off goes on where it stopped.

    Args:
        sources: the model and its mirrors, tried in this order: owner/name@revision, where the revision is a commit,
            tag or branch. Without one, what the first download finds is taken and kept to.
        offline: never ask the hub; so does HF_HUB_OFFLINE=1.
        allow_pickle: also take weights that are not safetensors, where there are no others.
        settings_only: leave the weights out. progress: show the hub's bars on stderr.
    Raises:
        MasklessError: unknown, gated, not reachable or broken off, with the next thing to try.
    """
    from huggingface_hub import constants

    found = find(sources, settings_only=settings_only)
    if found is not None:
        return found
    if offline or constants.HF_HUB_OFFLINE:
        return _found_elsewhere(sources) or _refuse_offline(sources)
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    # The base of all errors of the HTTP library that the hub's client is built on: httpx or its successor.
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
            raise MasklessError(_why(repo_id, revision, error)) from error
    if isinstance(first, GatedRepoError):
        gated = _split(sources[0])[0]
        raise MasklessError(
            f"{gated} is gated: accept its licence at {constants.ENDPOINT}/{gated}, log in with `hf auth login` (or "
            "set HF_TOKEN), and run this again"
        ) from first
    tried = " or ".join(_split(source)[0] for source in sources)
    raise MasklessError(
        f"no model {tried} at {constants.ENDPOINT}: check the spelling; a private one needs "
        "`hf auth login`, and a local folder will do as well"
    ) from first


def choose_files(names: Sequence[str], components: Sequence[str] | None, *, settings_only: bool) -> list[str]:
    """Of a model's files those that loading needs: settings and safetensors, each weight once.

    components: the folders of a pipeline; None for a model that has none, whose files lie at the top.
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
    """Weights that exist as pickles only, in folders that loading needs."""
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
    from huggingface_hub import snapshot_download

    entry = _read_lock().get(repo_id)
    with _bars(progress):
        if entry is None or not _serves(entry, revision, settings_only):
            entry = _plan(repo_id, revision, allow_pickle, settings_only)
            # Written before the download: one that is broken off goes on at the same commit.
            _write_lock(_read_lock() | {repo_id: entry})
        for name in entry["files"]:
            if PurePosixPath(name).suffix in (".safetensors", *PICKLES):
                _download_weights(repo_id, entry["commit"], name)
        names = [glob.escape(name) for name in entry["files"]]
        snapshot_download(repo_id, revision=entry["commit"], allow_patterns=names, max_workers=4)
    absent = _absent(repo_id, entry)
    if absent:
        raise OSError(f"{len(absent)} files did not come, the first is {absent[0]}")
    return Snapshot(repo_id=repo_id, commit=entry["commit"], folder=_folder(repo_id, entry["commit"]))


def _download_weights(repo_id: str, commit: str, name: str) -> None:
    """Bring one large file into the cache as a blob, for the hub's client to find there.

    The client itself throws away what it has of a file when it is stopped; here that stays, and the next run asks for
    the rest alone.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    if (_folder(repo_id, commit) / name).is_file():
        return
    url = hf_hub_url(repo_id, name, revision=commit)
    about = get_hf_file_metadata(url)
    if about.etag is None or about.size is None:  # a mirror that does not say; then the client's own way
        return
    blob = _folder(repo_id, commit).parents[1] / "blobs" / about.etag
    part = blob.with_name(f"{blob.name}.maskless")
    part.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(blob.with_name(f"{blob.name}.lock")):
        if blob.is_file():  # of another model, or of another process that was faster
            return
        with part.open("ab") as file:
            have = file.tell()
            http_get(url, file, resume_size=have, headers=build_hf_headers(), expected_size=about.size)
        part.replace(blob)


def _plan(repo_id: str, revision: str | None, allow_pickle: bool, settings_only: bool) -> dict[str, Any]:
    """What to download, as the lock file keeps it: {revision, commit, files, settings_only}."""
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
                f"{repo_id} has {pickled[0]}, a pickle, which can hold code, and no safetensors in its place; name "
                "another model, or read it with --allow-pickle if you trust it"
            )
        commit, names = _listing(api, repo_id, converted)
        chosen = choose_files(names, None, settings_only=False)
    return {"revision": revision, "commit": commit, "files": sorted(chosen), "settings_only": settings_only}


def _listing(api: Any, repo_id: str, revision: str | None) -> tuple[str, list[str]]:
    """The commit that the revision is at, and the names of its files."""
    info = api.model_info(repo_id, revision=revision)
    return str(info.sha), [file.rfilename for file in info.siblings or ()]


def _components(repo_id: str, commit: str) -> list[str]:
    from huggingface_hub import hf_hub_download

    return _folders_of(Path(hf_hub_download(repo_id, "model_index.json", revision=commit)))


def _folders_of(index: Path) -> list[str]:
    """The folders of a pipeline that its model_index.json names, without the safety checker, which is never loaded."""
    parts = json.loads(index.read_text("utf-8"))
    return [
        name
        for name, kind in parts.items()
        if isinstance(kind, list) and kind[0] is not None and name != "safety_checker"
    ]


def _converted(api: Any, repo_id: str) -> str | None:
    """The revision at which the hub's converter offers this model as safetensors; None where it does not."""
    for offer in api.get_repo_discussions(repo_id, author=CONVERTER, discussion_type="pull_request"):
        if offer.author == CONVERTER and offer.status == "open" and "safetensors" in offer.title:
            return f"refs/pr/{offer.num}"
    return None


def _found_elsewhere(sources: Sequence[str]) -> Snapshot | None:
    """A model that another program downloaded into the same cache, if all its parts are there."""
    lock = _read_lock()
    for repo_id, revision in map(_split, sources):
        reference = _folder(repo_id, "").parent / "refs" / (revision or "main")
        commit = reference.read_text("utf-8").strip() if reference.is_file() else revision
        if commit is None or repo_id in lock:  # one in the lock file is ours, and known to be incomplete
            continue
        folder = _folder(repo_id, commit)
        index = folder / "model_index.json"
        needed = _folders_of(index) if index.is_file() else ["config.json"]
        if all((folder / name).exists() for name in needed) and any(map(Path.is_file, folder.rglob("*.safetensors"))):
            return Snapshot(repo_id=repo_id, commit=commit, folder=folder)
    return None


def _refuse_offline(sources: Sequence[str]) -> Snapshot:
    lock = _read_lock()
    for repo_id, revision in map(_split, sources):
        entry = lock.get(repo_id)
        if entry is not None and entry["revision"] == revision:
            absent = _absent(repo_id, entry)
            raise MasklessError(
                f"the download of {repo_id} was broken off, {len(absent)} of {len(entry['files'])} files are missing; "
                "run once without --offline (and HF_HUB_OFFLINE) to go on with it"
            )
    raise MasklessError(
        f"{_split(sources[0])[0]} is not on this disk and the hub is switched off; run once without --offline (and "
        "HF_HUB_OFFLINE) to download it, or name a local folder"
    )


def _why(repo_id: str, revision: str | None, error: Exception) -> str:
    """One line for a download that failed on the way."""
    from huggingface_hub import constants
    from huggingface_hub.errors import RevisionNotFoundError

    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} has no revision {revision}; take another, such as {repo_id}@main"
    entry = _read_lock().get(repo_id)
    absent = [] if entry is None else _absent(repo_id, entry)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if entry is not None and entry["revision"] == revision and len(absent) < len(entry["files"]):
        return f"the download of {repo_id} broke off ({reason}); run the same again, it goes on where it stopped"
    return (
        f"cannot download {repo_id} from {constants.ENDPOINT} ({reason}), and it is not on this disk; connect, set "
        "HF_ENDPOINT to a mirror, or name a local folder"
    )


def _split(source: str) -> tuple[str, str | None]:
    """owner/name@revision as its id and its revision."""
    repo_id, _, revision = source.partition("@")
    return repo_id, revision or None


def _serves(entry: dict[str, Any], revision: str | None, settings_only: bool) -> bool:
    """Whether what an entry of the lock file lists is what is asked for."""
    return entry["revision"] == revision and (settings_only or not entry["settings_only"])


def _folder(repo_id: str, commit: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}" / "snapshots" / commit


def _absent(repo_id: str, entry: dict[str, Any]) -> list[str]:
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
        raise MasklessError(f"cannot read {path} ({error}); delete it, then models are looked up anew") from error


def _write_lock(lock: dict[str, dict[str, Any]]) -> None:
    write_bytes(_lock_path(), (json.dumps(lock, indent=2, sort_keys=True) + "\n").encode())


@contextlib.contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """The hub's progress bars on or off, and its warnings off: what concerns the user is said in our own words."""
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
