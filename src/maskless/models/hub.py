"""Downloads models from the Hugging Face hub or a mirror of it (HF_ENDPOINT), each once and at a fixed commit.

The commit of each download, and the sizes and hashes of its files, are recorded in a lock file beside the hub's cache.
If a model is complete on this disk, no request is sent to the hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from maskless.data.errors import MasklessError, first_line
from maskless.models import cache
from maskless.models.cache import Entry
from maskless.models.listing import INDEXES, PICKLES, SETTINGS, folders_of, is_left_out, plan_download, plan_file
from maskless.models.transfer import SETTINGS_BYTES, RemoteFile, digests, download

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


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
    return HUB_ID.fullmatch(source) is not None and not source.startswith(".") and ".." not in source.split("@")[-1]


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids requests to the hub."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def find(sources: Sequence[str], *, settings_only: bool = False, without: tuple[str, ...] = ()) -> Snapshot | None:
    """The first of these models that is complete on this disk; None if none is. No request is sent to the hub.

    sources, settings_only, without: see `fetch`.
    """
    lock = cache.read_lock()
    for repo_id, revision in map(_split, sources):
        entry = lock.get(repo_id)
        if entry is None or not _is_sufficient(entry, revision, settings_only, without):
            continue
        if not cache.missing_files(repo_id, _needed(entry, without)):
            return _snapshot(repo_id, entry.commit)
    return None


def fetch(
    sources: Sequence[str],
    *,
    offline: bool = False,
    allow_pickle: bool = False,
    settings_only: bool = False,
    without: tuple[str, ...] = (),
    again: bool = False,
    progress: bool = False,
) -> Snapshot:
    """A model from this disk, or else from the hub. An interrupted download continues where it stopped.

    Every file is compared with its size and hash before it gets its name in the cache.

    Args:
        sources: the model and its mirrors, tried in this order: owner/name@revision, where the revision is a commit,
            tag or branch. Without a revision, the commit of the first download is used from then on.
        offline: never send a request to the hub; HF_HUB_OFFLINE=1 has the same effect.
        allow_pickle: also download weights that are not safetensors, if the model has no others.
        settings_only: leave the weights out.
        without: parts of a pipeline whose weights are left out, such as ("transformer",).
        again: compare the files on this disk with their hashes, and download those that differ again.
        progress: whether to show progress bars on stderr.
    Raises:
        MasklessError: an unknown or gated model, an unreachable hub, an interrupted download, or content that is not
            what its hash says; the message says what to try next.
    """
    from huggingface_hub import constants

    found = None if again else find(sources, settings_only=settings_only, without=without)
    if found is not None:
        return found
    if offline or is_offline():
        return _found_elsewhere(sources) or _refuse_offline(sources)
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    first: Exception | None = None
    for repo_id, revision in map(_split, sources):
        try:
            with _progress_bars(progress):
                return _download(repo_id, revision, allow_pickle, settings_only, without)
        except RepositoryNotFoundError as error:
            first = first or error
        except MasklessError:
            raise
        except Exception as error:  # whatever the HTTP library or the system raises on what a server sends
            elsewhere = None if again else _found_elsewhere(sources)
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


def fetch_file(source: str, name: str, *, offline: bool = False, progress: bool = False) -> Path:
    """A single file of a repository, from this disk or else from the hub, as `fetch` does with models.

    source: owner/name or owner/name@revision. name: the file's path in the repository.

    Raises:
        MasklessError: see `fetch`.
    """
    repo_id, revision = _split(source)
    key = f"{repo_id}/{name}"
    entry = cache.read_lock().get(key)
    entry = entry if entry is not None and entry.revision == revision and name in entry.files else None
    if entry is not None and not cache.missing_files(repo_id, entry):
        return cache.snapshot_file(repo_id, entry.commit, name)
    if offline or is_offline():
        raise MasklessError(
            f"{key} is not on this disk and offline use is set; run once without --offline (and HF_HUB_OFFLINE) to "
            "download it, or name a local file"
        )
    try:
        with _progress_bars(progress):
            if entry is None:
                entry = plan_file(repo_id, revision, name)
                cache.record(key, entry)
            _require_space(repo_id, entry)
            _store(repo_id, entry.commit, entry.files[name])
    except MasklessError:
        raise
    except Exception as error:  # whatever the HTTP library or the system raises on what a server sends
        raise MasklessError(_failure(repo_id, revision, error)) from error
    return cache.snapshot_file(repo_id, entry.commit, name)


def _download(
    repo_id: str, revision: str | None, allow_pickle: bool, settings_only: bool, without: tuple[str, ...]
) -> Snapshot:
    """Download a model from the hub, and record it in the lock file."""
    entry = cache.read_lock().get(repo_id)
    known = entry is not None and all(file.digest for file in entry.files.values())
    if entry is None or not known or not _is_sufficient(entry, revision, settings_only, without):
        same = entry is not None and _is_sufficient(entry, revision, settings_only=True)
        # A later download of the same revision keeps to the commit of the first one.
        commit = entry.commit if same and entry else revision
        entry = plan_download(repo_id, commit, allow_pickle, settings_only, without)
        entry = replace(entry, revision=revision)
        # Written before the download, so that an interrupted download continues at the same commit.
        cache.record(repo_id, entry)
    needed = _needed(entry, without)
    _require_space(repo_id, needed)
    for file in list(needed.files.values()):
        digest = _store(repo_id, entry.commit, file)
        if file.digest is None:
            stored = cache.snapshot_file(repo_id, entry.commit, file.name)
            complete = replace(file, size=stored.stat().st_size, digest=digest)
            entry = replace(entry, files={**entry.files, file.name: complete})
            cache.record(repo_id, entry)
    missing = cache.missing_files(repo_id, needed)
    if missing:
        raise OSError(f"{len(missing)} files were not downloaded, the first is {missing[0]}")
    return _snapshot(repo_id, entry.commit)


def _needed(entry: Entry, without: tuple[str, ...]) -> Entry:
    """The entry without the weights of these parts."""
    return replace(entry, files={name: file for name, file in entry.files.items() if not is_left_out(name, without)})


def _store(repo_id: str, commit: str, file: RemoteFile) -> str:
    """Download one file into the cache if it is not there or is damaged. Returns the hash that it is known by."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import WeakFileLock, tqdm

    path = cache.snapshot_file(repo_id, commit, file.name)
    if cache.is_intact(path, file):
        return file.digest or digests(path)[0]
    cache.remove_file(repo_id, path)
    url = hf_hub_url(repo_id, file.name, revision=commit)
    blobs = cache.repository_folder(repo_id) / "blobs"
    cache.inside(blobs, repo_id)
    blobs.mkdir(parents=True, exist_ok=True)
    label = file.digest or hashlib.sha256(f"{commit}/{file.name}".encode()).hexdigest()
    part = blobs / f"{label}.maskless"
    with WeakFileLock(blobs / f"{label}.lock"):
        # Another commit may have the same file, or another process may just have downloaded it.
        blob = cache.blob_file(repo_id, file.digest) if file.digest else None
        if blob is None or not cache.is_intact(blob, file):
            weights = PurePosixPath(file.name).suffix in (".safetensors", ".gguf", ".onnx", *PICKLES)
            limit = shutil.disk_usage(blobs).free if weights else SETTINGS_BYTES
            with tqdm(total=file.size, unit="B", unit_scale=True, desc=file.name, leave=False) as bar:
                digest = download(url, part, file, limit=limit, on_bytes=bar.update)
            blob = cache.blob_file(repo_id, file.digest or digest)
            part.replace(blob)
        cache.link(blob, path)
    return blob.name


