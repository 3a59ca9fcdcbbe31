"""Batches of tasks: each task once, in batches as long as asked for; lanes stay narrow; the deadly are told apart."""

import time

from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

from builder.run.batches import BATCH_SECONDS, LANE_WIDTH, MOST, Batches, run_batch
from builder.run.dask import DaskRunner
from builder.stages.graph import Task


@given(
    st.lists(st.sampled_from(["", "", "", "net:a", "net:b"]), max_size=200),
    st.randoms(use_true_random=False),
    st.integers(1, 8),
)
def test_every_task_is_done_once_and_lanes_stay_narrow(lanes: list[str], dice, width: int) -> None:
    tasks = [Task(f"t-{number:05d}", abs, number, lane=lane) for number, lane in enumerate(lanes)]
    waiting, flight, done, suspects = Batches(tasks), [], [], []
    while True:
        while len(flight) < 2 * width and (batch := waiting.next(width)):
            flight.append(batch)
            assert len(batch) == 1 or not any(task.lane for task in batch)
            for lane in ("net:a", "net:b"):
                assert sum(task.lane == lane for one in flight for task in one) <= LANE_WIDTH
        if not flight:
            break
        batch = flight.pop(dice.randrange(len(flight)))
        if dice.random() < 0.2:
            suspects += waiting.died(batch)
            continue
        count = dice.randint(1, len(batch))
        done += batch[:count]
        waiting.ended(batch, count, count * dice.choice([1e-5, 1e-2, 1.0]))
    assert sorted(task.key for task in (*done, *suspects)) == [task.key for task in tasks]


def test_short_tasks_go_together_and_long_ones_alone() -> None:
    waiting = Batches([Task(f"t-{number:05d}", abs, number) for number in range(10_000)])
    assert len(waiting.next(2)) == 1
    first = waiting.next(2)
    waiting.ended(first, 1, 1e-6)
    assert len(waiting.next(2)) == MOST
    waiting.ended(waiting.next(2), MOST, 10 * MOST * BATCH_SECONDS)
    assert len(waiting.next(2)) == 1


def test_the_end_is_shared_out() -> None:
    waiting = Batches([Task(f"t-{number:05d}", abs, number) for number in range(100)])
    waiting.ended(waiting.next(4), 1, 1e-6)
    sizes = []
    while batch := waiting.next(4):
        sizes.append(len(batch))
    assert sum(sizes) == 99
    assert max(sizes) == 6
    assert sizes[-1] == 1


def test_what_takes_longer_than_thought_is_left_to_others() -> None:
    values, seconds = run_batch([(time.sleep, BATCH_SECONDS)] * 9)
    assert len(values) in (2, 3)
    assert seconds < 4 * BATCH_SECONDS


def name(number: int) -> str:
    time.sleep(0.3 if number % 100 == 99 else 0.0)
    return f"{number}"


def test_batches_on_workers() -> None:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        tasks = [Task(f"stage-{number:08x}", name, number) for number in range(300)]
        seen = {outcome.task.argument: outcome.value for outcome in DaskRunner(client).run(tasks)}
        prefixes = client.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.task_prefixes))
    assert seen == {number: str(number) for number in range(300)}
    assert {prefix for prefix in prefixes if "-" not in prefix} == {"stage"}
