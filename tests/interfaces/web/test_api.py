"""Edits as jobs over HTTP: started, followed, cancelled; their files; and what is refused."""

import io
import json
import zipfile

import numpy as np
from PIL import Image

from maskless.data.picture import load_image
from served import QUICK, WORDS, finished, png


def start(client, picture: bytes, **options):
    return client.post(
        "/v1/edits",
        files={"image": ("scene.png", picture)},
        data={"options": json.dumps({**WORDS, **QUICK, **options})},
    )


def test_an_edit_is_accepted_made_and_its_picture_keeps_every_pixel_outside(client, noisy_png, tmp_path):
    started = start(client, noisy_png)
    assert started.status_code == 202, started.text
    job = finished(client, started.json()["links"]["self"])
    assert job["state"] == "done", job
    assert job["progress"]["step"] == job["progress"]["total_steps"] == 2
    (tmp_path / "edited.png").write_bytes(client.get(job["links"]["image"]).content)
    before, after = np.asarray(Image.open(io.BytesIO(noisy_png))), load_image(tmp_path / "edited.png").pixels
    mask = np.asarray(Image.open(io.BytesIO(client.get(job["links"]["region"]).content))) > 0
    x0, y0, x1, y1 = job["result"]["region"]["box_xyxy"]
    assert mask[y0:y1, x0:x1].all() and mask.sum() == (x1 - x0) * (y1 - y0)
    assert (before[~mask] == after[~mask]).all() and (before[mask] != after[mask]).any()


def test_the_files_of_an_edit(client, noisy_png):
    job = finished(client, start(client, noisy_png).json()["links"]["self"])
    links = job["links"]
    assert client.get(links["source"]).content == noisy_png
    second = client.get(links["image"], params={"rank": 2, "download": True})
    assert second.headers["content-disposition"].startswith("attachment") and second.content.startswith(b"\x89PNG")
    small = Image.open(io.BytesIO(client.get(links["image"], params={"longest": 60}).content))
    assert small.size == (60, 36)
    assert b"a blue house" in client.get(links["report"]).content
    for part in (f"{links['self']}/maps/attention", f"{links['self']}/previews/1", links["overview"]):
        assert client.get(part).content.startswith(b"\x89PNG"), part
    with zipfile.ZipFile(io.BytesIO(client.get(links["zip"]).content)) as archive:
        names = archive.namelist()
        assert {"source.png", "result.json", "report.html", "results/final_output.png"} <= set(names)
        kept = b"".join(archive.read(name) for name in names)
    assert str(client.app).encode() not in kept and b"/served/" not in kept  # no folder of the server
    for missing in (f"{links['image']}?rank=99", f"{links['self']}/previews/99", "/v1/edits/nothing", "/v1/edits/.."):
        assert client.get(missing).status_code == 404, missing


def test_events_end_with_the_state_in_which_the_edit_ends(client, noisy_png):
    job = start(client, noisy_png).json()
    with client.stream("GET", job["links"]["events"]) as stream:
        lines = [line for line in stream.iter_lines() if line]
    events = [(lines[at].removeprefix("event: "), json.loads(lines[at + 1][6:])) for at in range(0, len(lines), 2)]
    assert [name for name, _data in events][-1] == "done"
    assert {name for name, _data in events} <= {"queued", "running", "done"}
    steps = [data["progress"]["step"] for _name, data in events]
    assert steps == sorted(steps) and steps[-1] == 2


def test_delete_cancels_an_edit_and_later_deletes_it(client, jobs, noisy_png):
    job = start(client, noisy_png, iterations=200, epochs=20).json()
    address = job["links"]["self"]
    assert client.delete(address).status_code == 200
    assert finished(client, address)["state"] == "cancelled"
    assert client.get(f"{address}/image").status_code == 404
    folder = jobs.folder / job["id"]
    assert folder.exists() and client.delete(address).status_code == 200
    assert not folder.exists() and client.get(address).status_code == 404


def test_a_full_queue_says_when_to_try_again_and_takes_edits_again_later(client, jobs, noisy_png):
    long = [start(client, noisy_png, iterations=200, epochs=20) for _ in range(6)]
    refused = [answer for answer in long if answer.status_code == 429]
    assert refused and int(refused[0].headers["retry-after"]) >= 1
    assert "waiting" in refused[0].json()["error"]["message"]
    for answer in long:
        if answer.status_code == 202:
            client.delete(answer.json()["links"]["self"])
    accepted = start(client, noisy_png)
    assert accepted.status_code == 202 and finished(client, accepted.json()["links"]["self"])["state"] == "done"


