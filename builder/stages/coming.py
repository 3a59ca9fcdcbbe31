"""Fetch the objects of a shard's next cases while earlier ones are built."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from builder.sources import AnySource
from builder.stages.listed import bring

GROUP: Final = 4
"""Cases whose objects are asked for together. One case may be one request, which would leave connections idle."""


@contextmanager
def coming(objects: pa.Table, sources: Sequence[AnySource]) -> Iterator[Callable[[int], None]]:
    """Have servers send the objects of cases in a thread, at most a group ahead of those that are waited for.

    Gives a function that waits for the objects of a case, given by its number, and asks for those of the next group.
    One thread may call it. It raises SourceError when a source does not answer.
    """
    groups = pc.divide(objects.column("case"), GROUP)
    begun: list[Future[None]] = []
    with ThreadPoolExecutor(1, thread_name_prefix="builder-fetch") as thread:

        def wait(case: int) -> None:
            for group in range(len(begun), case // GROUP + 2):
                begun.append(thread.submit(bring, objects.filter(pc.equal(groups, group)), sources))
            begun[case // GROUP].result()

        try:
            yield wait
        finally:
            thread.shutdown(wait=True, cancel_futures=True)
