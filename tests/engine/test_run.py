"""What every kind of run has in common: live once, then replayed; results drain first; any caller's gradient mode."""

import threading

import numpy as np
import pytest
import torch

from maskless.data.result import StepRecord
from maskless.engine.run import Steps
from maskless.models.inpainters.denoising import watched

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
def test_what_is_being_drawn_can_be_seen_and_changes_nothing(start, previewing, pixels, task):
    run = previewing.start(previewing.request(pixels, task=task, **KINDS[task]), **FAST)
    seen = []
    with watched(lambda step, total: seen.append((step, total, run.drawing()))):
        result = run.result()
    plain = start(task)
    assert same(result, plain.result()) and torch.equal(run.preview(), plain.preview())
    drawings = [drawing for _step, _total, drawing in seen if drawing is not None]
    assert len(drawings) >= 4 and run.drawing() is None, "nothing is being drawn any more"
    source = torch.from_numpy(pixels).movedim(-1, 0) / 255
    for drawing in drawings:
        assert drawing.shape == (3, 72, 120) and 0 <= float(drawing.min()) and float(drawing.max()) <= 1
        assert not torch.equal(drawing, source)
    first, second = (next(d for step, _total, d in seen if step == number and d is not None) for number in (1, 2))
    assert not torch.equal(first, second), "it changes from step to step"


def test_a_drawing_is_pasted_where_the_result_will_be(previewing, pixels):
    mask = np.zeros((72, 120), bool)
    mask[10:40, 30:70] = True
    run = previewing.start(previewing.request(pixels, prompt="a tent", mask=mask))
    seen = []
    with watched(lambda *_: seen.append(run.drawing())):
        best = run.result().best
    source, outside = torch.from_numpy(pixels).movedim(-1, 0) / 255, torch.from_numpy(~mask)
    assert len(seen) == 8 and all(torch.equal(each[:, outside], source[:, outside]) for each in seen)
    assert torch.equal(best.tensor()[:, outside], source[:, outside])
    assert all(not torch.equal(each[:, ~outside], source[:, ~outside]) for each in seen)


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