def test_what_makes_no_edit_is_refused_with_one_line_before_anything_is_queued(client, jobs, noisy_png):
    def refusal(options, picture=noisy_png, **files) -> tuple[int, str]:
        files = {"image": ("scene.png", picture), **files}
        answer = client.post("/v1/edits", files=files, data={"options": options})
        return answer.status_code, answer.json()["error"]["message"]

    for options, words in (
        ("[]", "options must be a JSON object"),
        ("{", "options must be a JSON object"),
        ('{"prompt": "a tent", "lr": "fast"}', "lr must be a number"),
        ('{"prompt": "a tent", "anchors": 1000}', "anchors must be at most 64 on this server"),
        ('{"prompt": "a tent", "models": "sd15"}', "unknown field 'models'"),
        ('{"prompt": "a tent", "output_dir": "x"}', "unknown field 'output_dir'"),
        ('{"prompt": "a tent", "box": "0,0,999,999"}', "box must be X0,Y0,X1,Y1"),
        ('{"caption": ["a"], "prompt": "a tent"}', "caption must be a string"),
        ('{"task": "remove"}', "needs a location"),
        ("{}", "prompt must not be empty"),
        (json.dumps({"prompt": "x" * 3000}), "at most 2000 letters"),
        ('{"instruction": "fly to the moon"}', "cannot understand the instruction"),
    ):
        status, message = refusal(options)
        assert status == 400 and words in message and "\n" not in message, (options, status, message)
    assert refusal('{"prompt": "a tent"}', b"<svg xmlns='http://www.w3.org/2000/svg'/>")[0] == 415
    assert refusal('{"prompt": "a tent"}', noisy_png[:200])[0] in (400, 415)
    status, message = refusal('{"prompt": "a tent"}', mask=("mask.png", png(np.zeros((32, 32), np.uint8))))
    assert status == 400 and "mask must be of the picture's size" in message
    assert client.post("/v1/edits", data={"options": "{}"}).status_code == 400
    assert jobs.waiting == 0 and not jobs.is_running
    assert [path.name for path in jobs.folder.iterdir()] == [".lock"]  # and nothing is left on the disk


def test_words_stay_words_in_pages_and_names(client, noisy_png):
    evil = '"><script>alert(1)</script>/../../etc\r\nSet-Cookie: a=b'
    job = finished(client, start(client, noisy_png, prompt=evil).json()["links"]["self"])
    assert job["state"] == "done", job
    assert b"<script>alert" not in client.get(job["links"]["report"]).content
    named = client.get(job["links"]["image"]).headers["content-disposition"]
    assert "/" not in named.split("filename")[1].replace("utf-8''", "") and "\n" not in named


def test_health_metrics_and_documentation(client, noisy_png):
    finished(client, start(client, noisy_png).json()["links"]["self"])
    assert client.get("/healthz").json() == {"status": "ok"}
    metrics = client.get("/metrics").text
    assert 'maskless_edits_total{state="done"} 1.0' in metrics and "maskless_waiting 0.0" in metrics
    docs = client.get("/docs").text
    assert "/v1/images/edits" in docs and "from openai import OpenAI" in docs
    assert "src=" not in docs and '<link rel="stylesheet"' not in docs  # loads nothing
    assert "/v1/edits/{id}" in client.get("/openapi.json").json()["paths"]


def test_what_is_being_drawn_can_be_had_while_it_is(client, jobs, noisy_png):
    job = finished(client, start(client, noisy_png).json()["links"]["self"])
    address = f"{job['links']['self']}/drawing"
    assert job["progress"]["drawings"] == 0 and client.get(address).status_code == 404
    jobs.get(job["id"]).show(b"\x89PNG and more", 0.5)
    answer = client.get(address)
    assert answer.content == b"\x89PNG and more" and answer.headers["content-type"] == "image/png"
    assert (
        answer.headers["cache-control"] == "no-store"
        and client.get(job["links"]["self"]).json()["progress"]["drawings"] == 1
    )
