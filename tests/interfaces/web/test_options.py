"""The options of a server, as the command line takes them."""

import pytest

from maskless.data.errors import MasklessError
from maskless.interfaces.web.options import ServeOptions


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_addresses_of_this_computer_need_no_password(host):
    assert ServeOptions(host=host).is_local and not ServeOptions(host=host).is_protected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"auth": "me"}, "auth must be USER:PASSWORD"),
        ({"auth": ":x"}, "auth must be USER:PASSWORD"),
        ({"token": " "}, "token must not be empty"),
        ({"port": 70_000}, "port must be from 0 to 65535"),
        ({"queue": 0}, "queue must be from 1"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options, words):
    with pytest.raises(MasklessError, match=words):
        ServeOptions(**options)


def test_the_command_says_what_is_wrong_before_it_loads_anything(refused):
    assert "--open-to-all" in refused("serve", "--host", "0.0.0.0")
    assert "auth must be USER:PASSWORD" in refused("serve", "--auth", "me")
    assert "nothing/there" in refused("serve", "--models", "nothing/there", "--offline")
