"""The commands that serve, up to where they begin to serve."""

import socket

import pytest

from maskless.interfaces import servers


def test_a_missing_extra_is_one_line_that_says_what_to_install(refused, monkeypatch):
    monkeypatch.setattr(servers, "find_spec", lambda name: None)
    assert "pip install 'maskless[web]'" in refused("serve")
    assert "pip install 'maskless[mcp]'" in refused("mcp", ".")


def test_a_port_that_is_taken_is_named_before_models_are_loaded(refused, monkeypatch):
    monkeypatch.setattr(servers, "_editor", lambda *_: pytest.fail("models were loaded"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = refused("serve", "--port", str(taken.getsockname()[1]))
    assert "cannot listen on 127.0.0.1" in line and "--port" in line


def test_a_folder_that_is_not_there_is_named(refused):
    assert "no such folder: nowhere" in refused("mcp", "nowhere")


@pytest.mark.parametrize("command", ["serve", "mcp"])
def test_the_help_lists_options_of_edits_and_models(maskless, command):
    status, out, _err = maskless(command, "--help")
    assert status == 0 and "--iterations" in out and "--models" in out
    assert ("--max-megapixels" in out) == (command == "serve")
