"""What users get wrong, as they type it: no traceback, the right exit code, and a message that says what to type.

The messages lie in ``wrong_inputs.txt``, to be read through; ``BUILDER_GOLDEN=write`` writes that file anew.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest

from builder.cli import main
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series, pattern

GOLDEN = Path(__file__).with_name("wrong_inputs.txt")
SPEC = """\
name: small
license: CC0-1.0
sources:
  - {kind: folder, url: "${data}"}
cohort:
  image: "modality == 'CT'"
deid: {patient_key: "${env:BUILDER_KEY}", retain: [sex]}
samples: {kind: volumes}
splits: {ratios: {train: 0.5, test: 0.5}}
leaks: {pixels: exact}
report: {thumbnails: 0}
"""
TABLE = """\
clinical:
  - url: "{dir}/table.csv"
    person_id: ID
    columns: {grade: {from: Grade, type: category}, age: {from: Age, type: number}}
"""
ROWS = "ID,Grade,Age\n" + "".join(f"W{n},{'high' if n % 2 else 'low'},{40 + n}\n" for n in range(6))
PLAN = ("plan", "{dir}/spec.yaml", "--to", "{dir}/dataset", "--param", "data={dir}/in")
BUILD = ("build", *PLAN[1:])
VALIDATE = ("validate", "{dir}/spec.yaml")

Prepare = Callable[[Path], object]


@dataclass(frozen=True)
class Wrong:
    """One thing that is wrong: what is replaced in the spec or added, what is done to the folder, what is typed."""

    name: str
    code: int
    change: tuple[tuple[str, str], ...] = ()
    more: str = ""
    command: tuple[str, ...] = VALIDATE
    prepare: Prepare | None = None
    rows: str = ROWS
    environment: dict[str, str] = field(default_factory=dict)


def swap(old: str, new: str) -> tuple[tuple[str, str], ...]:
    assert old in SPEC, old
    return ((old, new),)


def spec(name: str, old: str, new: str) -> Wrong:
    """A wrong spec."""
    return Wrong(name, 2, swap(old, new))


def table(name: str, code: int, old: str, new: str, *, rows: str = ROWS, prepare: Prepare | None = None) -> Wrong:
    """A wrong clinical table."""
    assert old in TABLE, old
    return Wrong(name, code, more=TABLE.replace(old, new), command=PLAN, rows=rows, prepare=prepare)


def typed(name: str, code: int, *command: str, **more: object) -> Wrong:
    """A wrong command line."""
    return Wrong(name, code, command=command, **more)  # type: ignore[arg-type]


def archive(name: str, code: int, prepare: Prepare, *, command: tuple[str, ...] = BUILD, **more: object) -> Wrong:
    """A wrong archive."""
    return Wrong(name, code, command=command, prepare=prepare, **more)  # type: ignore[arg-type]


def no_files(home: Path) -> None:
    shutil.rmtree(home / "in")
    (home / "in").mkdir()


def only_text(home: Path) -> None:
    no_files(home)
    (home / "in" / "notes.txt").write_text("see the other disk\n")


def cut_off(home: Path) -> None:
    for path in (home / "in").rglob("*.dcm"):
        path.write_bytes(path.read_bytes()[:200])


def changed(keyword: str, value: object, *, persons: int = 6) -> Prepare:
    def change(home: Path) -> None:
        for path in sorted((home / "in").rglob("*.dcm")):
            if int(path.parent.name[1:]) < persons:
                image = pydicom.dcmread(path)
                setattr(image, keyword, value)
                image.save_as(path)

    return change


def pixels_cut(home: Path) -> None:
    for path in (home / "in").rglob("*.dcm"):
        image = pydicom.dcmread(path)
        image.PixelData = image.PixelData[: len(image.PixelData) // 2 // 2 * 2]
        image.save_as(path)


def one_person(home: Path) -> None:
    for number in range(1, 6):
        shutil.rmtree(home / "in" / f"p{number}")


def touched(name: str, text: str = "") -> Prepare:
    return lambda home: (home / name).write_text(text) and None


def old_workbook(home: Path) -> None:
    (home / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512))


def a_file(home: Path) -> None:
    shutil.rmtree(home / "in")
    (home / "in").write_text("no folder\n")


def patient_ids(*ids: str) -> Prepare:
    def change(home: Path) -> None:
        for path in sorted((home / "in").rglob("*.dcm")):
            image = pydicom.dcmread(path)
            image.PatientID = ids[int(path.parent.name[1:])]
            image.save_as(path)

    return change


NUMBERED = "ID,Grade,Age\n" + "".join(f"{n}.0,low,40\n" for n in (1000, 2000, 3000, 4000, 5000, 6000))
SHORT = "ID,Grade,Age\n" + "".join(f"{n},low,40\n" for n in range(1, 6))

WRONG = [
    spec("a misspelt block", "cohort:", "cohrt:"),
    spec("a misspelt kind of source", "kind: folder", "kind: foldr"),
    spec("a source without a kind", "kind: folder, ", ""),
    spec("an empty url", '"${data}"', '""'),
    spec("a NUL in a url", '"${data}"', '"${data}\\0"'),
    spec("a url of another scheme", '"${data}"', '"ftp://bucket/x"'),
    spec("no sources", '  - {kind: folder, url: "${data}"}', "  []"),
    spec("no name", "name: small\n", ""),
    spec("a name with spaces", "name: small", "name: My Dataset"),
    spec("an unquoted text in an expression", "'CT'", "CT"),
    spec("an unknown column", "modality ==", "modalty =="),
    spec("an open parenthesis", "modality == 'CT'", "(modality == 'CT'"),
    spec("a text compared with a number", "modality == 'CT'", "modality == 5"),
    spec("the secret itself in the spec", '"${env:BUILDER_KEY}"', '"0123456789abcdef0123456789abcdef"'),
    spec("a number as the secret", '"${env:BUILDER_KEY}"', "1234567890123456789012"),
    spec("a characteristic that cannot be retained", "[sex]", "[name]"),
    spec("ratios that are no shares", "{train: 0.5, test: 0.5}", "{train: 50, test: 50}"),
    spec("ratios that do not sum to 1", "{train: 0.5, test: 0.5}", "{train: 0.5, test: 0.2}"),
    spec("a ratio in words", "{train: 0.5, test: 0.5}", "{train: half, test: 0.5}"),
    spec("a split whose name is a path", "{train: 0.5, test: 0.5}", "{../train: 0.5, test: 0.5}"),
    spec("an empty licence", "license: CC0-1.0", 'license: ""'),
    spec("samples of an unknown kind", "kind: volumes", "kind: volume"),
    spec("patches without a shape", "kind: volumes", "kind: patches, centred_on: tumor"),
    spec("an unknown stratum", "{train: 0.5, test: 0.5}", "{train: 0.5, test: 0.5}, stratify: [sexx]"),
    spec("a list where one value is expected", "thumbnails: 0", "thumbnails: [0]"),
    spec("a tab in YAML", "cohort:\n  image", "cohort:\n\timage"),
    spec("a key given twice", "license: CC0-1.0", "license: CC0-1.0\nlicense: MIT"),
    spec("a YAML anchor", "name: small", "name: &n small"),
    Wrong("three faults in structure and columns", 2, (("name:", "nme:"), ("modality", "modalty"), ("[sex]", "[sx]"))),
    Wrong("a spec in Latin-1", 2, prepare=lambda home: (home / "spec.yaml").write_bytes(b"name: M\xfcller\n") and None),
    Wrong("an empty spec", 2, prepare=touched("spec.yaml", "\n")),
    Wrong("a share of losses above 1", 2, more="max_lost: {cases: 10}\n"),
    table("a table that is not there", 2, "table.csv", "tabel.csv"),
    table("a heading that is not there", 2, "from: Grade", "from: Stage"),
    table("an identifier that is not there", 2, "person_id: ID", "person_id: Patient"),
    table("a misspelt type of a column", 2, "type: number", "type: numeric"),
    table("nobody matches", 2, "person_id: ID", "person_id: ID", rows=ROWS.replace("W", "X")),
    table("a number column without a number", 2, "from: Age", "from: Grade"),
    table("levels that match nothing", 2, "type: category", "type: category, levels: [High, Low]"),
    table("a table without rows", 2, "person_id: ID", "person_id: ID", rows="ID,Grade,Age\n"),
    table("a table that is empty", 2, "person_id: ID", "person_id: ID", rows=""),
    table("a table that is a folder", 2, "table.csv", "in"),
    table("a table that is an old workbook", 2, "table.csv", "old.xls", prepare=old_workbook),
    table("a table that is JSON", 2, "person_id: ID", "person_id: ID", rows='[{"ID": "W0"}]'),
    table("a column with a name of the dataset's own", 2, "{grade: ", "{split: "),
    table("a column of headers with another type", 2, "age: {from", "sex: {from"),
    table(
        "ids that a spreadsheet wrote as numbers",
        2,
        "person_id: ID",
        "person_id: ID",
        rows=NUMBERED,
        prepare=patient_ids("1000", "2000", "3000", "4000", "5000", "6000"),
    ),
    table(
        "ids that lost their zeros beside one that did not",
        2,
        "person_id: ID",
        "person_id: ID",
        rows=SHORT,
        prepare=patient_ids("001", "002", "003", "004", "005", "1"),
    ),
    typed("an unknown command", 2, "biuld", "{dir}/spec.yaml"),
    typed("no --to", 2, "build", "{dir}/spec.yaml"),
    typed("an empty --to", 2, "build", "{dir}/spec.yaml", "--to", "", "--param", "data={dir}/in"),
    typed("--to is a file", 2, *BUILD[:3], "{dir}/spec.yaml", *BUILD[4:]),
    typed("--to is the source", 2, *BUILD[:3], "{dir}/in", *BUILD[4:]),
    typed("--to lies in the source", 2, *BUILD[:3], "{dir}/in/out", *BUILD[4:]),
    typed("--to holds the source", 2, *BUILD[:3], "{dir}", *BUILD[4:]),
    typed("--to of a scheme for reading", 2, *BUILD[:3], "http://host/dataset", *BUILD[4:]),
    typed("--to where nothing can be made", 1, *BUILD[:3], "/proc/dataset", *BUILD[4:]),
    typed("a parameter without a value", 2, *BUILD[:-1], "data"),
    typed("an empty parameter", 2, *BUILD[:-1], "data="),
    typed("no parameter", 2, *BUILD[:4]),
    typed("a misspelt parameter", 2, *BUILD, "--param", "dta=x"),
    typed("a parameter given twice", 2, *BUILD, "--param", "data=x"),
    typed("a spec that is not there", 2, "build", "{dir}/spce.yaml", *BUILD[2:]),
    typed("a spec that is a folder", 2, "validate", "{dir}"),
    typed("a scheduler without a port", 2, *BUILD, "--cluster", "tcp://127.0.0.1"),
    typed("an unknown cluster", 2, *BUILD, "--cluster", "locall"),
    typed("more workers than a machine can have", 2, *BUILD, "--cluster", "local", "--workers", "5000"),
    typed(
        "workers without memory for themselves",
        2,
        *BUILD,
        "--cluster",
        "{dir}/small.yaml",
        prepare=touched("small.yaml", "kind: local\nmemory_gib: 0.01\n"),
    ),
    typed("no key in the environment", 2, *BUILD, environment={"BUILDER_KEY": ""}),
    typed("a key that is too short", 2, *BUILD, environment={"BUILDER_KEY": "abc"}),
    typed("a dataset that is not there", 1, "inspect", "{dir}/absent"),
    typed("an empty place of a dataset", 2, "verify", ""),
    typed("a clean-up where nothing was built", 1, "gc", "{dir}/absent"),
    typed("a check of an empty place", 2, "doctor", "--to", ""),
    typed("a bucket without a name", 2, *BUILD[:3], "s3://", *BUILD[4:]),
    typed(
        "a profile that is no text",
        2,
        *BUILD,
        "--cluster",
        "{dir}/profile.yaml",
        prepare=lambda home: (home / "profile.yaml").write_bytes(b"kind: lok\xe4l\n") and None,
    ),
    typed("a name that nobody knows", 1, "explain", "{dir}/absent", "1.2.3"),
    archive("a source that is a file", 1, a_file),
    typed("a scan of a file", 2, "scan", "{dir}/spec.yaml"),
    typed("a scan whose page would lie in the archive", 2, "scan", "{dir}/in", "--html", "{dir}/in/page.html"),
    archive("a source that is not there", 1, lambda home: shutil.rmtree(home / "in")),
    archive("a source without files", 1, no_files),
    archive(
        "a source whose include lets nothing through",
        1,
        no_files,
        change=swap('"${data}"', '"${data}", include: ["*.dc"]'),
    ),
    archive("nothing but text", 1, only_text),
    archive("files that are cut off", 1, cut_off),
    archive("a modality that is not there", 1, lambda home: None, change=swap("'CT'", "'PET'")),
    archive("a modality in small letters", 1, lambda home: None, change=swap("'CT'", "'ct'"), command=PLAN),
    archive(
        "a rule that nothing meets",
        1,
        lambda home: None,
        more='cohort:\n  rules: [{name: large, keep: "slices > 99"}]\n',
        change=(("cohort:\n  image: \"modality == 'CT'\"\n", ""),),
    ),
    archive("one person for two splits", 1, one_person),
    archive("pixels that are cut off", 1, pixels_cut),
    archive(
        "radiographs, which are excluded",
        1,
        changed("SOPClassUID", "1.2.840.10008.5.1.4.1.1.1"),
        change=swap("modality == 'CT'", "instances > 0"),
    ),
    archive("images that declare text in their pixels", 1, changed("BurnedInAnnotation", "YES")),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six persons with a CT of four slices each."""
    home = tmp_path_factory.mktemp("small")
    for number in range(6):
        voxels = pattern((4, 8, 8)) + 5 * number
        folder = home / "in" / f"p{number}"
        ct_series(folder, patient_id=f"W{number}", study=str(number), slices=4, shape=(8, 8), voxels=voxels)
    return home


