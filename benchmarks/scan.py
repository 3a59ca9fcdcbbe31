"""What ``builder scan`` costs beyond the index, in one run.

    python benchmarks/scan.py FOLDER

Processor time of a scan without ``--html``, in one process, and of its first part, which indexes every file. Neither
holds the start of Python. Aim: at most 1.3 times the index, and memory that does not grow with the number of files.
"""

import argparse
import resource
import time

from builder.library.scan import archive
from builder.run.scan import scan

index = archive.take_inventory


def main() -> None:
    """Print seconds and their ratio."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder")
    folder = options.parse_args().folder
    seconds: list[float] = []

    def timed(*args, **kwargs):  # type: ignore[no-untyped-def]
        start = time.process_time()
        try:
            return index(*args, **kwargs)
        finally:
            seconds.append(time.process_time() - start)

    archive.take_inventory = timed
    start = time.process_time()
    found = scan([folder])
    whole = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{found.files} files, {found.series} image series, peak {peak} MB")
    print(f"index {seconds[0]:.1f} CPU s, scan {whole:.1f} CPU s: {whole / seconds[0]:.2f}")


if __name__ == "__main__":
    main()
