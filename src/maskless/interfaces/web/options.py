"""The options of a server: they hold from its start to its end."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass

from maskless.data.errors import MasklessError, require
from maskless.data.options import check_all, option

AUTH_VARIABLE, TOKEN_VARIABLE = "MASKLESS_AUTH", "MASKLESS_TOKEN"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Where a server listens, whom it lets in, and how much each client may take.

    Raises:
        MasklessError: a value of the wrong type or out of range.
    """

    host: str = option("127.0.0.1", group="Server", help="Address to listen on; 127.0.0.1 is this computer alone.")
    port: int = option(7860, group="Server", minimum=0, maximum=65535, help="Port to listen on; 0 takes a free one.")
    auth: str | None = option(
        None,
        group="Access",
        help=f"USER:PASSWORD that browsers and programs must send. Better given as the variable {AUTH_VARIABLE}, "
        "because other users of this computer can read a command line.",
    )
    token: str | None = option(
        None,
        group="Access",
        help=f"Bearer token that programs may send in place of user and password; also the variable {TOKEN_VARIABLE}.",
    )
    allow_host: str | None = option(
        None, group="Access", help="Further names of this server, separated by commas, as behind a proxy."
    )
    open_to_all: bool = option(
        False, group="Access", help="Listen on an address that other computers reach without asking for a password."
    )
    queue: int = option(16, group="Limits", minimum=1, maximum=10_000, help="How many edits may wait for their turn.")
    keep_minutes: float = option(
        60.0, group="Limits", minimum=0.01, maximum=1e6, help="Minutes after which a finished edit's files are deleted."
    )
    job_minutes: float = option(30.0, group="Limits", minimum=0.01, maximum=1e6, help="Minutes that one edit may take.")
    max_megabytes: float = option(
        50.0, group="Limits", minimum=0.01, maximum=2000, help="Largest picture file that is accepted, in MB."
    )
    max_megapixels: float = option(
        40.0, group="Limits", minimum=0.01, maximum=64, help="Largest picture that is accepted, in megapixels."
    )
    grace_seconds: float = option(
        30.0,
        group="Limits",
        minimum=0,
        maximum=86_400,
        help="Seconds that the present edit gets to finish when the server is stopped; then its checkpoint is kept.",
    )
    folder: str = option(
        "output/served", group="Output", help="Folder of the edits, one for each server. Their files are deleted later."
    )

    def __post_init__(self) -> None:
        check_all(self)
        for name, variable in (("auth", AUTH_VARIABLE), ("token", TOKEN_VARIABLE)):
            value = getattr(self, name)
            if value is None:
                value = os.environ.get(variable) or None
                object.__setattr__(self, name, value)
            require(value is None or bool(value.strip()), f"{name} must not be empty")
        user, colon, password = (self.auth or "").partition(":")
        require(self.auth is None or bool(user and colon and password), "auth must be USER:PASSWORD")
        require(
            self.is_local or self.is_protected or self.open_to_all,
            f"other computers reach {self.host}: give --auth USER:PASSWORD or --token TOKEN, or --open-to-all to let "
            "everybody in",
        )

    @property
    def is_local(self) -> bool:
        """Whether only this computer reaches the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def is_protected(self) -> bool:
        """Whether a password or a token is required."""
        return self.auth is not None or self.token is not None

    @property
    def other_hosts(self) -> tuple[str, ...]:
        """The names in allow_host, in lower case."""
        return tuple(name.strip().lower() for name in (self.allow_host or "").split(",") if name.strip())


def listening(options: ServeOptions) -> socket.socket:
    """A socket that is bound to the address of a server.

    Raises:
        MasklessError: the address is in use, does not exist or is not allowed.
    """
    host = options.host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, options.port))
    except OSError as error:
        listener.close()
        raise MasklessError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror or error}; choose another --port"
        ) from None
    return listener
