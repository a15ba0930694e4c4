"""The ledger: what was measured is not measured again, whatever a kill left of the file."""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.evaluation.measures.ledger import Ledger, decoded, encoded, fingerprint

NAMES = {"suite": "storybook", "fingerprint": "f"}


def test_nothing_is_measured_twice(tmp_path):
    calls = []
    for _ in range(2):
        ledger = Ledger(tmp_path / "deep" / "x.jsonl", **NAMES)
        for key in (1, 2, "three"):
            assert ledger.measured("ours", key, lambda key=key: calls.append(key) or {"key": key}) == {"key": key}
    assert calls == [1, 2, "three"] and len(ledger) == 3


def test_another_suite_method_or_fingerprint_is_another_figure(tmp_path):
    file = tmp_path / "x.jsonl"
    Ledger(file, **NAMES).measured("ours", 1, lambda: {"value": 1})
    assert Ledger(file, suite="storybook", fingerprint="g").measured("ours", 1, lambda: {"value": 2}) == {"value": 2}
    assert Ledger(file, suite="regret", fingerprint="f").measured("ours", 1, lambda: {"value": 3}) == {"value": 3}
    ledger = Ledger(file, **NAMES)
    assert ledger.measured("theirs", 1, lambda: {"value": 4}) == {"value": 4}
    assert ledger.measured("ours", 1, pytest.fail) == {"value": 1}


def test_half_a_line_was_never_measured_and_harms_no_other(tmp_path):
    file = tmp_path / "x.jsonl"
    ledger = Ledger(file, **NAMES)
    ledger.measured("ours", 1, lambda: {"value": 1})
    ledger.measured("ours", 2, lambda: {"value": 2})
    file.write_bytes(file.read_bytes()[:-20])
    assert len(Ledger(file, **NAMES)) == 1
    Ledger(file, **NAMES).measured("ours", 3, lambda: {"value": 3})
    ledger = Ledger(file, **NAMES)
    assert ledger.measured("ours", 1, pytest.fail) == {"value": 1}
    assert ledger.measured("ours", 3, pytest.fail) == {"value": 3}
    assert ledger.measured("ours", 2, lambda: {"value": 22}) == {"value": 22}


def test_a_killed_run_goes_on(tmp_path):
    """A process that is killed without warning in the middle; the next one measures only what is missing."""
    file = tmp_path / "x.jsonl"
    script = (
        "import sys, time; from pathlib import Path; from maskless.evaluation.measures.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]), suite='storybook', fingerprint='f')\n"
        "for key in range(1000):\n"
        "    ledger.measured('ours', key, lambda: {'key': key}); time.sleep(0.01)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(file)], env={**os.environ})
    began = time.monotonic()
    while not (file.is_file() and file.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None and time.monotonic() - began < 60
        time.sleep(0.01)
    process.kill()
    process.wait()
    ledger = Ledger(file, **NAMES)
    done = len(ledger)
    assert 3 <= done < 1000
    calls = []
    for key in range(done + 2):
        ledger.measured("ours", key, lambda key=key: calls.append(key) or {"key": key})
    assert calls == [done, done + 1]


def test_what_json_cannot_say_is_none_from_the_first(tmp_path):
    ledger = Ledger(tmp_path / "x.jsonl", **NAMES)
    figures = {"psnr": math.inf, "parts": [1.0, math.nan], "name": "a", "hit": True}
    first = ledger.measured("ours", 1, lambda: figures)
    assert first == {"psnr": None, "parts": [1.0, None], "name": "a", "hit": True}
    assert Ledger(tmp_path / "x.jsonl", **NAMES).measured("ours", 1, pytest.fail) == first
    assert all(json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines())


def test_no_file_keeps_nothing():
    assert Ledger(None, **NAMES).measured("ours", 1, lambda: {"value": 1}) == {"value": 1}


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MasklessError, match="cannot write"):
        Ledger(tmp_path / "file" / "x.jsonl", **NAMES).measured("ours", 1, lambda: {"value": 1})


def test_code_is_what_a_file_imports_and_no_more():
    from maskless.evaluation.measures.ledger import PACKAGE, sources_of
    from maskless.evaluation.methods import trials
    from maskless.evaluation.suites import storybook

    def named(module) -> set[str]:
        return {path.relative_to(PACKAGE).as_posix() for path in sources_of([Path(module.__file__)])}

    meant = {
        "evaluation/methods/trials.py",
        "evaluation/methods/release.py",
        "method/search.py",
        "engine/fill_run.py",
        "models/clip.py",
    }
    meant |= {
        "data/boxes.py",
        "data/picture.py",
        "storybook/judge.py",
        "storybook/world/captions.py",
        "evaluation/requests/jobs.py",
    }
    assert meant <= named(trials)
    shows = {
        "records/html.py",
        "records/report.py",
        "evaluation/measures/results.py",
        "evaluation/measures/side_by_side.py",
    }
    assert not (shows | {"evaluation/suites/storybook.py", "interfaces/cli.py"}) & named(trials)
    assert named(trials) | {"evaluation/suites/storybook.py", "evaluation/measures/side_by_side.py"} <= named(storybook)


def test_a_picture_is_kept_as_text():
    from PIL import Image

    picture = Image.new("RGB", (5, 3), "#123456")
    assert decoded(json.loads(json.dumps(encoded(picture)))).tobytes() == picture.tobytes()


def test_the_fingerprint_follows_weights_options_and_code(editor, tiny_models, tmp_path):
    import shutil

    config = EditConfig()
    base = fingerprint(editor.models, config)
    assert base == fingerprint(editor.models, EditConfig()) and len(base) == 16
    copied = shutil.copytree(tiny_models, tmp_path / "models")
    names = {part: str(copied / part) for part in editor.models.names}
    assert fingerprint(replace(editor.models, names=names), config) == base, "the place does not matter"
    weights = next((copied / "clip").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    code = tmp_path / "suite.py"
    code.write_text("a = 1")
    with_code = fingerprint(editor.models, config, [code])
    code.write_text("a = 22")
    others = {
        fingerprint(replace(editor.models, names=names), config),
        fingerprint(editor.models, EditConfig(iterations=3)),
        fingerprint(editor.models, config, views=3),
        fingerprint(None, config),
        with_code,
        fingerprint(editor.models, config, [code]),
    }
    assert base not in others and len(others) == 6


def test_the_fingerprint_follows_the_content_of_a_model_in_one_file(editor, tmp_path):
    path = tmp_path / "flux.gguf"
    found = []
    for content in (b"one", b"another", b"one"):
        path.write_bytes(content)
        models = replace(editor.models, names={**editor.models.names, "transformer": str(path)})
        found.append(fingerprint(models, EditConfig()))
    assert found[0] == found[2] != found[1]
