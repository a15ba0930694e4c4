"""Downloads from a hub, here a small server on this machine: once, at one commit, resumed, and never again."""

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

from hub_server import HubServer, serving
from maskless.data.config import ModelOptions
from maskless.data.errors import MasklessError
from maskless.models import hub
from maskless.models.pretrained import fetch_models, load_models

STORYBOOK = Path(str(resources.files("maskless"))) / "assets" / "storybook"
IDS = {"inpainting": "acme/inpainting", "dino": "acme/dino", "clip": "acme/clip"}
UNET = "unet/diffusion_pytorch_model.safetensors"


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
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # what comes is kept in pieces of this size
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
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
    lock = json.loads((tmp_path / "home" / hub.LOCK_NAME).read_text())
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
    (tmp_path / "home" / hub.LOCK_NAME).unlink()
    allowed = load(allow_pickle=True)
    assert allowed.names["clip"] == f"{IDS['clip']}@{served.commits[IDS['clip']]}"
    assert torch.allclose(allowed.clip.encode_text("a car"), converted.clip.encode_text("a car"), atol=1e-6)


def test_a_snapshot_of_another_program_is_used_if_it_is_whole(served, tmp_path):
    for name in (IDS["dino"], IDS["inpainting"]):
        hub.fetch([name])
        storage = tmp_path / "home" / "hub" / f"models--{name.replace('/', '--')}"
        (storage / "refs").mkdir(exist_ok=True)
        (storage / "refs" / "main").write_text(served.commits[name])
    (tmp_path / "home" / hub.LOCK_NAME).unlink()
    for name in (IDS["dino"], IDS["inpainting"]):
        assert hub.fetch([name], offline=True).commit == served.commits[name]
    shutil.rmtree(storage / "snapshots" / served.commits[name] / "vae")
    with pytest.raises(MasklessError, match="acme/inpainting is not on this disk"):
        hub.fetch([name], offline=True)


def test_a_damaged_lock_file_is_one_line(served, tmp_path):
    path = tmp_path / "home" / hub.LOCK_NAME
    path.parent.mkdir(exist_ok=True)
    path.write_text("{")
    with pytest.raises(MasklessError, match=f"{hub.LOCK_NAME} .*; delete it"):
        hub.fetch([IDS["dino"]])


def test_files_are_chosen_by_what_loading_needs():
    unet = "unet/diffusion_pytorch_model"
    names = [
        "model_index.json", "README.md", "sd.safetensors", "sd.ckpt", "scheduler/scheduler_config.json",
        "unet/config.json", f"{unet}.safetensors.index.json", f"{unet}-00001-of-00002.safetensors",
        f"{unet}-00002-of-00002.safetensors", f"{unet}.fp16.safetensors", f"{unet}.safetensors.index.fp16.json",
        f"{unet}.bin", f"{unet}.fp16-00001-of-00002.safetensors", "unet/diffusion_flax_model.msgpack",
        "text_encoder/model.safetensors", "tokenizer/vocab.json", "tokenizer/spiece.model",
        "safety_checker/model.safetensors",
    ]  # fmt: skip
    components = ["scheduler", "unet", "text_encoder", "tokenizer"]
    chosen = hub.choose_files(names, components, settings_only=False)
    assert [names.index(name) for name in chosen] == [0, 4, 5, 6, 7, 8, 14, 15, 16]
    assert hub.pickled_folders(names, chosen, components) == []
    settings = hub.choose_files(names, components, settings_only=True)
    assert [name for name in settings if name.endswith(".safetensors")] == []
    assert hub.pickled_folders(["pytorch_model.bin", "model.fp16.bin"], ["config.json"], None) == ["pytorch_model.bin"]


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
