"""Downloads from a hub, here a small server on this machine: once, at one commit, resumed, and never again."""

import ast
import gzip
import hashlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch
from PIL import Image

from hub_server import Answer, HubServer, serving
from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.models import cache, hub, transfer
from maskless.models import listing as hub_listing
from maskless.models.cache import LOCK_NAME
from maskless.models.inpainters.loading import load_pipeline
from maskless.models.pretrained import load_models
from maskless.models.sources import fetch_models
from tiny_modular import build_modular_family

STORYBOOK = Path(str(resources.files("maskless"))) / "assets" / "storybook"
IDS = {"inpainting": "acme/inpainting", "dino": "acme/dino", "clip": "acme/clip"}
UNET = "unet/diffusion_pytorch_model.safetensors"


def use_hub(url, tmp_path, monkeypatch):
    """Make a server the hub, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def served(tiny_models, tmp_path, monkeypatch):
    """A hub of the tiny models, with files beside them that loading does not need, and an empty cache."""
    from huggingface_hub import constants

    folders = {IDS[part]: Path(shutil.copytree(tiny_models / part, tmp_path / "hub" / part)) for part in IDS}
    inpainting = folders[IDS["inpainting"]]
    for name in (
        "README.md",
        "v1-5-pruned.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "other/a.json",
    ):
        (inpainting / name).parent.mkdir(exist_ok=True)
        (inpainting / name).write_bytes(b"{}")
    for pickled in (inpainting / "unet/diffusion_pytorch_model.bin", folders[IDS["dino"]] / "pytorch_model.bin"):
        pickled.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with serving(folders) as server:
        use_hub(server.url, tmp_path, monkeypatch)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # what comes is kept in pieces of this size
        yield server


@pytest.fixture
def no_network(monkeypatch):
    """Every connection fails, also those to this machine."""

    def refuse(_socket, address, *_rest):
        raise OSError(f"the network is blocked: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def load(**options):
    return load_models(
        ModelOptions(models=IDS["inpainting"], dino=IDS["dino"], clip=IDS["clip"], device="cpu", **options)
    )


def downloaded(server: HubServer) -> set[str]:
    return {
        path.split("/resolve/")[1].split("/", 1)[1]
        for method, path, _ in server.requests
        if method == "GET" and "/resolve/" in path
    }


def test_what_loading_needs_is_downloaded_once_and_nothing_else(served, tmp_path):
    models = load()
    names = downloaded(served)
    assert {"model_index.json", UNET, "vae/config.json", "tokenizer/merges.txt", "model.safetensors"} <= names
    assert not [
        name
        for name in names
        if name.endswith((".bin", ".md")) or "fp16" in name or "pruned" in name or "other" in name
    ]
    assert models.names == {part: f"{name}@{served.commits[name]}" for part, name in IDS.items()}
    lock = json.loads((tmp_path / "home" / LOCK_NAME).read_text())
    assert {name: entry["commit"] for name, entry in lock.items()} == served.commits
    served.requests.clear()
    load()
    assert served.requests == []


@pytest.mark.parametrize("offline", [False, True])
def test_after_one_download_no_connection_is_tried(served, request, offline):
    first = load()
    request.getfixturevalue("no_network")
    again = load(offline=offline)
    assert again.names == first.names
    assert torch.allclose(again.clip.encode_text("a car"), first.clip.encode_text("a car"), atol=1e-6)


def test_later_loads_keep_to_the_commit_of_the_first(served):
    before = load().names["dino"]
    served.commits[IDS["dino"]] = "f" * 40  # the owner pushes
    assert load().names["dino"] == before


def test_a_commit_can_be_asked_for_and_an_unknown_one_is_one_line(served):
    commit = served.commits[IDS["dino"]]
    found = fetch_models(ModelOptions(models=IDS["inpainting"], dino=f"{IDS['dino']}@{commit}", clip=IDS["clip"]))
    assert found["dino"].name == f"{IDS['dino']}@{commit}"
    with pytest.raises(MasklessError, match="has no revision nowhere; name another, such as acme/dino@main"):
        fetch_models(ModelOptions(models=IDS["inpainting"], dino=f"{IDS['dino']}@nowhere", clip=IDS["clip"]))


def test_a_download_that_broke_off_goes_on_where_it_stopped(served, tiny_models):
    served.breaking.add(UNET)
    with pytest.raises(
        MasklessError, match="the download of acme/inpainting was interrupted .* continues where it stopped"
    ):
        load()
    with pytest.raises(
        MasklessError, match=r"was interrupted, \d+ of \d+ files are missing; run once without --offline"
    ):
        load(offline=True)
    assert hub.find([IDS["inpainting"]]) is None
    served.breaking.clear()
    served.requests.clear()
    models = load()
    ranges = [asked for method, path, asked in served.requests if method == "GET" and path.endswith(UNET)]
    assert len(ranges) == 1 and ranges[0] is not None and int(ranges[0][6:].split("-")[0]) > 0
    from_folder = load_models(ModelOptions(models=str(tiny_models), device="cpu")).inpainter.unet
    assert torch.equal(models.inpainter.unet.conv_in.weight, from_folder.conv_in.weight)


def test_mirrors_are_tried_in_order(served):
    assert hub.fetch(["gone/away", IDS["dino"]]).repo_id == IDS["dino"]
    served.requests.clear()
    assert hub.fetch(["gone/away", IDS["dino"]]).repo_id == IDS["dino"] and served.requests == []


def test_an_unknown_id_says_what_to_check(served):
    with pytest.raises(
        MasklessError, match="no model gone/away or gone/too at http://127.* check the spelling"
    ) as caught:
        hub.fetch(["gone/away", "gone/too"])
    assert "\n" not in str(caught.value)


def test_a_gated_model_says_where_to_accept_and_how_to_log_in(served):
    served.gated.add(IDS["clip"])
    with pytest.raises(
        MasklessError, match=f"accept its licence at {served.url}/acme/clip, log in with `hf auth login`"
    ):
        hub.fetch([IDS["clip"]])


def test_without_network_or_files_it_says_what_to_try(served, no_network):
    with pytest.raises(
        MasklessError, match="cannot download acme/dino from .* set HF_ENDPOINT to a mirror, or name a local"
    ):
        hub.fetch([IDS["dino"]])
    with pytest.raises(MasklessError, match="acme/dino is not on this disk and offline use is set"):
        hub.fetch([IDS["dino"]], offline=True)


def test_hf_hub_offline_is_honoured(served, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MasklessError, match="offline use is set"):
        hub.fetch([IDS["dino"]])
    assert served.requests == []


def test_pickles_need_to_be_allowed_or_converted_by_the_hub(served, tmp_path):
    folder = served.models[IDS["clip"]]
    safe = Path(shutil.copytree(folder, tmp_path / "converted"))
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        MasklessError, match="acme/clip has pytorch_model.bin, a pickle, .* --allow-pickle if you trust"
    ):
        load()
    served.converted[IDS["clip"]] = safe
    converted = load()
    assert converted.names["clip"] != f"{IDS['clip']}@{served.commits[IDS['clip']]}"
    (tmp_path / "home" / LOCK_NAME).unlink()
    allowed = load(allow_pickle=True)
    assert allowed.names["clip"] == f"{IDS['clip']}@{served.commits[IDS['clip']]}"
    assert torch.allclose(allowed.clip.encode_text("a car"), converted.clip.encode_text("a car"), atol=1e-6)


def test_a_snapshot_of_another_program_is_used_if_it_is_whole(served, tmp_path):
    for name in (IDS["dino"], IDS["inpainting"]):
        hub.fetch([name])
        storage = tmp_path / "home" / "hub" / f"models--{name.replace('/', '--')}"
        (storage / "refs").mkdir(exist_ok=True)
        (storage / "refs" / "main").write_text(served.commits[name])
    (tmp_path / "home" / LOCK_NAME).unlink()
    for name in (IDS["dino"], IDS["inpainting"]):
        assert hub.fetch([name], offline=True).commit == served.commits[name]
    shutil.rmtree(storage / "snapshots" / served.commits[name] / "vae")
    with pytest.raises(MasklessError, match="acme/inpainting is not on this disk"):
        hub.fetch([name], offline=True)


def test_a_damaged_lock_file_is_one_line(served, tmp_path):
    path = tmp_path / "home" / LOCK_NAME
    path.parent.mkdir(exist_ok=True)
    path.write_text("{")
    with pytest.raises(MasklessError, match=f"{LOCK_NAME} .*; delete it"):
        hub.fetch([IDS["dino"]])


UP_AND_OUT = [
    "../../../../evil",
    "/tmp/evil",
    "a/../../evil",
    "..",
    "C:\\evil",
    "a\\..\\evil",
    "evil\nfile",
    "unet/aux.json",
]


def listing(server: HubServer, repo_id: str, **changes: object) -> Answer:
    """What the server says of a repository, with some of its fields changed."""
    names = [{"rfilename": path.name} for path in server.models[repo_id].iterdir() if path.is_file()]
    about = {"id": repo_id, "sha": server.commits[repo_id], "siblings": names} | changes
    return Answer(body=json.dumps(about).encode())


def files_outside(tmp_path: Path) -> list[str]:
    """Files under the test's folder that are neither of the server nor of the cache."""
    roots = (tmp_path / "hub", tmp_path / "home")
    return [str(path) for path in tmp_path.rglob("*") if path.is_file() and not any(map(path.is_relative_to, roots))]


