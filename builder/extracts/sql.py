"""The result of a query to PostgreSQL, by Arrow Database Connectivity (ADBC)."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, field_validator

from builder.errors import MissingExtra, SourceError, SpecError
from builder.extracts.extract import SIZE_LIMIT, ExtractBlock
from builder.protocols import Extracted, Outside

_PARAMETERS: Final = ("sslmode", "sslrootcert", "connect_timeout", "krbsrvname", "gssencmode")
"""Parameters of a URL that are passed on. Others could name another host, or a file with secrets."""

_ENCRYPTED: Final = ("require", "verify-ca", "verify-full")

_CONNECT_S: Final = "20"

_PASSES: Final = ("08", "57P", "53", "40")
"""SQLSTATE classes of faults that may pass: the connection, a restart, too few resources, a conflict."""

_MEANINGS: Final[Mapping[str, str]] = {
    "25006": "the query changes something, expected one that only reads",
    "42501": "this user may not read all that the query names; ask for SELECT on it",
    "42601": "the query is no single SELECT statement; check its syntax",
    "42703": "the query names a column that is not there",
    "42P01": "the query names a table that is not there, or that this user cannot see",
}
"""SQLSTATE (PostgreSQL, appendix A) to what it means. The server's own words may quote values of patients."""

_REFUSED: Final = ("authentication", "no password", "pg_hba", "does not exist", "not permitted", "ssl", "certificate")
"""What libpq says when asking again would not help. It gives no SQLSTATE for a connection that was refused."""


class SqlUser(BaseModel):
    """The environment variables that say who signs in; each may be absent.

    Parameters
    ----------
    user
        Variable with the name of the database's user, in place of the one in the URL.
    password
        Variable with the password.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str | None = None
    password: str | None = None


class Sql(ExtractBlock):
    """The rows of a query. They are sorted, because a database gives them in any order.

    Parameters
    ----------
    url
        ``postgresql://HOST:PORT/DATABASE``, without a password. A server elsewhere must encrypt (``sslmode=require``
        unless the URL states more).
    query
        One SELECT statement. It runs in a transaction that can only read.
    sign_in
        Names of environment variables. Without a password, what the server and ``~/.pgpass`` allow.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["sql"]
    url: str = Field(min_length=1)
    query: str = Field(min_length=1)
    sign_in: SqlUser = SqlUser()

    @field_validator("url")
    @classmethod
    def _is_postgresql(cls, url: str) -> str:
        if not url.startswith("${"):
            _parts(url)
        return url

    @property
    def title(self) -> str:
        return f"sql at {_parts(self.url).hostname or 'this machine'}"

    def take(self, outside: Outside) -> Extracted:
        return Extracted(query_table(self.url, self.query, self.sign_in, outside, title=self.title))


def query_table(url: str, query: str, sign_in: SqlUser, outside: Outside, *, title: str) -> pa.Table:
    """Return the sorted rows of a query.

    Raises
    ------
    MissingExtra
        Without the driver.
    SpecError
        When the server refuses the user or the query, or the result is too large or has values of no plain type.
    SourceError
        When the server stays out of reach, or breaks off every time.
    """
    try:
        import adbc_driver_postgresql.dbapi as driver
    except ImportError:
        raise MissingExtra("adbc-driver-postgresql", "sql") from None
    line = _connection(url, sign_in, outside)
    host = _parts(url).hostname or "this machine"

    def ask() -> pa.Table:
        try:
            with driver.connect(line) as connection, connection.cursor() as cursor:
                cursor.execute("SET default_transaction_read_only = on")
                connection.commit()
                cursor.execute(query)
                return _gathered(cursor.fetch_record_batch(), title)
        except (driver.Error, OSError) as error:
            raise _told(error, title, host) from None

    found = pa.table(dict(_plain(outside.ask(ask, title="the database", host=host), title)))
    return found.sort_by([(name, "ascending") for name in found.column_names]) if found.num_rows else found


