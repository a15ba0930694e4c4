"""What the tests of the interfaces share: a picture in a folder of its own, and the command in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskless.engine.editor import Editor
from maskless.interfaces.cli import main
from maskless.interfaces.jobs.worker import JobLimits, Jobs
from served import png


@pytest.fixture
def scene(tmp_path: Path, picture: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture file in an empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    pixels = (picture.movedim(0, -1) * 255).round().byte().numpy()
    Image.fromarray(pixels).save("scene.png")
    return Path("scene.png")


@pytest.fixture
def maskless(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit status, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def refused(maskless: Callable[..., tuple[int, str, str]], scene: Path) -> Callable[..., str]:
    """Run a command that is refused in one line on stderr, with status 2 and nothing written; gives that line."""

    def check(*arguments: object) -> str:
        before = sorted(Path().rglob("*"))
        status, out, err = maskless(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("maskless: ") and err.count("\n") == 1 and "Traceback" not in err
        assert sorted(Path().rglob("*")) == before
        return err

    return check


@pytest.fixture(scope="session")
def noisy_png() -> bytes:
    """A picture file of 120 x 72 pixels with noise, so that a lossy copy of it would differ nearly everywhere."""
    noise = np.random.default_rng(3).integers(0, 90, (72, 120, 3), dtype=np.uint8)
    noise[20:44, 84:108] = (255, 51, 26)
    return png(noise)


@pytest.fixture
def jobs(editor: Editor, tmp_path: Path) -> Iterator[Jobs]:
    """A queue with room for four, whose worker has small models."""
    queue = Jobs(editor, tmp_path / "served", JobLimits(waiting=4))
    yield queue
    queue.stop()


@pytest.fixture
def previewing_jobs(previewing: Editor, tmp_path: Path) -> Iterator[Jobs]:
    """The same with a preview autoencoder."""
    queue = Jobs(previewing, tmp_path / "served", JobLimits(waiting=4))
    yield queue
    queue.stop()
