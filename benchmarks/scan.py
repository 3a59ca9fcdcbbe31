"""What ``builder scan`` costs beyond the index, in one run.

    python benchmarks/scan.py FOLDER

Processor time of a scan without ``--html``, in one process, and of its first part, which indexes every file. Neither
holds the start of Python. Aim: at most 1.3 times the index, and memory that does not grow with the number of files.
"""

import argparse
import resource
import time
from typing import Any
from unittest.mock import patch

from builder.library.scan import archive
from builder.planning.inventory import Inventory, take_inventory
from builder.run.scan import scan


def main() -> None:
    """Print seconds and their ratio."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder")
    folder = options.parse_args().folder
    seconds: list[float] = []

    def timed(*args: Any, **kwargs: Any) -> Inventory:
        start = time.process_time()
        try:
            return take_inventory(*args, **kwargs)
        finally:
            seconds.append(time.process_time() - start)

    start = time.process_time()
    with patch.object(archive, "take_inventory", timed):
        found = scan([folder])
    whole = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{found.files} files, {found.series} image series, peak {peak} MB")
    print(f"index {seconds[0]:.1f} CPU s, scan {whole:.1f} CPU s: {whole / seconds[0]:.2f}")


if __name__ == "__main__":
    main()
