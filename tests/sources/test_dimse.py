"""The DIMSE source against Orthanc and dcmtk's dcmqrscp, where they are installed."""

import contextlib
import gc
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from builder.errors import SourceError
from builder.protocols import Describing, Source
from builder.sources import Folder, contents
from builder.sources.dimse import Dimse
from builder.stages.index import index_partition
from tests.sources.archive import make_archive
from tests.sources.quick import no_pauses
from tests.sources.servers import ORTHANC_MISSING, free_port, orthanc

pytest.importorskip("pynetdicom")
DCMTK = Path("/usr/bin")  # pynetdicom installs tools of the same names
DCMTK_MISSING = shutil.which("dcmqrscp") is None or not (DCMTK / "dcmqridx").exists()
FILE_FACTS = {"path", "size", "stamp", "header_sha256", "pixel_offset"}  # the meta group is written by the receiver


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_archive(tmp_path_factory.mktemp("archive"))


def check(source: Dimse, files: dict[str, bytes], tmp_path: Path) -> None:
    """A source lists all files, and index and objects are those of the folder."""
    assert isinstance(source, Source)
    assert isinstance(source, Describing)
    for number, data in enumerate(files.values()):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / str(number)).write_bytes(data)
    folder = Folder(url=str(tmp_path / "files"))
    expected = {r["sop_instance_uid"]: r for r in index_partition(folder, 0, list(folder.list())).to_pylist()}
    entries = list(source.list())
    assert [e.path for e in entries] == sorted(e.path for e in entries)
    assert {e.path.rpartition("/")[2] for e in entries} == set(files)
    for row in index_partition(source, 0, entries).to_pylist():
        for name in set(row) - FILE_FACTS:
            assert row[name] == expected[row["sop_instance_uid"]][name], name
    for entry in entries:
        uid = entry.path.rpartition("/")[2]
        found = pydicom.dcmread(pydicom.filebase.DicomBytesIO(source.read(entry)))
        assert found == pydicom.dcmread(pydicom.filebase.DicomBytesIO(files[uid]))


@pytest.mark.skipif(ORTHANC_MISSING, reason="Orthanc is not installed")
def test_orthanc_get_and_move(files: dict[str, bytes], tmp_path: Path) -> None:
    port = free_port()
    with orthanc(tmp_path / "orthanc", files, move_to=port) as server:
        address: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "called_ae": "ORTHANC"}
        check(Dimse(**address), files, tmp_path)
        monkey = Dimse(**address, retrieve="move", store_port=port)
        check_fresh(monkey, files, tmp_path)
        assert list(Dimse(**address, query={"PatientID": "NOBODY"}).list()) == []
        assert len(list(Dimse(**address, modalities=("RTSTRUCT",)).list())) == 1


def check_fresh(source: Dimse, files: dict[str, bytes], tmp_path: Path) -> None:
    """``check`` with nothing held from before."""
    contents._opened.cache_clear()
    check(source, files, tmp_path)


@contextlib.contextmanager
def dcmqrscp(folder: Path, files: dict[str, bytes], *, move_to: int = 0) -> Iterator[int]:
    """Serve files from dcmtk's PACS; gives its port. C-MOVE sends them to a port of this machine."""
    port = free_port()
    peer = f"builder = (BUILDER, 127.0.0.1, {move_to})\n" if move_to else ""
    (folder / "db").mkdir(parents=True)
    (folder / "cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\nHostTable BEGIN\n{peer}HostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\nPACS {folder}/db RW (200, 4000mb) ANY\nAETable END\n"
    )
    names = [folder / "db" / f"{number}.dcm" for number in range(len(files))]
    for name, data in zip(names, files.values(), strict=True):
        name.write_bytes(data)
    for at in range(0, len(names), 500):  # as they are: to send them would encode some of them anew
        subprocess.run([DCMTK / "dcmqridx", folder / "db", *names[at : at + 500]], check=True, capture_output=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["dcmqrscp", "-c", str(folder / "cfg")], stdout=log, stderr=log, cwd=folder)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(DCMTK_MISSING, reason="dcmtk is not installed")
def test_dcmtk_get(files: dict[str, bytes], tmp_path: Path) -> None:
    native = {
        uid: data
        for uid, data in files.items()
        if pydicom.dcmread(pydicom.filebase.DicomBytesIO(data)).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    }
    with dcmqrscp(tmp_path / "pacs", native) as port:
        check_fresh(Dimse(host="127.0.0.1", port=port, called_ae="PACS"), native, tmp_path)


def test_a_pacs_that_is_down_is_an_error_not_an_empty_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pynetdicom leaves the socket to the garbage collector
        with pytest.raises(SourceError, match=r"dimse at 127.0.0.1:\d+: no PACS accepts connections there .* firewall"):
            list(Dimse(host="127.0.0.1", port=free_port(), called_ae="PACS").list())
        gc.collect()


def test_move_needs_a_port() -> None:
    with pytest.raises(ValueError, match="store_port"):
        Dimse(host="h", called_ae="PACS", retrieve="move")
