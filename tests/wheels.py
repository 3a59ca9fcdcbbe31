"""Builds the wheel and installs it into empty environments, as users do: does it start, and how large is it?

    python -m tests.wheels                            # every environment, on every Python that is found
    python -m tests.wheels --only reader --only default --python python3.12

Pythons are those named by ``--python``, else all of pyenv and of the PATH that the project supports. Where uv is on the
PATH it installs, with bytecode as pip writes it: the same packages and sizes in a fifth of the time.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
READER = ("numpy", "pyarrow", "numcodecs", "google-crc32c", "obstore")
NOT_FOR_USERS = ("test", "docs", "peers")
RECOMMENDED = ("dicomweb,slurm", "monai,torch", "nnunet,torch")
LIMITS_MB = {"reader": 310, "default": 950}
PYTHONS = ("3.11", "3.12", "3.13")


def main() -> None:
    """Print a line an environment, and exit with 1 if one does not start or is too large."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", action="append", help="an environment: reader, default, or extras")
    options.add_argument("--python", action="append")
    told = options.parse_args()
    extras = [name for name in PROJECT["optional-dependencies"] if name not in NOT_FOR_USERS]
    wanted = told.only or ["reader", "default", *extras, *RECOMMENDED]
    faults = []
    with tempfile.TemporaryDirectory() as scratch:
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", scratch, str(ROOT))
        (wheel,) = Path(scratch).glob("*.whl")
        for python in told.python or pythons():
            for name in wanted:
                place = Path(scratch) / "environment"
                try:
                    size, seen = tried(name, wheel, python=python, place=place)
                except subprocess.CalledProcessError as error:
                    size, seen = 0.0, f"FAILED: {' '.join(map(str, error.cmd[-3:]))}: {error.stderr.strip()[-300:]}"
                if seen.startswith("FAILED") or size > LIMITS_MB.get(name, float("inf")):
                    faults.append((python, name))
                print(f"{Path(python).resolve().parent.parent.name:>10}  {name:16} {size:7.0f} MB  {seen}", flush=True)
                shutil.rmtree(place, ignore_errors=True)
    sys.exit(f"{len(faults)} do not start or are too large: {faults}" if faults else 0)


def pythons() -> Iterator[str]:
    """Yield the interpreters that are there, one for each version that the project supports."""
    for version in PYTHONS:
        kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
        found = str(kept[-1]) if kept else shutil.which(f"python{version}")
        if found:
            yield found


def tried(name: str, wheel: Path, *, python: str, place: Path) -> tuple[float, str]:
    """Return the MB (10^6 bytes) that an environment takes, and what ran in it."""
    run(python, "-m", "venv", "--without-pip", str(place))
    inside = str(place / "bin" / "python")
    pip = installer(inside)
    if name == "reader":
        run(*pip, *READER)
        run(*pip, "--no-deps", "--no-compile", str(wheel))
        run(inside, "-c", "import builder, builder.reader; builder.open_dataset")
        return size_mb(place), "import builder.reader"
    run(*pip, str(wheel) if name == "default" else f"{wheel}[{name}]")
    for command in (["--help"], ["validate", str(ROOT / "specs" / "phantom.yaml")]):
        run(str(place / "bin" / "builder"), *command)
    doctor = subprocess.run([str(place / "bin" / "builder"), "doctor"], capture_output=True, text=True, check=False)
    if "Traceback" in doctor.stderr or not doctor.stdout:
        raise subprocess.CalledProcessError(doctor.returncode, ["builder", "doctor"], stderr=doctor.stderr)
    run(inside, "-c", "import builder.reader")
    return size_mb(place), "builder --help, validate, doctor; import builder.reader"


def installer(inside: str) -> tuple[str, ...]:
    """Return the command, less the packages, that installs into the environment of an interpreter."""
    if uv := shutil.which("uv"):
        return uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", inside
    return sys.executable, "-m", "pip", "--python", inside, "install", "--quiet", "--disable-pip-version-check"


def run(*command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True, capture_output=True, text=True, cwd=tempfile.gettempdir())


def size_mb(place: Path) -> float:
    """Return what lies below a folder in 10^6 bytes, as ``du --apparent-size --block-size=MB`` counts."""
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


if __name__ == "__main__":
    main()
