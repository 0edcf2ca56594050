"""How many blocks a pool asks for and gives back, and which workers it counts on."""

from __future__ import annotations

import pytest

from psiflow_core.execution.blocks._crew import Crew, Manager
from psiflow_core.execution.blocks._node import drain, own_gpu
from psiflow_core.execution.blocks._scaling import Size, Supplied, missing, pause, surplus
from psiflow_core.execution.blocks.places import Place, manager_name, place_of

SIZE = Size(blocks=4, min_blocks=0, workers=2, idle=60.0)


def there(block: str, tasks: int = 0, idle: float = 0.0, workers: int = 2, useless: bool = False) -> Supplied:
    return Supplied(block, workers, tasks, idle, useless)


@pytest.mark.parametrize(
    ("demand", "present", "count"),
    [(0, 0, 0), (1, 0, 1), (2, 0, 1), (3, 0, 2), (3, 1, 1), (4, 2, 0), (100, 0, 4), (100, 3, 1), (100, 4, 0)],
)
def test_blocks_are_submitted_while_tasks_want_more_workers_than_there_will_be(
    demand: int, present: int, count: int
) -> None:
    assert missing(SIZE, demand, [there(str(number)) for number in range(present)]) == count


def test_blocks_that_are_kept_need_no_tasks() -> None:
    kept = Size(blocks=4, min_blocks=2, workers=2, idle=60.0)
    assert missing(kept, 0, [there("0")]) == 1
    assert surplus(kept, 0, [there("0", idle=99.0), there("1", idle=99.0)]) == []


def test_a_block_without_workers_that_take_tasks_is_replaced_and_given_back_after_its_tasks() -> None:
    busy, empty = there("0", tasks=1, workers=0), there("1", workers=0, useless=True)
    assert missing(SIZE, 2, [busy, empty]) == 1
    assert surplus(SIZE, 2, [busy, empty]) == ["1"]


def test_the_longest_idle_blocks_are_given_back_first_and_no_more_than_the_demand_allows() -> None:
    blocks = [there("0", tasks=2), there("1", idle=70.0), there("2", idle=90.0), there("3", idle=10.0)]
    assert surplus(SIZE, 2, blocks) == ["2", "1"]
    assert surplus(SIZE, 5, blocks) == ["2"]
    assert surplus(SIZE, 8, blocks) == []


def test_pauses_grow_up_to_a_minute() -> None:
    pauses = [pause(failures) for failures in range(12)]
    assert pauses[:5] == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == 60.0


def manager(block: str, host: str = "a", tasks: int = 0, active: bool = True) -> Manager:
    return Manager(manager_name(block, host), block, host, 2, tasks, 0.0, active)


def test_tasks_of_managers_that_take_no_more_occupy_no_worker_of_others() -> None:
    crew = Crew()
    held, ready = manager("0", tasks=2), manager("1", tasks=1)
    assert crew.see([held, ready])
    assert crew.free(3) == 1
    crew.hold(held.name)
    assert crew.free(3) == 1
    assert crew.unwanted() == [held.name]
    assert crew.free(4) == 0, "a task that was sent and has not reached a manager"


def test_a_host_that_is_excluded_stays_so_for_managers_to_come() -> None:
    crew = Crew()
    crew.exclude("bad")
    late = manager("3", host="bad")
    assert not crew.see([late])
    assert (crew.workers(), crew.unwanted()) == (0, [late.name])


def test_a_managers_name_tells_its_block_and_its_host() -> None:
    name = manager_name("7", "node-12.cluster")
    assert place_of(name) == Place("7", "node-12.cluster", name)
    assert place_of("node-12.cluster") is None


@pytest.mark.parametrize(
    ("visible", "gpu"),
    [(None, "1,-1"), ("2,3", "3,-1"), ("GPU-aa, GPU-bb", "GPU-bb,-1"), ("5", "1,-1")],
)
def test_gpus_are_counted_among_those_that_the_block_may_use(visible: str | None, gpu: str) -> None:
    assert own_gpu("1,-1", visible) == gpu


def test_a_node_gets_no_task_shortly_before_its_block_ends() -> None:
    assert drain(float("inf")) == "None"
    assert 0 < int(drain(3600.0)) < 3600
    assert int(drain(2.0)) >= 1
