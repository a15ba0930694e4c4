"""What a repository of the hub lists, and which of its files loading needs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from maskless.data.errors import MasklessError, first_line, shown
from maskless.models import cache
from maskless.models.cache import Entry
from maskless.models.presets import ONNX_FILES, SHA256_OF
from maskless.models.transfer import SETTINGS_BYTES, RemoteFile, known_digest, request_bytes, request_json

SETTINGS = (".json", ".txt", ".model", ".jinja")
INDEXES = ("model_index.json", "modular_model_index.json")
"""The files that name the folders of a pipeline; the second one is read where there is no first."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
VARIANT = re.compile(
    r"\.(?:safetensors\.index\.(\w+)\.json|(\w+)(?:-\d+-of-\d+)?\.safetensors|(\w+)\.safetensors\.index\.json)$"
)
"""Files that hold the same weights in another precision, such as model.fp16.safetensors."""
VARIANTS = ("fp16", "bf16")
"""Those that are used where a part of a model has no others, in this order."""
MAX_NAMES, MAX_FILES = 20_000, 1_000
"""Files that a repository may list, and files that may be needed of it."""
LFS_POINTER = b"version https://git-lfs"
"""What a file begins with that git-lfs left in place of the weights themselves."""
CONVERTER = "SFconvertbot"
"""The account of the hub that converts pickled weights to safetensors and offers them in pull requests."""


def plan_download(
    repo_id: str, revision: str | None, allow_pickle: bool, settings_only: bool, without: tuple[str, ...] = ()
) -> Entry:
    """What a download consists of: the commit, and the files that loading needs with their sizes and hashes.

    repo_id, revision, allow_pickle, settings_only, without: see `maskless.models.hub.fetch`.

    Raises:
        MasklessError: no model that can be read, too many files, names that cannot be paths, or only pickles.
    """
    commit, files = _listing(repo_id, revision)
    index = next((name for name in INDEXES if name in files), None)
    components = None if index is None else _components(repo_id, commit, index)
    chosen = choose_files(list(files), components, settings_only=settings_only)
    pickled = [] if settings_only else pickled_folders(list(files), chosen, components)
    chosen, pickled = ([name for name in names if not is_left_out(name, without)] for names in (chosen, pickled))
    if pickled and allow_pickle:
        chosen += pickled
    elif pickled:
        converted = _converted(repo_id) if components is None else None
        if converted is None:
            raise MasklessError(
                f"{repo_id} has {shown(pickled[0])}, a pickle, which can contain code, and no safetensors instead; "
                "name another model, or read it with --allow-pickle if you trust it"
            )
        commit, files = _listing(repo_id, converted)
        chosen = choose_files(list(files), None, settings_only=False)
    if not any(PurePosixPath(name).suffix in (".json", ".onnx") for name in chosen):
        raise MasklessError(f"{repo_id} has no model that can be read here: neither model_index.json nor config.json")
    if len(chosen) > MAX_FILES:
        raise MasklessError(
            f"{repo_id} has {len(chosen):,} files that loading would need, {MAX_FILES:,} at most are read"
        )
    for name in chosen:
        cache.snapshot_file(repo_id, commit, name)
    described = {name: _described(repo_id, commit, files[name]) for name in sorted(chosen)}
    return Entry(revision=revision, commit=commit, files=described, settings_only=settings_only, without=without)


def plan_file(repo_id: str, revision: str | None, name: str) -> Entry:
    """The download of a single file: its commit, size and hash.

    Raises:
        MasklessError: the repository has no file of this name; the message lists those of the same kind.
    """
    commit, files = _listing(repo_id, revision)
    if name not in files:
        same = sorted(each for each in files if PurePosixPath(each).suffix == PurePosixPath(name).suffix)
        offered = f"it has {', '.join(map(shown, same[:20]))}" if same else "nor any other file of this kind"
        raise MasklessError(f"{repo_id} has no {shown(name)}; {offered}")
    cache.snapshot_file(repo_id, commit, name)
    return Entry(
        revision=revision, commit=commit, files={name: _described(repo_id, commit, files[name])}, settings_only=False
    )


def is_left_out(name: str, without: Sequence[str]) -> bool:
    """Whether a file is of the weights of one of these parts of a pipeline."""
    path = PurePosixPath(name)
    weights = path.suffix in (".safetensors", *PICKLES) or ".safetensors.index." in path.name
    return weights and str(path.parent) in without


def _listing(repo_id: str, revision: str | None) -> tuple[str, dict[str, RemoteFile]]:
    """The commit of the revision, and its files by name.

    Raises:
        MasklessError: an answer that is not a list of files, or another commit than the one that was named.
    """
    from huggingface_hub import constants

    at = "" if revision is None else f"/revision/{quote(revision, safe='')}"
    url = f"{constants.ENDPOINT}/api/models/{repo_id}{at}"
    answer = request_json(f"{url}?blobs=true")
    commit = answer.get("sha") if isinstance(answer, dict) else None
    listed = answer.get("siblings") if isinstance(answer, dict) else None
    if not cache.is_commit(commit) or not isinstance(listed, list):
        raise MasklessError(f"the answer of {url} does not name a commit and its files, so this is not a hub of models")
    if len(listed) > MAX_NAMES:
        raise MasklessError(f"{repo_id} lists {len(listed):,} files, {MAX_NAMES:,} at most are read")
    if revision is not None and cache.is_commit(revision) and commit != revision:
        raise MasklessError(f"{url} answers with another commit, {commit}; nothing was downloaded")
    files = [_listed(each) for each in listed if isinstance(each, dict) and isinstance(each.get("rfilename"), str)]
    return str(commit), {file.name: file for file in files}


