"""A Python that finds this file at its start opens no connection: files are the only way from site to site."""

import sys
from typing import Any

EVENTS = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse names and addresses of hosts; sockets of this machine alone, as worker processes have, are paths."""
    if event in EVENTS and (event.startswith("socket.get") or isinstance(arguments[1], tuple)):
        raise PermissionError(f"{event}: found that a site uses a network, expected files alone")


sys.addaudithook(refuse)