@pytest.fixture
def told(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A function that does one wrong thing, and returns the exit code and what was printed."""

    def run(wrong: Wrong, *more: str) -> tuple[int, str, str]:
        shutil.copytree(small / "in", tmp_path / "in")
        text = SPEC
        for old, new in wrong.change:
            text = text.replace(old, new)
        (tmp_path / "spec.yaml").write_text(text + wrong.more.replace("{dir}", str(tmp_path)))
        (tmp_path / "table.csv").write_text(wrong.rows)
        if wrong.prepare is not None:
            wrong.prepare(tmp_path)
        for name, value in {"BUILDER_KEY": KEY, "COLUMNS": "80", **wrong.environment}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as left:
            main([part.replace("{dir}", str(tmp_path)) for part in wrong.command] + [*more])
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return run


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_what_is_wrong_is_said(wrong: Wrong, told, tmp_path: Path) -> None:
    code, out, err = told(wrong)
    message = shown(wrong, out, err, tmp_path)
    assert code == wrong.code, message
    assert "Traceback" not in err
    assert re.search(r"expected|did you mean|Usage|row 1 has", message), message
    assert not (tmp_path / "dataset" / "CURRENT").exists()
    if os.environ.get("BUILDER_GOLDEN") == "write":
        keep(wrong, message)
    assert kept()[wrong.name] == message


IN_JSON = ("a misspelt kind of source", "an empty parameter", "a source without files")


@pytest.mark.parametrize("wrong", [w for w in WRONG if w.name in IN_JSON], ids=lambda wrong: wrong.name)
def test_machines_are_told_in_json(wrong: Wrong, told) -> None:
    code, out, _ = told(wrong, "--json")
    document = json.loads(out)
    assert code == wrong.code
    if wrong.command == VALIDATE:
        assert document["valid"] is False
        assert [(f["line"], f["column"]) for f in document["faults"]] == [(4, 5)]
    else:
        assert set(document["error"]) == {"kind", "message", "faults"}


def test_the_golden_file_holds_nothing_else() -> None:
    assert list(kept()) == [wrong.name for wrong in WRONG]
    assert len(WRONG) >= 60


def shown(wrong: Wrong, out: str, err: str, home: Path) -> str:
    """What a user sees, without the places and times of this run: of a plan its last lines, of stderr its errors."""
    lines = [
        line for line in err.splitlines() if not re.match(r"(list|index|survey|plan|build|link): |leaks:|finish:", line)
    ]
    if wrong.command[0] == "plan" and "a build would publish nothing" in out:
        lines = out[out.index("  a build would publish nothing") :].splitlines() + lines
    text = "\n".join(lines).replace(str(home), "DIR").replace("/private", "")
    typed = " ".join(part.replace("{dir}", "DIR") or "''" for part in wrong.command)
    return f"$ builder {typed}   -> exit {wrong.code}\n{text}".rstrip()


def kept() -> dict[str, str]:
    """The golden file: name to message."""
    if not GOLDEN.exists():
        return {}
    blocks = re.split(r"^## (.*)\n", GOLDEN.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {name: text.strip("\n") for name, text in zip(blocks[::2], blocks[1::2], strict=True)}


def keep(wrong: Wrong, message: str) -> None:
    messages = {**kept(), wrong.name: message}
    ordered = [name for name in (w.name for w in WRONG) if name in messages]
    GOLDEN.write_text("\n".join(f"## {name}\n{messages[name]}\n" for name in ordered), encoding="utf-8")