def _listed(about: Mapping[str, Any]) -> RemoteFile:
    """A file of a listing."""
    stored = about.get("lfs")
    lfs: Mapping[str, Any] = stored if isinstance(stored, dict) else {}
    size = lfs.get("size", about.get("size"))
    digest = known_digest(lfs.get("sha256") or lfs.get("oid")) or known_digest(about.get("blobId"))
    return RemoteFile(
        name=about["rfilename"], size=size if type(size) is int and 0 <= size < 2**50 else None, digest=digest
    )


def _described(repo_id: str, commit: str, file: RemoteFile) -> RemoteFile:
    """The file with its size and hash: those that this package knows, those of the listing, or those of the file's own
    headers, where a mirror leaves them out of its listing.

    Raises:
        MasklessError: the server names another hash than the one that is known.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if file.digest is None or file.size is None:
        about = get_hf_file_metadata(hf_hub_url(repo_id, file.name, revision=commit), timeout=30)
        size = about.size if about.size is not None and about.size >= 0 else None
        file = replace(file, size=file.size if file.size is not None else size)
        file = replace(file, digest=file.digest or known_digest(about.etag))
    known = SHA256_OF.get((commit, file.name))
    if known is not None and file.digest is not None and len(file.digest) == len(known) and file.digest != known:
        raise MasklessError(
            f"{repo_id} offers a {file.name} whose hash is {file.digest}, not {known}; use another mirror"
        )
    return file if known is None else replace(file, digest=known)


def _components(repo_id: str, commit: str, index: str) -> list[str]:
    """The folders of a pipeline on the hub. index: one of INDEXES."""
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(repo_id, index, revision=commit)
    return folders_of(request_bytes(url, limit=SETTINGS_BYTES), url)


def folders_of(index: bytes, name: str) -> list[str]:
    """The folders that the index of a pipeline names, without the safety checker, which is never loaded.

    Raises:
        MasklessError: it is not such a file. name: where it is.
    """
    try:
        parts = json.loads(index)
        if not isinstance(parts, dict):
            raise ValueError("it does not hold a JSON object")
        folders = [
            folder
            for folder, kind in parts.items()
            if isinstance(kind, list) and kind and kind[0] is not None and folder != "safety_checker"
        ]
    except (ValueError, RecursionError) as error:
        raise MasklessError(f"model file damaged or unreadable: {name} ({first_line(error)})") from error
    odd = [folder for folder in folders if not cache.is_safe_name(folder) or "/" in folder]
    if odd:
        raise MasklessError(f"{name} names a part {shown(odd[0])}, which cannot be a folder; nothing was read")
    return folders


def _converted(repo_id: str) -> str | None:
    """The revision of CONVERTER's open pull request with this model as safetensors; None if there is none."""
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/api/models/{repo_id}/discussions?p=0&author={CONVERTER}&type=pull_request&status=open"
    answer = request_json(url)
    for offer in answer.get("discussions", ()) if isinstance(answer, dict) else ():
        if not isinstance(offer, dict) or not isinstance(author := offer.get("author"), dict):
            continue
        title, number = str(offer.get("title")), offer.get("num")
        if author.get("name") == CONVERTER and offer.get("status") == "open" and "safetensors" in title:
            return f"refs/pr/{number}" if type(number) is int else None
    return None


def choose_files(names: Sequence[str], components: Sequence[str] | None, *, settings_only: bool) -> list[str]:
    """The files of a model that loading needs: its settings, and safetensors with each weight once.

    Where a folder has its weights in 16 bits only (model.fp16.safetensors), those are chosen.

    Args:
        names: paths of all files in the repository.
        components: the folders of a pipeline; None for a model whose files are in the repository's root.
        settings_only: leave the weights out.
    """
    chosen: list[str] = []
    variants: dict[tuple[str, str], list[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        folder = str(path.parent)
        in_place = folder == "." or (components is not None and folder in components)
        weights = path.suffix == ".safetensors" or ".safetensors.index." in path.name
        if not in_place or (weights and (settings_only or (components and folder == "."))):
            continue
        variant = variant_of(name)
        if variant is not None:
            variants.setdefault((folder, variant), []).append(name)
        elif weights or path.suffix in SETTINGS or (name in ONNX_FILES and not settings_only):
            chosen.append(name)
    complete = {str(PurePosixPath(name).parent) for name in chosen if name.endswith(".safetensors")}
    for variant in VARIANTS:
        for (folder, each), files in variants.items():
            if each == variant and folder not in complete and any(name.endswith(".safetensors") for name in files):
                complete.add(folder)
                chosen += files
    return chosen


def variant_of(name: str) -> str | None:
    """The precision in the name of a file of weights, such as fp16; None for a file without."""
    found = VARIANT.search(name)
    return None if found is None else next(filter(None, found.groups()))


def pickled_folders(names: Sequence[str], chosen: Sequence[str], components: Sequence[str] | None) -> list[str]:
    """The pickled files of weights in folders that loading needs and that have no safetensors.

    names, components: see `choose_files`. chosen: the result of `choose_files`.
    """
    safe = {str(PurePosixPath(name).parent) for name in chosen if name.endswith((".safetensors", ".onnx"))}
    wanted = set(components) if components is not None else {"."}
    return [
        name
        for name in names
        if PurePosixPath(name).suffix in PICKLES
        and PurePosixPath(name).name.count(".") == 1
        and str(PurePosixPath(name).parent) in wanted - safe
    ]