@pytest.mark.parametrize("etag", ["../../../../evil", "{tmp}/authorized_keys", "..", "a/b", "%2e%2e%2fevil", "0" * 64])
def test_an_etag_never_becomes_a_path(served, tmp_path, etag):
    """A mirror without hashes in its listing may send any ETag; a wrong hash is refused, anything else is no hash."""
    served.lists_hashes = False
    etag = etag.format(tmp=tmp_path)
    commit, content = served.commits[IDS["dino"]], (served.models[IDS["dino"]] / "model.safetensors").read_bytes()
    served.answers[f"{IDS['dino']}/resolve/{commit}/model.safetensors"] = Answer(
        headers={"ETag": f'"{etag}"', "X-Repo-Commit": commit}, body=content
    )
    if etag == "0" * 64:
        with pytest.raises(MasklessError, match="model.safetensors from .* is not the file that was expected"):
            hub.fetch([IDS["dino"]])
    else:
        assert (hub.fetch([IDS["dino"]]).folder / "model.safetensors").read_bytes() == content
    assert files_outside(tmp_path) == []
    blobs = [path.name for path in (tmp_path / "home").rglob("blobs/*")]
    assert blobs and all(set(name.split(".")[0]) <= set("0123456789abcdef") for name in blobs)


@pytest.mark.parametrize("name", UP_AND_OUT)
def test_a_name_that_leads_elsewhere_is_refused(served, tmp_path, name):
    """As the name of a file, as the commit, and as a part of a pipeline."""
    served.answers["api/models/acme/dino"] = listing(
        served, IDS["dino"], siblings=[{"rfilename": "config.json"}, {"rfilename": f"{name}.json"}]
    )
    if "/" not in name:  # a file in another folder than the root is never downloaded
        with pytest.raises(MasklessError, match="cannot be a path in the cache; nothing was written"):
            hub.fetch([IDS["dino"]])
    served.answers["api/models/acme/dino"] = listing(served, IDS["dino"], sha=name)
    with pytest.raises(MasklessError, match="does not name a commit and its files"):
        hub.fetch([IDS["dino"]])
    index = {"_class_name": "StableDiffusionInpaintPipeline", name: ["diffusers", "UNet2DConditionModel"]}
    commit = served.commits[IDS["inpainting"]]
    served.answers[f"{IDS['inpainting']}/resolve/{commit}/model_index.json"] = Answer(body=json.dumps(index).encode())
    if name != "unet/aux.json":
        with pytest.raises(MasklessError, match="cannot be a folder; nothing was read"):
            hub.fetch([IDS["inpainting"]])
    assert files_outside(tmp_path) == []