def _parts(url: str) -> SplitResult:
    """Return the parts of the URL of a database. Raises ValueError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("postgresql", "postgres") or parts.password is not None or not parts.path.strip("/"):
        raise ValueError(
            "found a URL that is none of a PostgreSQL database, expected postgresql://HOST:PORT/DATABASE, with the "
            "names of the variables that hold user and password under sign_in"
        )
    stated = dict(parse_qsl(parts.query))
    strange = sorted({*stated} - {*_PARAMETERS})
    if strange:
        raise ValueError(f"found the parameter {strange[0]!r} in a URL, expected some of {', '.join(_PARAMETERS)}")
    if not _stays(host) and stated.get("sslmode", "require") not in _ENCRYPTED:
        raise ValueError(
            f"found sslmode={stated['sslmode']} for a server elsewhere, expected one of {', '.join(_ENCRYPTED)}: "
            "the rows would cross the network readable by all"
        )
    return parts


def _stays(host: str) -> bool:
    return host in ("", "localhost", "::1") or host.startswith("127.")


def _connection(url: str, sign_in: SqlUser, outside: Outside) -> str:
    """Return libpq's connection string. An empty password keeps libpq from sending what PGPASSWORD holds."""
    try:
        parts = _parts(url)
        port = parts.port
    except ValueError as error:
        raise SpecError(f"extract.url: {error}") from None
    words = {"host": parts.hostname or "", "dbname": unquote(parts.path.strip("/"))}
    words |= {"port": str(port)} if port else {}
    words |= {"user": unquote(parts.username)} if parts.username else {}
    if sign_in.user is not None:
        words["user"] = outside.variable(sign_in.user, where="extract.sign_in.user")
    password = ""
    if sign_in.password is not None:
        password = outside.variable(sign_in.password, where="extract.sign_in.password")
    words |= {"password": password, "connect_timeout": _CONNECT_S}
    words |= {} if _stays(parts.hostname or "") else {"sslmode": "require"}
    words |= dict(parse_qsl(parts.query))
    return " ".join(f"{name}='{_escaped(value)}'" for name, value in words.items() if value or name == "password")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def _gathered(batches: Any, title: str) -> pa.Table:
    """Return all batches as a table. Raises SpecError as soon as they are too large."""
    found, size = [], 0
    for batch in batches:
        size += batch.nbytes
        if size > SIZE_LIMIT:
            raise SpecError(
                f"{title}: found more than {SIZE_LIMIT} bytes in the result, expected fewer: narrow the query"
            )
        found.append(batch)
    return pa.Table.from_batches(found, batches.schema)


def _told(error: Exception, title: str, host: str) -> Exception:
    """Return what to raise for a fault of the driver: SourceError if it may pass, otherwise SpecError.

    Of the driver's message nothing is shown, because it quotes the query and values.
    """
    state = getattr(error, "sqlstate", None) or ""
    if state and not state.startswith(_PASSES):
        meaning = _MEANINGS.get(state, "the database refused the query; run it in psql to see its own words")
        return SpecError(f"{title}: {meaning} (SQLSTATE {state})")
    said = str(error).lower()
    if not state and "failed to connect" in said and any(word in said for word in _REFUSED):
        return SpecError(
            f"{title}: the server refused the connection, expected it to accept the user with the password in the "
            "variables under sign_in, a database of this name, and encryption if it is elsewhere; try it with psql"
        )
    if not state and "failed to connect" not in said and "connection" not in said and "server closed" not in said:
        return SpecError(f"{title}: the driver refused the query, expected one SELECT statement")
    return SourceError("the database cannot be reached, or the connection broke off", host=host)


def _plain(table: pa.Table, title: str) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield the columns as types a Parquet table of plain values holds. Raises SpecError for others."""
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(f"{title}: found two columns {twice[0]!r} in the result, expected each once: name it with AS")
    for name, column in zip(names, table.columns, strict=True):
        kind = column.type
        if isinstance(kind, pa.BaseExtensionType) and pa.types.is_string(kind.storage_type):  # numeric is exact as text
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        elif pa.types.is_timestamp(kind) and kind.tz is not None:
            raise SpecError(
                f"{title}: found times with a time zone in {name!r}, of which the day depends on the zone, expected "
                f"local ones: write {name} AT TIME ZONE 'Europe/Berlin' AS {name}, with the hospital's own zone"
            )
        elif not _is_plain(kind):
            raise SpecError(f"{title}: found {kind} in {name!r}, expected plain values: write {name}::text AS {name}")
        yield name, column


def _is_plain(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_date,
        pa.types.is_timestamp, pa.types.is_time,
    )  # fmt: skip
    return any(test(kind) for test in tests)
