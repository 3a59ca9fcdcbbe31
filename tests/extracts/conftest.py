"""A PostgreSQL server of the tests' own, in a folder that goes with it."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "only-for-tests"


@dataclass(frozen=True)
class Postgres:
    """A running server with the user ``builder``."""

    port: int

    def run(self, *statements: str) -> None:
        import adbc_driver_postgresql.dbapi as driver

        line = f"host=127.0.0.1 port={self.port} dbname=postgres user=builder password={PASSWORD}"
        with driver.connect(line) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            connection.commit()

    def block(self, query: str, *, port: int | None = None, **more: Any) -> dict[str, Any]:
        """The block of a spec that asks a query."""
        url = f"postgresql://builder@127.0.0.1:{port or self.port}/postgres"
        return {"kind": "sql", "url": url, "query": query, "sign_in": {"password": "BUILDER_PG_PASSWORD"}, **more}


def _programs() -> Path | None:
    places = [Path(found).parent for found in [shutil.which("initdb")] if found]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server; PostgreSQL refuses to be started by root, which becomes ``nobody`` for it."""
    programs = _programs()
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is missing: make servers installs it")
        pytest.skip("PostgreSQL is not installed (make servers)")
    place = Path(tempfile.mkdtemp(prefix="builder-postgres-"))  # not below pytest's folders, which only root may enter
    as_user: dict[str, Any] = {"cwd": place}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(place, nobody.pw_uid, nobody.pw_gid)
        as_user |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    secret, data, port = place / "secret", place / "data", _free_port()
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    made = ["--username=builder", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={place} -c fsync=off"
    initdb = [str(programs / "initdb"), "-D", str(data), f"--pwfile={secret}", *made]
    start = [str(programs / "pg_ctl"), "-D", str(data), "-l", str(place / "log"), "-w", "-o", options, "start"]
    subprocess.run(initdb, check=True, capture_output=True, **as_user)
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL, **as_user)
    try:
        yield Postgres(port)
    finally:
        stop = [str(programs / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop"]
        subprocess.run(stop, check=True, capture_output=True, **as_user)
        shutil.rmtree(place)


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the server's password where the block of a spec says."""
    monkeypatch.setenv("BUILDER_PG_PASSWORD", PASSWORD)
