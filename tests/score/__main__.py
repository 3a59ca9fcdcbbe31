"""Score de-identification by an answer key: ``python -m tests.score --corpus FOLDER`` (``make deid-score``)."""

import argparse
import os
import tempfile
import time
from pathlib import Path

from tests.score.actions import Tally
from tests.score.headers import real_headers, released, score_headers, walked
from tests.score.pictures import score_pictures
from tests.score.released import KEY, VARIABLE, score_release
from tests.score.tables import score_persons, score_tables


def main() -> None:
    """Plant, de-identify, compare, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.score", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with unpacked archives of real files")
    parser.add_argument("--actions", type=int, default=1_000_000)
    parser.add_argument("--headers", type=int, default=400, help="real headers to plant into")
    parser.add_argument("--released", action="store_true", help="score what a release writes")
    parser.add_argument("--persons", type=int, default=100, help="persons of the release whose pixels are scored")
    options = parser.parse_args()
    started, tally = time.perf_counter(), Tally()
    headers = real_headers(options.corpus, options.headers)
    print(f"{len(headers)} real headers read in {time.perf_counter() - started:.0f} s", flush=True)
    identities = score_headers(headers, tally, actions=options.actions, clean=released if options.released else walked)
    if options.released:
        os.environ[VARIABLE] = KEY
        with tempfile.TemporaryDirectory() as folder:
            score_release(Path(folder), tally, persons=options.persons)
        print(f"{len(headers)} real headers, {len(identities)} objects, {time.perf_counter() - started:.0f} s")
        print(tally.text())
        return
    score_persons(identities, tally)
    score_tables(tally, rows=max(options.actions // 1000, 20))
    score_pictures(options.corpus, tally, pictures=max(options.actions // 500, 40))
    print(f"{len(headers)} real headers, {len(identities)} objects, {time.perf_counter() - started:.0f} s")
    print(tally.text())


if __name__ == "__main__":
    main()
