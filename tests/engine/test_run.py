"""What every kind of run has in common: live once, then replayed; results drain first; any caller's gradient mode."""

import threading

import numpy as np
import pytest
import torch

from maskless.data.result import StepRecord
from maskless.engine.run import Steps

FAST = {"search": "learned", "iterations": 2, "updates": 5, "anchors": 3}
KINDS = {
    "replace": {"caption": "a red square", "prompt": "a blue house"},
    "creative": {"prompt": "a star and a cat"},
    "style": {"caption": "a red square", "prompt": "pencil sketch"},
    "remove": {"caption": "a red square"},
}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (72, 120, 3), dtype=np.uint8)


@pytest.fixture
def start(editor, pixels):
    return lambda task: editor.start(editor.request(pixels, task=task, **KINDS[task]), **FAST)


def same(first, second) -> bool:
    return torch.equal(first.candidates.crops, second.candidates.crops) and first.order == second.order


@pytest.mark.parametrize("task", KINDS)
def test_it_is_live_once_and_replayed_afterwards(start, editor, task, monkeypatch):
    run = start(task)
    assert run.history == () and run.preview() is None and run.state() is None
    steps = list(run)
    assert [step.step for step in steps] == list(range(run.total_steps + 1)) and tuple(steps) == run.history
    assert steps[0].inpaintings == 0 and run.preview().shape == (3, 72, 120)
    forwards = editor.models.inpainter.unet_forwards
    assert list(run) == steps and editor.models.inpainter.unet_forwards == forwards


@pytest.mark.parametrize("task", KINDS)
def test_a_result_drains_the_run_first(start, task):
    """Asked for at once, it is the result of the whole run."""
    whole = start(task)
    for _step in whole:
        pass
    at_once = start(task)
    assert same(at_once.result(), whole.result()) and at_once.history[-1].step == at_once.total_steps


@pytest.mark.parametrize("task", KINDS)
def test_a_constructor_looks_at_nothing(editor, start, task, monkeypatch):
    for part, method in (("dino", "features"), ("clip", "encode"), ("clip", "encode_text")):
        monkeypatch.setattr(getattr(editor.models, part), method, lambda *_: pytest.fail("nothing is to be looked at"))
    start(task)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("options", [{}, {"estimator": "straight-through", "updates": 20}])
def test_it_learns_under_any_gradient_mode_of_its_caller(editor, pixels, mode, options):
    """Servers and nodes of graph editors call it so."""
    asked = KINDS["replace"]
    expected = editor.edit(pixels, **asked, **FAST | options)
    with mode():
        assert torch.is_grad_enabled() is False
        view = editor.look(torch.from_numpy(pixels).movedim(-1, 0))
        assert view.features.attention.shape
        found = editor.edit(view, **asked, **FAST | options)
    assert same(found, expected)
    before, after = found.anchor_net.probabilities_before, found.anchor_net.probabilities_after
    assert not torch.equal(before, after)


def test_two_edits_at_once_with_one_editor_end_as_one_after_the_other(editor, pixels):
    requests = [editor.request(pixels, **KINDS["replace"], seed=seed) for seed in (1, 2)]
    expected = [editor.edit(request, **FAST) for request in requests]
    found = [None, None]

    def edit(position: int) -> None:
        found[position] = editor.edit(requests[position], **FAST)

    threads = [threading.Thread(target=edit, args=(position,)) for position in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(*pair) for pair in zip(found, expected, strict=True))


def record(step: int) -> StepRecord:
    return StepRecord(step=step, total_steps=3, inpaintings=0, seconds=0.0)


def test_steps_that_were_interrupted_are_taken_up_again():
    made = []

    def make():
        while len(made) < 3:
            if len(made) == 1 and not interrupted:
                interrupted.append(True)
                raise KeyboardInterrupt
            made.append(record(len(made)))
            yield made[-1]

    interrupted: list[bool] = []
    steps = Steps(make)
    with pytest.raises(KeyboardInterrupt):
        list(steps)
    assert [step.step for step in steps.history] == [0]
    assert [step.step for step in steps] == [0, 1, 2]


def test_two_readers_share_the_steps():
    steps = Steps(lambda: iter([record(0), record(1)]))
    first, second = iter(steps), iter(steps)
    assert next(first) is next(second) and next(second) is next(first)
    steps.finish()
    assert len(steps.history) == 2


def test_steps_of_an_earlier_run_come_first():
    steps = Steps(lambda: iter([record(2)]), [record(0), record(1)])
    assert [step.step for step in steps] == [0, 1, 2]
