"""Sign in to web servers: HTTP Basic, a bearer token, or OAuth2 client credentials."""

import base64
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from builder.errors import SourceError, SpecError
from builder.model.secrets import read_variable

EARLY_S: Final = 30.0
"""A token is renewed so long before it expires."""

Post = Callable[[str, Mapping[str, str]], tuple[int, bytes]]
"""Sends a form to an address and returns status and body."""


class SignIn(BaseModel):
    """How to sign in. It holds names of environment variables, so that no secret enters a spec, lock or log.

    Parameters
    ----------
    kind
        ``basic``: a user's name and password. ``bearer``: a token. ``oauth2``: a token that is fetched from
        ``token_url`` with a client's credentials (RFC 6749 4.4), and fetched again before it expires.
    user, password
        Variables that hold the user's name and password (HTTP Basic).
    token
        Variable that holds a bearer token.
    token_url
        Address that gives out tokens.
    client_id, client_secret
        Variables that hold the client's name and secret.
    scope
        What the token is to allow, if the server asks for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["basic", "bearer", "oauth2"]
    user: str | None = None
    password: str | None = None
    token: str | None = None
    token_url: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    scope: str | None = None


class Credentials:
    """The headers that sign requests in, with a token that is renewed in time. Threads may share one."""

    def __init__(self, sign_in: SignIn | None, post: Post) -> None:
        self._sign_in = sign_in
        self._post = post
        self._token = ""
        self._expires = 0.0
        self._accepted = False
        self._lock = threading.Lock()
        self._fixed = _fixed_headers(sign_in)

    def headers(self) -> Mapping[str, str]:
        """Return the headers to send. Raises SourceError when no token can be had."""
        if self._sign_in is None or self._sign_in.kind != "oauth2":
            return self._fixed
        with self._lock:
            if time.monotonic() >= self._expires:
                self._token, lifetime = _ask_for_token(self._sign_in, self._post)
                self._expires = time.monotonic() + max(lifetime - EARLY_S, lifetime / 2)
            return {"Authorization": f"Bearer {self._token}"}

    def accept(self, sent: Mapping[str, str]) -> None:
        """Note that the server took the token in ``sent``, which may be replaced once the server no longer does."""
        with self._lock:
            self._accepted = self._accepted or self._is_in(sent)

    def renew(self, sent: Mapping[str, str]) -> bool:
        """Forget the token in ``sent``, which the server no longer takes.

        Returns False when there is none to replace, and when the server never took it: another one of the same client
        would be refused as well.
        """
        if self._sign_in is None or self._sign_in.kind != "oauth2":
            return False
        with self._lock:
            if not self._is_in(sent):
                return True  # another thread has replaced it
            if not self._accepted:
                return False
            self._token, self._accepted, self._expires = "", False, 0.0
            return True

    def _is_in(self, sent: Mapping[str, str]) -> bool:
        return bool(self._token) and sent.get("Authorization") == f"Bearer {self._token}"


def require_privacy(url: str, *, where: str) -> None:
    """Raise SpecError unless what is sent to ``url`` is encrypted or stays on this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        stays = ip_address(host).is_loopback
    except ValueError:
        stays = host == "localhost"
    if parts.scheme != "https" and not stays:
        raise SpecError(
            f"{where}: found {parts.scheme}://{host}, expected https:// (or a server on this machine): the secret "
            "would cross the network readable by all"
        )


def _fixed_headers(sign_in: SignIn | None) -> Mapping[str, str]:
    if sign_in is None:
        return {}
    if sign_in.kind == "bearer":
        return {"Authorization": f"Bearer {_secret(sign_in.token, 'token')}"}
    if sign_in.kind == "basic":
        pair = f"{_secret(sign_in.user, 'user')}:{_secret(sign_in.password, 'password')}"
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    if not sign_in.token_url:
        raise SpecError("sign_in: found no token_url, expected the address that gives out tokens")
    require_privacy(sign_in.token_url, where="sign_in.token_url")
    return {}


def _ask_for_token(sign_in: SignIn, post: Post) -> tuple[str, float]:
    """Return a new token and the seconds it lasts."""
    url = sign_in.token_url or ""
    form = {
        "grant_type": "client_credentials",
        "client_id": _secret(sign_in.client_id, "client_id"),
        "client_secret": _secret(sign_in.client_secret, "client_secret"),
        **({"scope": sign_in.scope} if sign_in.scope else {}),
    }
    host = urlsplit(url).netloc
    status, body = post(url, form)
    try:
        answer = json.loads(body) if status == 200 else {}
        token, lifetime = answer.get("access_token"), float(answer.get("expires_in") or 300)
    except (ValueError, AttributeError, TypeError):
        token, lifetime = None, 0.0
    if not isinstance(token, str) or not token:
        raise SourceError(
            f"sign_in: the server at {host} gave no token (status {status}); check token_url, client_id, "
            "client_secret and scope",
            host=host,
        )
    return token, lifetime


def _secret(variable: str | None, field: str) -> str:
    if not variable:
        raise SpecError(f"sign_in: found no {field}, expected the name of an environment variable")
    return read_variable(variable, os.environ, where=f"sign_in.{field}")