def _require_space(repo_id: str, entry: Entry) -> None:
    """Check that what is missing fits on the disk, as far as its size is known."""
    sizes = {name: file.size or 0 for name, file in entry.files.items()}
    too_large = [
        name for name, size in sizes.items() if size > SETTINGS_BYTES and PurePosixPath(name).suffix in SETTINGS
    ]
    if too_large:
        raise MasklessError(
            f"{repo_id} lists {too_large[0]} with {sizes[too_large[0]]:,} bytes; files of settings have "
            f"{SETTINGS_BYTES:,} at most"
        )
    needed = sum(sizes[name] for name in cache.missing_files(repo_id, entry))
    folder = cache.repository_folder(repo_id)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise MasklessError(
            f"{repo_id} needs {needed / 1e9:.1f} GB, and {existing} has {free / 1e9:.1f} GB left; free some space, or "
            "set HF_HOME to another disk"
        )


def _found_elsewhere(sources: Sequence[str]) -> Snapshot | None:
    """A model that another program has downloaded into the same cache; None if any of its parts is missing."""
    lock = cache.read_lock()
    for repo_id, revision in map(_split, sources):
        reference = cache.repository_folder(repo_id) / "refs" / (revision or "main")
        commit = reference.read_text("utf-8").strip() if reference.is_file() else revision
        if not cache.is_commit(commit) or repo_id in lock:  # what the lock file has is an incomplete download
            continue
        folder = cache.snapshot_folder(repo_id, str(commit))
        index = next((folder / name for name in INDEXES if (folder / name).is_file()), folder / INDEXES[0])
        needed = folders_of(index.read_bytes(), str(index)) if index.is_file() else ["config.json"]
        if all((folder / name).exists() for name in needed) and any(map(Path.is_file, folder.rglob("*.safetensors"))):
            return _snapshot(repo_id, str(commit))
    return None