def test_a_revision_cannot_lead_out_of_the_cache():
    assert hub.is_hub_id("acme/dino@refs/pr/1") and not hub.is_hub_id("acme/dino@../../../etc")


def test_a_link_out_of_the_cache_is_not_followed(served, tmp_path):
    outside = tmp_path / "home" / "elsewhere"
    outside.mkdir(parents=True)
    storage = tmp_path / "home" / "hub" / "models--acme--dino"
    (storage / "snapshots").mkdir(parents=True)
    (storage / "snapshots" / served.commits[IDS["dino"]]).symlink_to(outside)
    with pytest.raises(MasklessError, match="leads out of the cache"):
        hub.fetch([IDS["dino"]])
    assert list(outside.iterdir()) == []


def test_weights_that_differ_by_one_bit_are_refused_and_downloaded_again(served, tmp_path):
    commit, name = served.commits[IDS["dino"]], "model.safetensors"
    content = bytearray((served.models[IDS["dino"]] / name).read_bytes())
    content[-1] ^= 1
    served.answers[f"{IDS['dino']}/resolve/{commit}/{name}"] = Answer(body=bytes(content))
    with pytest.raises(MasklessError, match="model.safetensors from .* was downloaded twice and deleted") as caught:
        hub.fetch([IDS["dino"]])
    assert "\n" not in str(caught.value)
    assert hub.find([IDS["dino"]]) is None and not list((tmp_path / "home").rglob(f"{name}"))
    assert not list((tmp_path / "home").rglob("*.maskless")), "the wrong content must not be continued"
    served.answers.clear()
    assert (hub.fetch([IDS["dino"]]).folder / name).is_file()


