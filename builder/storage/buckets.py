"""List and read the objects in a bucket that somebody else filled. obstore takes credentials from the environment."""

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from typing import Any

_CHUNK = 4 << 20
_PLAIN = ("AWS_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "AZURE_STORAGE_USE_EMULATOR")
"""Environment variables that allow a server without TLS, such as one on this machine."""

_REFUSALS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "credential", "401 Unauthorized", "403 Forbidden")
"""Words of errors without a class of their own, as those of listings, that say that the credentials are refused."""

_ETAG = re.compile(r'"?[0-9a-zA-Z\-]+"?')


class BucketFault(Exception):
    """A bucket did not answer as it should; the cause's class says how."""


class Refused(BucketFault):
    """The credentials are wrong, or do not suffice."""


class Changed(BucketFault):
    """The object is not the one whose ETag was given."""


class Gone(BucketFault):
    """There is no such object, or no such bucket."""


def list_bucket(url: str) -> Iterator[tuple[str, int, str]]:
    """Yield path, size and ETag (or the time of change) of every object below a URL. Raises BucketFault."""
    import obstore

    with _Answers():
        for page in obstore.list(_store(url, os.getpid())):
            for entry in page:
                yield entry["path"], entry["size"], entry["e_tag"] or entry["last_modified"].isoformat()


def get_object(url: str, path: str, *, start: int, stop: int | None, etag: str) -> Iterator[bytes]:
    """Yield bytes of an object, to its end without ``stop``, provided that it has the ETag. Raises BucketFault."""
    import obstore

    options: Any = {"range": (start, stop)} if stop is not None else {}
    if _ETAG.fullmatch(etag):
        options["if_match"] = etag
    with _Answers():
        for chunk in obstore.get(_store(url, os.getpid()), path, options=options).stream(_CHUNK):
            yield bytes(chunk)


def forget_clients() -> None:
    """Make the next request read the credentials in the environment again."""
    _store.cache_clear()


@cache
def _store(url: str, process: int) -> Any:
    """Return one client per process, because a client owns threads, which do not survive a fork."""
    from obstore.store import from_url

    retry: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}  # the caller's retries keep to its rate
    client: Any = {"timeout": timedelta(seconds=600), "connect_timeout": timedelta(seconds=20)}
    if any(os.environ.get(name, "").lower() == "true" for name in _PLAIN):
        client["allow_http"] = True  # options that are given here replace those of the environment
    return from_url(url, retry_config=retry, client_options=client)


class _Answers:
    """Turns what obstore raises into what happened."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        from obstore import exceptions

        if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
            raise Refused from error
        if isinstance(error, exceptions.PreconditionError):
            raise Changed from error
        if isinstance(error, FileNotFoundError | exceptions.NotFoundError):
            raise Gone from error
        if isinstance(error, exceptions.BaseError | OSError):
            if any(word in str(error) for word in _REFUSALS):
                raise Refused from error
            raise BucketFault(type(error).__name__) from error
