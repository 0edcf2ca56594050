"""Which hosts are excluded, and which attempts of a task count."""

from __future__ import annotations

from psiflow_core.execution.hosts import AT_ONCE, Hosts, host_of


def hosts(*working: str) -> Hosts:
    found = Hosts("login")
    for host in working:
        found.finished(host)
    return found


def test_the_host_of_a_worker_is_in_its_name() -> None:
    assert host_of("node1:1234") == host_of("node1:") == "node1"
    assert host_of("") == ""


def test_a_host_on_which_three_tasks_fail_in_a_row_is_excluded_and_they_have_spent_one_attempt_each() -> None:
    found = hosts()
    assert [found.failed(task, "bad", "no scratch") for task in ("a", "b", "c")] == [False, False, True]
    assert found.excluded == {"bad": "no scratch"}
    assert [found.refunded(task) for task in ("a", "b", "c")] == [0, 0, 0]


def test_a_finished_task_between_failures_speaks_for_a_host() -> None:
    found = hosts()
    for task in ("a", "b", "c", "d", "e"):
        found.failed(task, "fair", "lost")
        found.finished("fair")
    assert not found.excluded


def test_a_bad_host_does_not_eat_the_attempts_of_a_task_that_comes_back_to_it() -> None:
    found = hosts("good")
    assert [found.failed("a", "bad", "lost") for _ in range(AT_ONCE)][-1]
    assert AT_ONCE - found.refunded("a") == 1


def test_a_task_that_fails_everywhere_is_to_blame_itself() -> None:
    found = hosts("good", "better")
    for _ in range(AT_ONCE):
        found.failed("poison", "bad", "lost")
    assert found.after("poison", "good", "lost").refunded("poison") == 0
    assert not found.failed("poison", "good", "lost")
    assert found.refunded("poison") == 0
    assert found.excluded.keys() == {"bad"}


def test_a_task_that_fails_on_the_only_host_has_spent_its_attempts() -> None:
    found = hosts("only")
    for _ in range(5):
        assert not found.failed("poison", "only", "lost")
    assert found.refunded("poison") == 0


def test_the_drivers_own_host_and_an_unknown_one_are_never_excluded() -> None:
    found = hosts("good")
    for task in ("a", "b", "c", "d"):
        assert not found.failed(task, "login", "lost")
        assert not found.failed(task, "", "lost")
    assert not found.is_remote("login")
    assert found.is_remote("good")