def test_a_damaged_file_in_the_cache_is_replaced_without_being_deleted_by_hand(served):
    folder = hub.fetch([IDS["dino"]]).folder
    whole = (folder / "model.safetensors").read_bytes()
    for damaged in (b"", whole[:-7], b"\xff" * len(whole)):
        (folder / "model.safetensors").resolve().write_bytes(damaged)
        assert load().names["dino"].startswith(IDS["dino"])
        assert (folder / "model.safetensors").read_bytes() == whole
    (folder / "model.safetensors").resolve().unlink()  # a link to nothing
    load()
    assert (folder / "model.safetensors").read_bytes() == whole


def test_files_of_another_program_in_the_cache_are_checked_once(served):
    """The lock file is new, so what lies in the cache is compared with the hashes that the hub lists."""
    folder = hub.fetch([IDS["dino"]]).folder
    cache.lock_path().unlink()
    whole = (folder / "config.json").read_bytes()
    (folder / "config.json").resolve().write_bytes(whole.replace(b"64", b"32"))
    hub.fetch([IDS["dino"]])
    assert (folder / "config.json").read_bytes() == whole


def test_the_lock_file_keeps_sizes_and_hashes_and_an_older_one_is_read(served):
    hub.fetch([IDS["dino"]])
    lock = json.loads(cache.lock_path().read_text())
    about = lock[IDS["dino"]]["files"]["model.safetensors"]
    assert (
        len(about["hash"]) == 64 and about["size"] == (served.models[IDS["dino"]] / "model.safetensors").stat().st_size
    )
    lock[IDS["dino"]]["files"] = sorted(lock[IDS["dino"]]["files"])
    cache.lock_path().write_text(json.dumps(lock))
    served.requests.clear()
    assert hub.fetch([IDS["dino"]]).commit == served.commits[IDS["dino"]] and served.requests == []


def test_a_pinned_commit_must_be_the_one_that_is_answered(served):
    served.answers["api/models/acme/dino"] = listing(served, IDS["dino"], sha="f" * 40)
    with pytest.raises(MasklessError, match="answers with another commit"):
        hub.fetch([f"{IDS['dino']}@{served.commits[IDS['dino']]}"])


def test_a_known_hash_counts_more_than_what_a_mirror_lists(served, monkeypatch):
    commit = served.commits[IDS["dino"]]
    monkeypatch.setitem(hub_listing.SHA256_OF, (commit, "model.safetensors"), "1" * 64)
    with pytest.raises(MasklessError, match="offers a model.safetensors whose hash is"):
        hub.fetch([IDS["dino"]])


def many_names() -> bytes:
    names = [{"rfilename": f"{number}.json"} for number in range(25_000)]
    return json.dumps({"sha": "a" * 40, "siblings": names}).encode()


