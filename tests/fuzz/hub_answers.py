"""Answers of a hostile or broken hub, chosen by a seed: each download must succeed with the right bytes, or be refused
in one line, with nothing outside of the cache and a bounded number of requests."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hub_server import Answer, HubServer, serving

REPOSITORY = "acme/model"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
MAX_REQUESTS = 60
NAMES = [
    "../../../../evil.json", "/tmp/evil.json", "..", "a/../../evil.json", "C:\\evil.json", "con.json", "x\n.json",
    "\x1b[2J.json", "a" * 300 + ".json", "/".join("ab" * 10) + ".json", "é.json", "", "unet/../../../x.safetensors",
    "~/.ssh/authorized_keys.json", ".json", "config.json/x.json",
]  # fmt: skip
ETAGS = [
    "../../../../evil",
    "/tmp/evil",
    "..",
    "",
    '"',
    "W/x",
    "0" * 64,
    "0" * 40,
    "a" * 10**4,
    "%2e%2e%2fevil",
    "\x7f",
]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one hub. problem: what is wrong with it; empty if it held."""

    answers: str
    message: str
    problem: str = ""

    @property
    def held(self) -> bool:
        return not self.problem


def build_repository(folder: Path) -> Path:
    """A small pipeline of two parts, as a hub has it. The files need not be loadable, only downloadable."""
    for name, content in {
        "model_index.json": b'{"_class_name": "StableDiffusionInpaintPipeline", "unet": ["diffusers", "X"]}',
        "unet/config.json": b'{"a": 1}',
        WEIGHTS: bytes(range(256)) * 200,
        "README.md": b"# a model",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def attempt(work: Path, seed: int) -> Outcome:
    """Download from a hub with one to three strange answers, and judge what came of it."""
    from maskless.data.errors import MasklessError
    from maskless.models import hub

    chance = random.Random(seed)
    repository = build_repository(work / "hub")
    whole = {
        path.relative_to(repository).as_posix(): path.read_bytes() for path in repository.rglob("*.*") if path.is_file()
    }
    with serving({REPOSITORY: repository}) as server, _client_of(server, work / "home"):
        answers = "; ".join(chance.choice(STRANGE)(server, chance) for _ in range(chance.choice([1, 1, 2, 3])))
        message, problem = "", ""
        try:
            folder = hub.fetch([REPOSITORY]).folder
        except MasklessError as error:
            message = str(error)
            if "\n" in message or not message.isprintable() or len(message) > 1500:
                problem = f"not one line: {message[:200]!r}"
        except BaseException as error:
            problem = f"{type(error).__name__}: {error}"[:300]
        else:
            if server.lists_hashes and (folder / WEIGHTS).read_bytes() != whole[WEIGHTS]:
                problem = "other weights than those of the listed hash were accepted"
        if len(server.requests) > MAX_REQUESTS:
            problem = f"{len(server.requests)} requests"
    outside = _outside(work)
    if outside:
        problem = f"files outside of the cache: {outside}"
    shutil.rmtree(work, ignore_errors=True)
    return Outcome(answers=answers, message=message, problem=problem)


def _outside(work: Path) -> list[str]:
    """Files that are neither of the server, nor in the cache, nor the lock file beside it."""
    home = work / "home"
    allowed = (work / "hub", home / "hub" / "models--acme--model", home / "maskless.lock.json")
    found = [str(path) for path in work.rglob("*") if path.is_file() and not any(map(path.is_relative_to, allowed))]
    return found + [
        str(path) for path in (Path("/tmp/evil"), Path("/tmp/evil.json"), Path("/tmp/evil.lock")) if path.exists()
    ]


@contextmanager
def _client_of(server: HubServer, home: Path) -> Iterator[None]:
    """The hub's client with this server, an empty cache and no pauses."""
    from huggingface_hub import constants

    from maskless.models import transfer

    changed = {
        "ENDPOINT": server.url, "HF_HUB_CACHE": str(home / "hub"), "HF_HUB_OFFLINE": False,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
    }  # fmt: skip
    before = {name: getattr(constants, name) for name in changed}
    pause = transfer.PAUSE_SECONDS
    try:
        transfer.PAUSE_SECONDS = 0
        for name, value in changed.items():
            setattr(constants, name, value)
        yield
    finally:
        transfer.PAUSE_SECONDS = pause
        for name, value in before.items():
            setattr(constants, name, value)


def _about(server: HubServer) -> dict[str, object]:
    folder = server.models[REPOSITORY]
    siblings = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        facts: dict[str, object] = {"rfilename": path.relative_to(folder).as_posix(), "size": len(content)}
        if path.suffix == ".safetensors":
            facts["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        siblings.append(facts)
    return {"id": REPOSITORY, "sha": server.commits[REPOSITORY], "siblings": siblings}


def _listing(server: HubServer, content: object) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    server.answers[f"api/models/{REPOSITORY}"] = Answer(body=body)


def _odd_name(server: HubServer, chance: random.Random) -> str:
    about, name = _about(server), chance.choice(NAMES)
    assert isinstance(about["siblings"], list)
    about["siblings"].insert(chance.randrange(4), {"rfilename": name, "size": 3})
    _listing(server, about)
    return f"lists {name!r:.40}"


def _odd_commit(server: HubServer, chance: random.Random) -> str:
    commit = chance.choice(["../../x", "main", "", None, 7, "f" * 39, "g" * 40, ["a"], "f" * 40])
    _listing(server, _about(server) | {"sha": commit})
    return f"commit {commit!r}"


def _odd_facts(server: HubServer, chance: random.Random) -> str:
    about = _about(server)
    assert isinstance(about["siblings"], list)
    facts = chance.choice(
        [{"size": 4 * 10**10}, {"size": -1}, {"size": "x"}, {"size": 10**30}, {"lfs": 3},
         {"lfs": {"sha256": "../../x"}}, {"lfs": {"sha256": "0" * 64}}, {"blobId": "0" * 40, "lfs": None},
         {"lfs": {"size": 10**13, "sha256": "0" * 64}}, {"rfilename": None}, {"rfilename": ["a"]},
         {"size": None, "lfs": None}]
    )  # fmt: skip
    about["siblings"][chance.randrange(len(about["siblings"]))].update(facts)
    _listing(server, about)
    return f"facts {facts!r:.60}"


def _odd_listing(server: HubServer, chance: random.Random) -> str:
    kind, body = chance.choice(
        [("HTML", b"<html>"), ("nested", b"[" * 10**5), ("empty", b""), ("names", _many_names()),
         ("large", b" " * 17 * 2**20), ("list", b"[1]"), ("null", b"null"),
         ("siblings", b'{"sha": "' + b"a" * 40 + b'", "siblings": [3, null, {}]}'),
         ("bytes", b"\xff\xfe"), ("digits", b"9" * 10**4)]
    )  # fmt: skip
    _listing(server, body)
    return f"listing: {kind}"


def _many_names() -> bytes:
    return json.dumps(
        {"sha": "a" * 40, "siblings": [{"rfilename": f"{number}.json"} for number in range(30_000)]}
    ).encode()


def _odd_index(server: HubServer, chance: random.Random) -> str:
    parts = chance.choice([*({name: ["a", "b"]} for name in NAMES), [1], "x", None, {"unet": [[]]}, {"unet": []}])
    server.answers[f"{REPOSITORY}/resolve/{server.commits[REPOSITORY]}/model_index.json"] = Answer(
        body=json.dumps(parts).encode()
    )
    return f"index {parts!r:.50}"


def _odd_etag(server: HubServer, chance: random.Random) -> str:
    server.lists_hashes = False
    etag, commit = chance.choice(ETAGS), server.commits[REPOSITORY]
    content = (server.models[REPOSITORY] / WEIGHTS).read_bytes()
    headers = {"X-Repo-Commit": commit, chance.choice(["ETag", "X-Linked-ETag"]): f'"{etag}"'}
    server.answers[f"{REPOSITORY}/resolve/{commit}/{WEIGHTS}"] = Answer(headers=headers, body=content)
    return f"ETag {etag!r:.30}"


def _odd_content(server: HubServer, chance: random.Random) -> str:
    commit = server.commits[REPOSITORY]
    name = chance.choice([WEIGHTS, WEIGHTS, "unet/config.json"])
    content = (server.models[REPOSITORY] / name).read_bytes()
    flipped = bytearray(content)
    flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    kind, answer = chance.choice(
        [("flipped bit", Answer(body=bytes(flipped))), ("cut", Answer(body=content[:-3])),
         ("longer", Answer(body=content + b"x" * 10**6)), ("empty", Answer()),
         ("claims more", Answer(headers={"Content-Length": str(10**9)}, body=content[:9], close=True)),
         ("gzip", Answer(headers={"Content-Encoding": "gzip"}, body=gzip.compress(content))),
         ("bomb", Answer(headers={"Content-Encoding": "gzip"}, body=gzip.compress(b"0" * 10**7))),
         ("HTML", Answer(body=b"<html>sign in</html>", headers={"Content-Type": "text/html"})),
         ("wrong range", Answer(status=206, headers={"Content-Range": "bytes 7-9/10"}, body=content)),
         ("no range", Answer(status=416)),
         ("length", Answer(headers={"Content-Length": "-5"}, body=content, close=True))]
    )  # fmt: skip
    server.answers[f"{REPOSITORY}/resolve/{commit}/{name}"] = answer
    return f"{name}: {kind}"


def _odd_status(server: HubServer, chance: random.Random) -> str:
    beginning = chance.choice([f"api/models/{REPOSITORY}", f"{REPOSITORY}/resolve"])
    status = chance.choice([301, 302, 307, 401, 403, 404, 408, 418, 429, 451, 500, 502, 503])
    where = chance.choice(
        ["/" + beginning, "http://127.0.0.1:9/x", "file:///etc/passwd", "//[", "", "ftp://x/y", "http://\x7f/"]
    )
    headers = {"Location": where} if status < 400 else {"X-Error-Message": "\x1b[2Jx", "Retry-After": "99999"}
    server.answers[beginning] = Answer(status=status, headers=headers, body=b"x" * 10**6)
    return f"{beginning}: {status} {where if status < 400 else ''}"


STRANGE: list[Callable[[HubServer, random.Random], str]] = [
    _odd_name, _odd_commit, _odd_facts, _odd_listing, _odd_index, _odd_etag, _odd_content, _odd_content, _odd_status,
]  # fmt: skip
