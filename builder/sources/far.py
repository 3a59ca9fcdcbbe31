"""List and read objects of places elsewhere: buckets through obstore, web servers with listings, SFTP."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from html.parser import HTMLParser
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from builder.errors import CaseError, Reason, SourceError
from builder.sources.http import Answer, host_of, server
from builder.sources.patience import Fault
from builder.sources.place import Object, Place
from builder.sources.politeness import Gate, Turn
from builder.sources.signin import SignIn
from builder.storage.buckets import BucketFault, Changed, Gone, Refused, get_object, list_bucket

LOCAL: Final = ("file",)
BUCKETS: Final = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
SCHEMES: Final = (*BUCKETS, "https", "http", "ssh")

OBJECTS_LIMIT: Final = 50_000_000
DEPTH_LIMIT: Final = 64
AT_ONCE: Final = 32
"""Most files of a web server that are asked for at once while it is listed, if ``polite`` allows as many."""

PAGE_LIMIT: Final = 256 * 2**20
"""Most bytes of one page of a web server's listing."""

_CHUNK = 4 << 20
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_SKIP_SIGNATURE=true",
}
_TOTAL = re.compile(r"bytes \d+-\d+/(\d+)|bytes \*/(\d+)")


@cache
def place_at(url: str, sign_in: SignIn | None) -> Place:
    """Return the place that a URL names."""
    scheme = urlsplit(url).scheme
    if scheme in ("http", "https"):
        return Web(url, sign_in)
    if scheme == "ssh":
        from builder.sources.sftp import Sftp

        return Sftp(url)
    return Bucket(url)


@dataclass(frozen=True)
class Bucket:
    """A folder of a bucket. obstore takes credentials from the environment."""

    url: str

    @property
    def host(self) -> str:
        """Scheme and name of the bucket."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def list(self, gate: Gate) -> Iterator[Object]:
        """List page by page, as the store's client does."""
        with gate.turn(), self._answers():
            for path, size, stamp in list_bucket(self.url):
                yield Object(path, size, stamp)

    def get(self, turn: Turn, item: Object, start: int, stop: int | None) -> Iterator[bytes]:
        """Get an object, or a range of it, provided that its ETag is the one listed."""
        with self._answers():
            for chunk in get_object(self.url, item.path, start=start, stop=stop, etag=item.stamp):
                turn.received += len(chunk)
                yield chunk

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Turn what went wrong into a fault of one try, or into an error that another try cannot mend."""
        try:
            yield
        except Refused:
            names = _VARIABLES.get(self.host.partition(":")[0][:2], _VARIABLES["az"])
            raise SourceError(
                f"folder at {self.host}: the store refuses these credentials: a wrong name or secret, or no right to "
                f"read and list; check {names}",
                host=self.host,
            ) from None
        except Changed:
            raise CaseError(Reason.SOURCE_CHANGED, "the object is not the one that was listed; build again") from None
        except Gone:
            raise Fault("the store says that it does not hold what it lists, or that there is no such bucket") from None
        except BucketFault as error:
            raise Fault(f"no answer ({error})", answered=False) from None


@dataclass(frozen=True)
class Web:
    """A folder of a web server that answers for each folder with a page of links, as Apache, nginx and Python do."""

    url: str
    sign_in: SignIn | None

    @property
    def host(self) -> str:
        """Host, and port if the URL names one."""
        return host_of(self.url)

    def list(self, gate: Gate) -> Iterator[Object]:
        """Follow the links of each page that lead down, and ask for the length of each file."""
        root = self.url.rstrip("/") + "/"
        waiting, seen = [""], {""}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="listing") as pool:
            while waiting:
                found = self._members(gate, waiting.pop(), seen, root=root)
                waiting += [path for path in found if path.endswith("/")]
                yield from pool.map(partial(self._object, gate), [path for path in found if not path.endswith("/")])

    def _members(self, gate: Gate, folder: str, seen: set[str], *, root: str) -> Sequence[str]:
        """Return the paths in a folder that no other page led to."""
        if folder.count("/") > DEPTH_LIMIT or len(seen) > OBJECTS_LIMIT:
            raise SourceError(
                f"folder at {self.host}: found more than {DEPTH_LIMIT} folders in each other, or more than "
                f"{OBJECTS_LIMIT:,} links, expected a listing that ends",
                host=self.host,
            )
        connection = server(self.url, self.sign_in, source="folder", gate=gate)
        found = [path for path in connection.get(quote(folder), partial(_links, root, folder)) if path not in seen]
        seen.update(found)
        return found

    def get(self, turn: Turn, item: Object, start: int, stop: int | None) -> Iterator[bytes]:
        """Get an object, or a range of it."""
        headers = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        if item.stamp.startswith('"'):
            headers["If-Match"] = item.stamp

        def read(answer: Answer) -> list[bytes]:
            if answer.status == 206:
                return list(answer.chunks)
            return [b"".join(answer.chunks)[start:stop]]

        connection = server(self.url, self.sign_in, source="folder")
        yield from connection.within(turn, quote(item.path), read, headers=headers)

    def _object(self, gate: Gate, path: str) -> Object:
        """Ask for the first byte, because not every server answers HEAD as it answers GET."""

        def read(answer: Answer) -> tuple[int, str]:
            found = _TOTAL.fullmatch(answer.headers.get("content-range", ""))
            length = answer.headers.get("content-length", "")
            size = int(found[1] or found[2]) if found else int(length) if length.isdigit() else -1
            if size < 0:
                raise Fault("found a file of which the server does not state the length")
            stamp = answer.headers.get("etag", "") or answer.headers.get("last-modified", "")
            return size, stamp

        connection = server(self.url, self.sign_in, source="folder", gate=gate)  # one for each thread
        size, stamp = connection.get(quote(path), read, headers={"Range": "bytes=0-0"})
        return Object(path, size, stamp.removeprefix("W/"))


def _links(root: str, folder: str, answer: Answer) -> list[str]:
    """Return the paths below ``root`` that a page links to and that are in ``folder``.

    Links that lead elsewhere (to other hosts, up, to sorted views of the same page) are no part of the folder.
    """
    if "html" not in answer.headers.get("content-type", ""):
        raise Fault("found an answer that is not a page of links, expected the listing of a folder")
    page = _Page()
    page.feed(answer.body(PAGE_LIMIT).decode("utf-8", errors="replace"))
    page.close()
    if not page.links and not page.titled:
        raise Fault("found a page without links, expected the listing of a folder")
    here, found = urljoin(root, quote(folder)), []
    for link in page.links:
        target = urljoin(here, link)
        if "?" in link or "#" in link or not target.startswith(here):
            continue
        path = unquote(target[len(root) :])
        rest = path[len(folder) :]
        if rest and "/" not in rest.rstrip("/") and ".." not in path.split("/") and "\0" not in path:
            found.append(path)
    return sorted(dict.fromkeys(found))


class _Page(HTMLParser):
    """Collects the links of a page, and whether it calls itself a listing."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.titled = False
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a link."""
        self._in_title = tag in ("title", "h1")
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]

    def handle_data(self, data: str) -> None:
        """Note a title such as ``Index of /archive``."""
        self.titled |= self._in_title and data.strip().lower().startswith(("index of", "directory listing"))