HOSTILE_LISTINGS = {
    "gzip bomb": (Answer(headers={"Content-Encoding": "gzip"}, body=gzip.compress(b"0" * 50_000_000)), "compressed"),
    "too many names": (Answer(body=many_names()), "lists 25,000 files"),
    "too large": (Answer(body=b" " * (17 * 2**20)), "larger than 16 MB"),
    "HTML": (Answer(body=b"<html>sign in</html>"), "is not JSON"),
    "deeply nested": (Answer(body=b"[" * 100_000), "is not JSON"),
    "another type": (Answer(body=b'["a", 1]'), "does not name a commit"),
    "no names": (Answer(body=b'{"sha": "' + b"a" * 40 + b'", "siblings": [1, {"rfilename": 3}]}'), "no model that can"),
    "half an answer": (Answer(headers={"Content-Length": "9999"}, body=b"{", close=True), "cannot download"),
    "server error": (Answer(status=500, body=b"x" * 10_000_000), "cannot download"),
    "endless redirect": (Answer(status=302, headers={"Location": "/api/models/acme/dino"}), "cannot download"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE_LISTINGS)
def test_a_hostile_listing_is_one_line(served, tmp_path, kind):
    served.answers["api/models/acme/dino"], reason = HOSTILE_LISTINGS[kind]
    with pytest.raises(MasklessError, match=reason) as caught:
        hub.fetch([IDS["dino"]])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert files_outside(tmp_path) == []


def test_a_server_that_never_completes_a_file_is_asked_a_few_times_only(served, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE_SECONDS", 0)
    name = "model.safetensors"
    served.lists_hashes = False
    beginning = f"{IDS['dino']}/resolve/{served.commits[IDS['dino']]}/{name}"
    served.answers[beginning] = Answer(headers={"Content-Length": "5000000"}, body=b"0" * 20_000, close=True)
    with pytest.raises(MasklessError, match="continues where it stopped"):
        hub.fetch([IDS["dino"]])
    assert sum(method == "GET" and path.endswith(name) for method, path, _ in served.requests) == transfer.ATTEMPTS
    served.answers[beginning] = Answer(headers={"Content-Length": "40000000000000000"}, body=b"0", close=True)
    with pytest.raises(MasklessError, match=r"needs 40000000.0 GB, and .* GB left"):
        hub.fetch([IDS["dino"]])


def test_a_server_that_sends_more_than_it_listed_is_stopped(served, tmp_path):
    name, commit = "model.safetensors", served.commits[IDS["dino"]]
    whole = (served.models[IDS["dino"]] / name).read_bytes()
    served.answers[f"{IDS['dino']}/resolve/{commit}/{name}"] = Answer(body=whole + b"0" * 5_000_000)
    with pytest.raises(MasklessError, match="sends more than the .* bytes of model.safetensors"):
        hub.fetch([IDS["dino"]])
    assert not list((tmp_path / "home").rglob("*.maskless"))


def test_a_repository_with_fp16_weights_only_is_downloaded_and_loaded(served):
    """The UNet and DINO have only model.fp16.safetensors, the other parts have both."""
    plain = load_models(ModelOptions(models=IDS["inpainting"], dino=IDS["dino"], clip=IDS["clip"], device="cpu"))
    for folder, stem in (("inpainting/unet", "diffusion_pytorch_model"), ("dino", "model")):
        weights = served.models[IDS[folder.split("/")[0]]].parent / folder / f"{stem}.safetensors"
        weights.replace(weights.with_name(f"{stem}.fp16.safetensors"))
        weights.with_name("pytorch_model.bin").unlink(missing_ok=True)
        weights.with_name(f"{stem}.bin").unlink(missing_ok=True)
    cache.lock_path().unlink()
    shutil.rmtree(cache.lock_path().parent / "hub")
    models = load()
    assert torch.equal(models.inpainter.unet.conv_in.weight, plain.inpainter.unet.conv_in.weight)
    assert all(
        torch.equal(a, b) for a, b in zip(models.dino.model.parameters(), plain.dino.model.parameters(), strict=True)
    )


def test_where_no_links_can_be_made_every_file_lies_on_the_disk_once(served, tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise OSError("links are not supported")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    load()
    copies = [path for path in (tmp_path / "home" / "hub").rglob("*") if path.is_file() and path.suffix != ".lock"]
    names = {path.relative_to(folder).as_posix() for folder in served.models.values() for path in folder.rglob("*")}
    assert copies and all("blobs" not in path.parts for path in copies)
    assert {
        path.relative_to(path.parents[len(path.parts) - path.parts.index("snapshots") - 3]).as_posix()
        for path in copies
    } <= names
    load(offline=True)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense://x", "::::"])
def test_a_proxy_that_cannot_be_used_is_one_line(served, monkeypatch, proxy):
    from huggingface_hub.utils import close_session

    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)
    close_session()
    try:
        with pytest.raises(
            MasklessError, match="ALL_PROXY, HTTPS_PROXY or HTTP_PROXY names a|cannot download"
        ) as caught:
            hub.fetch([IDS["dino"]])
        assert "\n" not in str(caught.value)
    finally:
        close_session()


@pytest.mark.slow
def test_the_command_line_downloads_resumes_and_then_needs_no_network(tmp_path):
    """The bundled models through HF_ENDPOINT, in processes with a home of their own."""
    shard = sorted((STORYBOOK / "inpainting" / "unet").glob("*.safetensors"))[0].name
    Image.open(sorted((STORYBOOK.parent / "samples").glob("*.png"))[0]).save(tmp_path / "scene.png")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(*arguments):\n"
        "    raise SystemExit('a connection was tried')\n"
        "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse\n"
    )

    def run(url: str, *more: str, path: str = "") -> subprocess.CompletedProcess:
        ids = ["--models", IDS["inpainting"], "--dino", IDS["dino"], "--clip", IDS["clip"]]
        quick = ["--iterations", "1", "--anchors", "2", "--steps", "1", "--views", "1", "--device", "cpu", "--json"]
        environment = os.environ | {
            "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([*([path] if path else []), str(Path(hub.__file__).parents[2])]),
        }  # fmt: skip
        for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
            environment.pop(name, None)
        edit = ["edit", "scene.png", "-c", "a car", "-p", "a house", *ids, *quick, *more]
        command = [sys.executable, "-m", "maskless", *edit]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    with serving({IDS[part]: STORYBOOK / part for part in IDS}) as server:
        server.breaking.add(f"unet/{shard}")
        broken = run(server.url)
        assert (
            broken.returncode == 2 and "continues where it stopped" in broken.stderr and broken.stderr.count("\n") == 1
        )
        server.breaking.clear()
        server.requests.clear()
        whole = run(server.url)
        assert whole.returncode == 0, whole.stderr
        resumed = [asked for method, path, asked in server.requests if method == "GET" and path.endswith(shard)]
        assert len(resumed) == 1 and resumed[0] is not None and resumed[0] != "bytes=0-"
    offline = run("http://127.0.0.1:9", path=str(blocked))
    assert offline.returncode == 0, offline.stderr
    assert json.loads(offline.stdout)["order"] == json.loads(whole.stdout)["order"]


@pytest.fixture
def served_gguf(family_folder, tmp_path, monkeypatch):
    """A hub with a FLUX pipeline, with a UNet's, and with GGUF files of the transformer; and an empty cache."""
    pytest.importorskip("gguf")

    from tiny_gguf import transformer_weights, write_gguf

    files = tmp_path / "hub" / "gguf"
    files.mkdir(parents=True)
    for kind in ("Q8_0", "Q4_0"):
        write_gguf(files / f"flux1-{kind}.gguf", transformer_weights(family_folder("flux")), kind=kind)
    folders = {"acme/flux": family_folder("flux"), "acme/sd": family_folder("sd"), "acme/flux-gguf": files}
    with serving(folders) as server:
        use_hub(server.url, tmp_path, monkeypatch)
        yield server


def gguf_options(models: str, transformer: str | None, **options) -> ModelOptions:
    encoders = {"dino": str(STORYBOOK / "dino"), "clip": str(STORYBOOK / "clip")}
    return ModelOptions(models=models, transformer=transformer, device="cpu", **encoders, **options)


def test_a_gguf_file_of_the_hub_takes_the_place_of_weights_that_are_not_downloaded(served_gguf):
    source = "acme/flux-gguf/flux1-Q4_0.gguf"
    models = load_models(gguf_options("acme/flux", source))
    assert models.names["transformer"] == source
    names = downloaded(served_gguf)
    assert {"flux1-Q4_0.gguf", "transformer/config.json", "vae/diffusion_pytorch_model.safetensors"} <= names
    assert not {"flux1-Q8_0.gguf", "transformer/diffusion_pytorch_model.safetensors"} & names
    served_gguf.requests.clear()
    load_models(gguf_options("acme/flux", source, offline=True))
    assert served_gguf.requests == []
    load_models(gguf_options("acme/flux", None))  # later, with its own weights: they are downloaded then
    assert downloaded(served_gguf) == {"model_index.json", "transformer/diffusion_pytorch_model.safetensors"}
    served_gguf.requests.clear()
    load_models(gguf_options("acme/flux", source))
    assert served_gguf.requests == []


def test_a_gguf_file_that_does_not_fit_is_refused_before_the_weights_are_downloaded(served_gguf):
    with pytest.raises(MasklessError, match="StableDiffusionPipeline in .* has a UNet"):
        fetch_models(gguf_options("acme/sd", "acme/flux-gguf/flux1-Q4_0.gguf"))
    assert not [name for name in downloaded(served_gguf) if name.endswith(".safetensors")]


def test_a_gguf_file_that_is_not_there_or_damaged_on_the_way_is_one_line(served_gguf):
    with pytest.raises(MasklessError, match=r"acme/flux-gguf has no flux1-Q2_K.gguf; it has flux1-Q4_0.gguf, flux1-Q8"):
        fetch_models(gguf_options("acme/flux", "acme/flux-gguf/flux1-Q2_K.gguf"))
    with pytest.raises(MasklessError, match="flux1-Q8_0.gguf is not on this disk and offline use is set"):
        fetch_models(gguf_options("acme/flux", "acme/flux-gguf/flux1-Q8_0.gguf", offline=True))
    commit = served_gguf.commits["acme/flux-gguf"]
    path = f"acme/flux-gguf/resolve/{commit}/flux1-Q8_0.gguf"
    size = (served_gguf.models["acme/flux-gguf"] / "flux1-Q8_0.gguf").stat().st_size
    served_gguf.answers[path] = Answer(headers={"Content-Length": str(size)}, body=bytes(size))
    with pytest.raises(MasklessError, match="flux1-Q8_0.gguf from .* is not the file that was expected: its hash is"):
        fetch_models(gguf_options("acme/flux", "acme/flux-gguf/flux1-Q8_0.gguf"))


def test_one_command_prints_the_hashes_of_the_presets(served, monkeypatch, capsys):
    """`python docs/pin_models.py`, with models of this server as the presets."""
    spec = importlib.util.spec_from_file_location("pin_models", Path(__file__).parents[2] / "docs/pin_models.py")
    pin_models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pin_models)
    commit = served.commits[IDS["inpainting"]]
    monkeypatch.setattr(pin_models, "PINNED", {IDS["inpainting"]: commit})
    assert pin_models.main([IDS["inpainting"], IDS["dino"]]) == 0
    printed = capsys.readouterr().out
    unpinned = f'    "{IDS["dino"]}": "{served.commits[IDS["dino"]]}",  # an entry of PINNED\n'
    assert unpinned in printed
    table = ast.literal_eval("{" + printed.replace(unpinned, "") + "}")
    weights = served.models[IDS["inpainting"]] / UNET
    assert table[(commit, UNET)] == hashlib.sha256(weights.read_bytes()).hexdigest()
    parts = {"unet", "vae", "text_encoder"}
    assert {name for found, name in table if found == commit} == {
        name for part in parts for name in downloadable(served.models[IDS["inpainting"]], part)
    }
    assert not [path for _method, path, _range in served.requests if path.endswith(".safetensors")]
    monkeypatch.setattr(hub_listing, "SHA256_OF", {(commit, UNET): "0" * 64})
    assert pin_models.main([IDS["inpainting"], "acme/none"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "acme/inpainting: " in errors[0] and f"not {'0' * 64}" in errors[0]
    assert "acme/none: " in errors[1]


def downloadable(folder: Path, part: str) -> list[str]:
    """The weights of a part that loading needs."""
    return [f"{part}/{path.name}" for path in (folder / part).glob("*.safetensors") if "fp16" not in path.name]


def test_a_modular_pipeline_is_downloaded_without_code(served, tmp_path):
    folder = build_modular_family("flux2-klein", tmp_path / "modular")
    (folder / "block.py").write_text("raise SystemExit")
    served.models["acme/modular"] = folder
    served.commits["acme/modular"] = hashlib.sha1(b"acme/modular").hexdigest()
    parts = fetch_models(ModelOptions(models="acme/modular", dino=IDS["dino"], clip=IDS["clip"]))
    names = downloaded(served)
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert {"modular_model_index.json", weights, "tokenizer/vocab.json"} <= names and "block.py" not in names
    pipeline = load_pipeline(str(parts["inpainting"].path))
    assert type(pipeline).__name__ == "Flux2KleinModularPipeline" and pipeline.transformer is not None
