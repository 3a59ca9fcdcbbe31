"""Clinical tables out of PostgreSQL, beside the same tables in CSV, and servers that do not play along."""

import contextlib
import socket
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from builder.errors import MissingExtra, SourceError, SpecError
from builder.extracts import Sql
from builder.planning.extracts import World
from builder.run.pipeline import plan
from builder.sources import patience
from builder.spec import DatasetSpec
from tests.endtoend.trees import KEY
from tests.extracts.conftest import PASSWORD
from tests.synthetic import ct_series

ROWS = (
    ("P1", "F", "2019-12-30", "4.10", 3, True, "  low"), ("P2", "M", "2020-02-29", "1234.5", -1, False, "high"),
    ("P2", "M", "2020-03-01", "7", 12, False, "high"), ("P3", None, None, None, None, None, "Ödem, \"mild\""),
    ("0004", "F", "2021-01-01", "0.000001", 2**40, True, "low"),
)  # fmt: skip
HEADINGS = ("mrn", "sex", "seen", "psa", "visits", "smoker", "grade")
COLUMNS = {
    "sex": {"from": "sex", "type": "category", "levels": ["F", "M"]},
    "seen": {"from": "seen", "type": "date"},
    "psa": {"from": "psa", "type": "number", "unit": "ng/mL"},
    "visits": {"from": "visits", "type": "integer"},
    "smoker": {"from": "smoker", "type": "boolean"},
    "grade": {"from": "grade", "type": "text"},
}
TABLE = {
    "person_id": "mrn", "cardinality": "many", "pick": {"by": "seen", "take": "max"}, "columns": COLUMNS,
    "min_matched": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def seen(postgres):
    """The table in the database, its rows in another order than in CSV, in the types that a hospital has them in."""
    types = ("text", "char(3)", "date", "numeric(20, 6)", "bigint", "boolean", "text")
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(HEADINGS, types, strict=True))

    def literal(value: Any) -> str:
        return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"

    rows = ", ".join("(" + ", ".join(map(literal, row)) + ")" for row in reversed(ROWS))
    postgres.run(f"CREATE TABLE seen ({columns})", f"INSERT INTO seen VALUES {rows}")
    return postgres


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("archive")
    for person in ("P1", "P2", "P3", "0004"):
        ct_series(
            top / person, slices=3, shape=(16, 16), patient_id=person, study=person, series=person, date="20200315"
        )
    return top


@pytest.fixture(scope="module")
def to(tmp_path_factory) -> Path:
    """Where all plans go, so that the archive is indexed once."""
    return tmp_path_factory.mktemp("plans") / "data"


@pytest.fixture
def planned(archive, to, monkeypatch):
    """Plan the archive with a clinical table."""

    def ask(**table: Any):
        monkeypatch.setenv("BUILDER_KEY", KEY)
        spec = {
            "name": "clinical", "license": "CC0-1.0", "sources": [{"kind": "folder", "url": str(archive)}],
            "clinical": [{**TABLE, **table}], "deid": {"patient_key": "${env:BUILDER_KEY}"},
            "samples": {"kind": "volumes"}, "report": {"outcomes": [*COLUMNS]},
        }  # fmt: skip
        return plan(DatasetSpec.model_validate(spec), to=to).plan

    return ask


def test_a_database_gives_the_columns_of_the_same_table_in_csv(seen, planned, password, tmp_path):
    quoted = [",".join("" if v is None else '"' + str(v).replace('"', '""') + '"' for v in row) for row in ROWS]
    path = tmp_path / "seen.csv"
    path.write_text("\n".join((",".join(HEADINGS), *quoted)))
    by_file = planned(url=str(path))
    by_query = planned(extract=seen.block("SELECT * FROM seen"))
    names = ["person_key", *COLUMNS]
    assert by_query.cohort.select(names).equals(by_file.cohort.select(names))
    told = by_query.cohort.sort_by("psa").select(list(COLUMNS)).to_pylist()
    assert [row["psa"] for row in told] == [0.000001, 4.1, 7.0, None]
    assert told[2] == {"sex": "M", "seen": -14, "psa": 7.0, "visits": 12, "smoker": False, "grade": "high"}
    assert "clinical" not in by_file.lock


def test_the_lock_changes_with_the_table_and_only_with_it(seen, planned, password, to):
    block = seen.block("SELECT mrn, seen, psa, sex, visits, smoker, grade FROM seen")
    first = planned(extract=block)
    snapshot = to.with_name("data.private") / "extracts" / "1.parquet"
    assert stat.S_IMODE(snapshot.stat().st_mode) == 0o600
    assert sorted(pq.read_table(snapshot)["mrn"].to_pylist()) == sorted(row[0] for row in ROWS)
    assert first.lock["clinical"][0].startswith("sql 1 ")
    seen.run("CREATE TABLE again AS SELECT * FROM seen ORDER BY psa", "ALTER TABLE seen RENAME TO old",
             "ALTER TABLE again RENAME TO seen")  # fmt: skip
    assert planned(extract=block).lock == first.lock
    seen.run("UPDATE seen SET psa = psa + 0.000001 WHERE mrn = 'P1'")
    changed = planned(extract=block).lock
    seen.run("UPDATE seen SET psa = psa - 0.000001 WHERE mrn = 'P1'")
    assert changed["clinical"] != first.lock["clinical"]
    assert {**changed, "clinical": 0} == {**first.lock, "clinical": 0}


