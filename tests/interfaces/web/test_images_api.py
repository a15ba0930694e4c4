"""The endpoint of image APIs, by OpenAI's own client."""

import base64
import io
import threading
import time

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from maskless.data.result import DrawnStep, StepRecord
from maskless.interfaces.jobs.job import Job
from maskless.interfaces.jobs.spec import EditSpec
from maskless.interfaces.web import images_api
from served import QUICK, WORDS, png


@pytest.fixture
def openai_client(server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def picture(data) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.b64_json))))


def test_the_clients_edit_keeps_every_pixel_outside_the_region_that_was_found(openai_client, noisy_png):
    answer = openai_client.images.edit(
        image=("scene.png", noisy_png), prompt=WORDS["prompt"], n=2, extra_body={"caption": WORDS["caption"], **QUICK}
    )
    assert len(answer.data) == 2 and answer.output_format == "png" and answer.size == "120x72"
    before = np.asarray(Image.open(io.BytesIO(noisy_png)))
    for data in answer.data:
        x0, y0, x1, y1 = data.model_extra["region"]["box_xyxy"]
        differs = (picture(data) != before).any(axis=2)
        assert differs.any() and differs[y0:y1, x0:x1].sum() == differs.sum()
    assert answer.model_extra["region"] == answer.data[0].model_extra["region"]
    assert answer.model_extra["score"] >= answer.data[1].model_extra["score"]
    assert len(answer.model_extra["candidates"]) == 2 and "rank" in answer.model_extra["candidates"][0]


def test_a_prompt_alone_is_an_instruction_or_a_description(openai_client, noisy_png):
    told = openai_client.images.edit(
        image=[noisy_png], prompt="replace the red square with a blue house", extra_body=QUICK, size="120x72"
    )
    assert told.model_extra["task"] == "replace" and told.model_extra["caption"] == "the red square"
    described = openai_client.images.edit(image=noisy_png, prompt="a blue house on a hill", extra_body=QUICK)
    assert described.model_extra["caption"] == "" and described.model_extra["prompt"] == "a blue house on a hill"


def test_a_mask_is_transparent_where_to_edit(openai_client, noisy_png):
    alpha = np.full((72, 120, 4), 255, np.uint8)
    alpha[10:40, 10:40, 3] = 0
    answer = openai_client.images.edit(image=noisy_png, mask=png(alpha), prompt="a blue house", extra_body={"steps": 1})
    assert answer.model_extra["region"]["box_xyxy"] == [10, 10, 40, 40]


def test_the_stream_has_previews_and_then_the_picture(openai_client, noisy_png):
    events = list(
        openai_client.images.edit(
            image=noisy_png, prompt="a blue house", stream=True, partial_images=2, extra_body={**QUICK, "iterations": 4}
        )
    )
    kinds = [event.type for event in events]
    assert kinds[-1] == "image_edit.completed" and set(kinds[:-1]) == {"image_edit.partial_image"} and len(kinds) <= 3
    assert [event.partial_image_index for event in events[:-1]] == list(range(len(events) - 1))
    assert picture(events[-1]).shape == (72, 120, 3) and picture(events[0]).shape[2] == 3
    assert events[-1].model_extra["region"]["box_xyxy"]


def test_formats_and_addresses(openai_client, server, noisy_png):
    for kind, opening in (("jpeg", b"\xff\xd8"), ("webp", b"RIFF")):
        answer = openai_client.images.edit(image=noisy_png, prompt="a tent", output_format=kind, extra_body=QUICK)
        assert base64.b64decode(answer.data[0].b64_json).startswith(opening)
    answer = openai_client.images.edit(image=noisy_png, prompt="a tent", response_format="url", extra_body=QUICK)
    assert httpx.get(answer.data[0].url).content.startswith(b"\x89PNG")
    large = openai_client.images.edit(image=noisy_png, prompt="a tent", size="240x144", extra_body=QUICK)
    assert picture(large.data[0]).shape == (144, 240, 3)
    assert [model.id for model in openai_client.models.list()] == [server.jobs.editor.models.options.models]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": "a tent", "size": "1024x1024"}, "size must be auto"),
        ({"prompt": "a tent", "n": 11}, "n must be"),
        ({"prompt": "a tent", "model": "../../etc"}, "model must be"),
        ({"prompt": "a tent", "extra_body": {"checkpoint_dir": "x"}}, "unknown field 'checkpoint_dir'"),
        ({"prompt": "a tent", "extra_body": {"steps": "many"}}, "steps must be a whole number"),
        ({"prompt": " "}, "prompt must not be empty"),
    ],
)
def test_the_client_gets_errors_as_it_expects_them(openai_client, noisy_png, fields, words):
    with pytest.raises(openai.BadRequestError, match=words):
        openai_client.images.edit(image=noisy_png, **fields)


def test_a_client_that_goes_away_frees_its_place(server, noisy_png):
    form = {**WORDS, **QUICK, "iterations": "200", "epochs": "20"}
    for stream in ("false", "true"):
        with pytest.raises(httpx.TimeoutException):
            httpx.post(
                f"{server.url}/v1/images/edits",
                files={"image": noisy_png},
                data={**form, "stream": stream},
                timeout=2.0,
            )
        for _ in range(200):
            if not server.jobs.is_running and not server.jobs.waiting:
                break
            time.sleep(0.05)
        assert not server.jobs.is_running and not server.jobs.waiting
    assert server.jobs.totals["cancelled"] == 2


def test_twenty_clients_at_once_are_served_or_told_busy_and_none_gets_anothers_picture(server, noisy_png):
    """Each sends a picture of its own and gets that picture back, changed in the box that it named."""
    base = np.asarray(Image.open(io.BytesIO(noisy_png)))
    outcomes: dict[int, str] = {}

    def ask(number: int) -> None:
        mine = base.copy()
        mine[:4, :4] = number
        x0 = 10 + 2 * number
        form = {"prompt": "a house", "box": f"{x0},20,{x0 + 32},52", "steps": "1", "views": "1"}
        answer = httpx.post(f"{server.url}/v1/images/edits", files={"image": png(mine)}, data=form, timeout=120.0)
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            outcomes[number] = "busy"
            return
        assert answer.status_code == 200, answer.text
        got = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))))
        differs = (got != mine).any(axis=2)
        inside = differs[20:52, x0 : x0 + 32].sum()
        outcomes[number] = "served" if inside and inside == differs.sum() else "mixed up"

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 20 and set(outcomes.values()) == {"served", "busy"}, outcomes
    assert sum(kind == "served" for kind in outcomes.values()) >= 5
    assert server.jobs.totals["failed"] == 0


def test_previews_begin_with_what_is_being_drawn(tmp_path):
    spec = EditSpec(prompt="a tent", box=(1, 2, 40, 50))
    job = Job("a" * 24, tmp_path / "job", spec, suffix=".png", mask_suffix=None)
    assert images_api._previews_due(job, 3) == 0 and images_api._present_preview(job) is None
    job.add_step(StepRecord(step=0, total_steps=4, inpaintings=0, seconds=1.0), None)
    assert images_api._previews_due(job, 3) == 0, "nothing has been drawn"
    job.show(b"half drawn", 0.5)
    assert images_api._previews_due(job, 3) == 1 and images_api._present_preview(job) == b"half drawn"
    job.add_step(DrawnStep(step=1, total_steps=4, inpaintings=1, seconds=1.0, loss=1.0), b"best")
    job.show(b"the next", 0.9)
    assert images_api._present_preview(job) == b"best" and images_api._previews_due(job, 3) == 2
    assert images_api._previews_due(job, 0) == 0
