"""The whole server: its schema fuzzed, and the process started, stopped and continued as its owner does."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error


@pytest.mark.slow
def test_requests_made_from_the_schema_and_against_it_find_no_server_error(server):
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    tried: dict[str, int] = {}
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=20, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None)
        def never_5xx(case):
            answer = case.call(timeout=30)
            case.validate_response(answer, checks=[not_a_server_error])
            tried[case.path] = tried.get(case.path, 0) + 1

        never_5xx()
    assert len(tried) >= 12 and sum(tried.values()) >= 100, tried


class Process:
    """`maskless serve` as its owner starts it."""

    def __init__(self, folder: Path, *arguments: str, models: Path | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "maskless", "serve", "--port", str(port), "--folder", str(folder), *arguments]
        command += ["--models", str(models), "--device", "cpu", "--dtype", "float32"] if models else []
        self.url = f"http://127.0.0.1:{port}"
        self.log = (folder.parent / f"log-{port}").open("w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        for _ in range(1200):
            try:
                if httpx.get(f"{self.url}/healthz").status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, self.output()
                time.sleep(0.1)
        raise AssertionError("the server did not start")

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def start(self, picture: bytes, **options) -> str:
        fields = {"options": json.dumps({"caption": "a red square", "prompt": "a blue house", **options})}
        answer = httpx.post(f"{self.url}/v1/edits", files={"image": picture}, data=fields)
        assert answer.status_code == 202, answer.text
        return answer.json()["links"]["self"]

    def state(self, address: str) -> dict:
        return httpx.get(self.url + address).json()

    def wait(self, address: str, until) -> dict:
        for _ in range(1200):
            job = self.state(address)
            if until(job):
                return job
            time.sleep(0.1)
        raise AssertionError(job)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)


@pytest.mark.slow
def test_sigterm_keeps_the_search_as_a_checkpoint_and_the_next_server_ends_it_as_if_nothing_had_happened(
    tiny_models, tmp_path, noisy_png
):
    options = {"search": "learned", "iterations": 30, "anchors": 2, "steps": 1, "views": 1}
    folder = tmp_path / "served"
    first = Process(folder, "--grace-seconds", "0", models=tiny_models)
    running = first.start(noisy_png, **options)
    waiting = first.start(noisy_png, **options)
    first.wait(running, lambda job: job["progress"]["step"] >= 2)
    assert first.terminate() == 0, first.output()
    assert "Traceback" not in first.output()
    states = {path.parent.name: json.loads(path.read_text())["state"] for path in folder.glob("*/job.json")}
    if set(states.values()) != {"queued"}:
        pytest.skip("the edit was over before the signal came")
    assert (folder / running.rpartition("/")[2] / "checkpoint" / "last.pth").is_file()

    second = Process(folder, models=tiny_models)
    ends = [second.wait(address, lambda job: job["state"] == "done") for address in (running, waiting)]
    assert ends[0]["result"]["candidates"] == ends[1]["result"]["candidates"]  # continued, and made in one go
    pictures = [httpx.get(second.url + job["links"]["image"]).content for job in ends]
    assert pictures[0] == pictures[1]
    assert second.terminate() == 0, second.output()


@pytest.mark.slow
def test_sigterm_lets_the_present_edit_finish_and_answers_its_client(tiny_models, tmp_path, noisy_png):
    server = Process(tmp_path / "served", "--grace-seconds", "60", models=tiny_models)
    answers = []
    fields = {
        "caption": "a red square",
        "prompt": "a blue house",
        "search": "learned",
        "iterations": "20",
        "anchors": "2",
        "steps": "1",
    }

    def ask() -> None:
        answers.append(
            httpx.post(f"{server.url}/v1/images/edits", files={"image": noisy_png}, data=fields, timeout=120)
        )

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(600):
        if "maskless_running 1.0" in httpx.get(f"{server.url}/metrics").text:
            break
        time.sleep(0.02)
    assert server.terminate() == 0, server.output()
    asking.join()
    assert answers[0].status_code == 200 and answers[0].json()["data"][0]["b64_json"]