def test_the_published_spec_tells_neither_place_nor_query(seen, planned, password):
    block = seen.block("SELECT * FROM seen WHERE mrn IN ('P1', 'P2')")
    told = planned(extract=block).published_spec["clinical"][0]
    hidden = {"url": "(withheld)", "query": "(withheld)", "sign_in": "(withheld)"}
    assert told["extract"] == {"kind": "sql", **hidden}


class Cutting(threading.Thread):
    """Passes connections on to a server; the first ones are cut when the server has said so many bytes."""

    def __init__(self, port: int, *, cuts: int, after: int) -> None:
        super().__init__(daemon=True)
        self.server, self.cuts, self.after, self.seen = port, cuts, after, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.seen += 1
            limit = self.after if self.seen <= self.cuts else None
            server = socket.create_connection(("127.0.0.1", self.server))
            threading.Thread(target=self._pass, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, limit), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, limit: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := one.recv(4096):
                other.sendall(data if limit is None else data[: limit - passed])
                passed += len(data)
                if limit is not None and passed >= limit:
                    break
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


LONG = "SELECT g AS n, repeat('x', 100) AS filler FROM generate_series(1, 20000) AS g"


@pytest.mark.parametrize("after", [10, 3000, 1_000_000], ids=["at the door", "signed in", "half way through the rows"])
def test_a_dropped_connection_is_retried(postgres, password, after):
    proxy = Cutting(postgres.port, cuts=2, after=after)
    found = Sql(**postgres.block(LONG, port=proxy.port)).take(World()).table
    proxy.listener.close()
    assert found["n"].to_pylist() == list(range(1, 20001))
    assert proxy.seen == 4  # the driver opens two, one of them for the types


def test_a_server_that_stays_away_is_named_without_secrets(postgres, password, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE_S", 0.2)
    proxy = Cutting(postgres.port, cuts=100, after=10)
    with pytest.raises(SourceError) as refused:
        Sql(**postgres.block("SELECT 'Meyer'", port=proxy.port)).take(World())
    proxy.listener.close()
    assert "the database at 127.0.0.1" in str(refused.value)
    assert "run the same command again" in str(refused.value)
    assert not any(word in str(refused.value) for word in (PASSWORD, "Meyer", "SELECT"))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT * FROM nowhere", "names a table that is not there"),
        ("SELECT secret FROM pg_class", "names a column that is not there"),
        ("SELEC 1", "no single SELECT"),
        ("SELECT 1; SELECT 2", "no single SELECT"),
        ("SELECT 'Meyer'::int", "SQLSTATE 22P02"),
        ("CREATE TABLE mine (n int)", "changes something"),
        ("COPY pg_class TO STDOUT", "expected one SELECT"),
        ("SELECT now() AS seen", "AT TIME ZONE"),
        ("SELECT array[1] AS many", "many::text"),
        ("SELECT gen_random_uuid() AS id", "id::text"),
        ("SELECT 1 AS a, 2 AS a", "two columns 'a'"),
    ],
)
def test_a_query_that_cannot_be_taken_is_refused_in_words(postgres, password, query, said):
    with pytest.raises(SpecError, match=said) as refused:
        Sql(**postgres.block(query)).take(World())
    assert "sql at 127.0.0.1" in str(refused.value)
    assert not any(word in str(refused.value) for word in (PASSWORD, "Meyer", "SELECT *"))


def test_a_password_comes_from_the_variable_that_is_named_and_from_no_other(postgres, password, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setenv("BUILDER_WRONG", "Rosebud")
    for sign_in in ({}, {"password": "BUILDER_WRONG"}, {"user": "BUILDER_WRONG", "password": "BUILDER_PG_PASSWORD"}):
        with pytest.raises(SpecError, match="refused the connection") as refused:
            Sql(**postgres.block("SELECT 1", sign_in=sign_in)).take(World())
        assert "Rosebud" not in str(refused.value)
    with pytest.raises(SpecError, match="begins with BUILDER_"):
        Sql(**postgres.block("SELECT 1", sign_in={"password": "AWS_SECRET_ACCESS_KEY"})).take(World())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://h/d", "PostgreSQL"),
        ("postgresql://h", "PostgreSQL"),
        ("postgresql://me:word@h/d", "password"),
        ("postgresql://h/d?passfile=/etc/x", "parameter 'passfile'"),
        ("postgresql://h/d?host=elsewhere", "parameter 'host'"),
        ("postgresql://h/d?sslmode=prefer", "readable by all"),
    ],
)
def test_a_url_that_holds_more_or_less_than_a_place_is_refused(url, said):
    with pytest.raises(ValueError, match=said) as refused:
        Sql(kind="sql", url=url, query="SELECT 1")
    assert "word@" not in str(refused.value)


def test_a_server_elsewhere_must_encrypt(monkeypatch, password):
    import adbc_driver_postgresql.dbapi as driver

    lines = []
    monkeypatch.setattr(
        driver, "connect", lambda line: lines.append(line) or (_ for _ in ()).throw(OSError("connection"))
    )
    monkeypatch.setattr(patience, "PATIENCE_S", 0.0)
    for url in (
        "postgresql://db.example/d",
        "postgresql://db.example/d?sslmode=verify-full",
        "postgresql://localhost/d",
    ):
        with pytest.raises(SourceError):
            Sql(kind="sql", url=url, query="SELECT 1").take(World())
    assert ["sslmode='require'" in line for line in lines] == [True, False, False]
    assert "sslmode='verify-full'" in lines[1]


def test_without_the_driver_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql.dbapi", None)
    with pytest.raises(MissingExtra, match=r"medical-dataset-builder\[sql\]"):
        Sql(kind="sql", url="postgresql://localhost/d", query="SELECT 1").take(World())
