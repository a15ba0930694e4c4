"""The local engine decodes the next picture while it edits the present one."""

import threading

import torch

from batch_tools import records
from maskless.batch.worker import Worker


def test_the_next_picture_is_decoded_during_an_edit(place, maskless, command, monkeypatch):
    decoded_in, edits = {}, []
    prepare, attempt = Worker.prepare, Worker.attempt
    ready = threading.Event()

    def prepared(self, row):
        decoded_in[row.id] = threading.current_thread().name
        if row.id == "1":
            ready.set()
        return prepare(self, row)

    def attempted(self, row, **more):
        if row.row.id == "0":
            assert ready.wait(30), "the second picture waits for the first edit"
        edits.append(row.row.id)
        return attempt(self, row, **more)

    monkeypatch.setattr(Worker, "prepare", prepared)
    monkeypatch.setattr(Worker, "attempt", attempted)
    threads = torch.get_num_threads()
    assert maskless(*command)[0] == 0
    assert edits == ["0", "1", "2"] and all(name.startswith("decode") for name in decoded_in.values())
    assert torch.get_num_threads() == threads and len(records("output")) == 3