def _refuse_offline(sources: Sequence[str]) -> Snapshot:
    """Raise the MasklessError for a model that is not complete on this disk when downloads are not allowed."""
    lock = cache.read_lock()
    for repo_id, revision in map(_split, sources):
        entry = lock.get(repo_id)
        if entry is not None and entry.revision == revision:
            missing = cache.missing_files(repo_id, entry)
            raise MasklessError(
                f"the download of {repo_id} was interrupted, {len(missing)} of {len(entry.files)} files are "
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
    reason = first_line(error)
    if isinstance(error, ImportError) and "socks" in reason.lower():
        return "ALL_PROXY, HTTPS_PROXY or HTTP_PROXY names a SOCKS proxy, which needs `pip install socksio`"
    if isinstance(error, (ImportError, ValueError)) and "proxy" in reason.lower():
        return f"ALL_PROXY, HTTPS_PROXY or HTTP_PROXY names a proxy that cannot be used ({reason})"
    entry = cache.read_lock().get(repo_id)
    missing = [] if entry is None else cache.missing_files(repo_id, entry)
    if entry is not None and entry.revision == revision and len(missing) < len(entry.files):
        return f"the download of {repo_id} was interrupted ({reason}); the same command continues where it stopped"
    return (
        f"cannot download {repo_id} from {constants.ENDPOINT} ({reason}), and it is not on this disk; connect to the "
        "network, set HF_ENDPOINT to a mirror, or name a local folder"
    )


def _split(source: str) -> tuple[str, str | None]:
    """The hub id and the revision of owner/name@revision; the revision is None if it is left out."""
    repo_id, _, revision = source.partition("@")
    return repo_id, revision or None


def _is_sufficient(entry: Entry, revision: str | None, settings_only: bool, without: tuple[str, ...] = ()) -> bool:
    """Whether an entry of the lock file has this revision and lists all files that are needed."""
    complete = not entry.settings_only and set(entry.without) <= set(without)
    return entry.revision == revision and (settings_only or complete)


def _snapshot(repo_id: str, commit: str) -> Snapshot:
    return Snapshot(repo_id=repo_id, commit=commit, folder=cache.snapshot_folder(repo_id, commit))


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
