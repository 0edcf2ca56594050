"""The supply of blocks of a pool: submitted while tasks want workers, given back when idle, cancelled at the end."""

from __future__ import annotations

import itertools
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from psiflow_core.errors import PoolFailed
from psiflow_core.execution.blocks._book import IN_VAIN, Book, Known
from psiflow_core.execution.blocks._crew import Crew
from psiflow_core.execution.blocks._patience import Patience
from psiflow_core.execution.blocks._record import Record
from psiflow_core.execution.blocks._scaling import Size, Supplied, missing, pause, surplus
from psiflow_core.execution.blocks.scheduler import Block, Scheduler, SchedulerUnavailable, SubmissionRefused

logger = logging.getLogger("psiflow.pools")

STEP = 1.0
"""The longest time between two decisions. [s]"""

CLOSING = 60.0
"""How long a scheduler may be unavailable when the last jobs are cancelled; the pause after it refused one more block
than it allows. [s]"""

BLOCKS = "blocks"
"""The folder in a pool's folder with the scripts and the output of its blocks."""


def new_tag() -> str:
    """The first letters of the names of all jobs of a pool."""
    return f"psi{uuid.uuid4().hex[:8]}"


class Supply:
    """Keeps as many blocks as a pool needs, in a thread of its own.

    Args:
        command: the words of a block's command, by its number.
        demand: the number of tasks that run or wait for a worker.
        hold: called to send no more tasks to managers, and to look at their tasks again.
        failed: called if the pool cannot have workers.
        walltime: wall time of a block, if known. [s]
        record: where the jobs are noted; None if they cannot outlive the driver.
    """

    def __init__(
        self,
        label: str,
        scheduler: Scheduler,
        size: Size,
        folder: Path,
        crew: Crew,
        *,
        command: Callable[[str], tuple[str, ...]],
        demand: Callable[[], int],
        hold: Callable[[Sequence[str]], None],
        failed: Callable[[PoolFailed], None],
        on_every_node: bool,
        walltime: float | None,
        tag: str,
        record: Record | None,
        secrets: Callable[[], Mapping[str, str]],
    ) -> None:
        self.book = Book(label, folder, crew, walltime)
        self._label, self._scheduler, self._size, self._folder, self._crew = label, scheduler, size, folder, crew
        self._command, self._demand, self._hold, self._failed = command, demand, hold, failed
        self._on_every_node, self._walltime = on_every_node, walltime
        self._name = f"{tag}-{re.sub('[^a-z0-9]+', '-', label.lower())[:20].strip('-')}"
        self._record, self._secrets = record, secrets
        self._numbers = itertools.count()
        self._wake, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"psiflow-blocks-{label}", daemon=True)
        self._asking, self._submitting = Patience(label), Patience(label)
        self._unanswered: list[tuple[str, Block]] = []
        """Blocks whose submission had no answer, by number: the scheduler may have them all the same."""
        self._doubtful = False
        """Whether there was one."""
        self._polled = 0.0
        self._wanted = time.monotonic()
        """When tasks last wanted more workers than were present."""
        self._room, self._expected = True, 0

    @property
    def trouble(self) -> str:
        """The words of a scheduler that is unavailable, or refuses more blocks; else empty."""
        return self._submitting.words or self._asking.words

    def start(self) -> None:
        (self._folder / BLOCKS).mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def end(self) -> None:
        """Let it cancel every block, and start no more."""
        self._over.set()
        self._wake.set()

    def stop(self) -> None:
        """Cancel every block, and wait until that is done."""
        self.end()
        if self._thread.ident is None:
            self._close()
        else:
            self._thread.join()

    def notice(self) -> None:
        """The demand has grown."""
        if self._room and self._demand() > self._expected:
            self._wake.set()

    def interrupted(self, number: str) -> bool:
        """Whether a block was ended by its scheduler, or by its wall time, rather than by its own processes.

        True for a block of which nothing can be learned.
        """
        known = self.book.get(number)
        if known is None:
            return True
        if known.ended is None and self._crew.of(number):
            return False
        if known.ended is None:
            try:
                self.book.note(known, self._scheduler.states([known.job])[known.job])
            except SchedulerUnavailable:
                return True
        return known.state.interrupted or known.timed_out(self._walltime)

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._step()
                self._wake.wait(min(STEP, self._scheduler.interval))
                self._wake.clear()
        except Exception as error:  # the scheduler is a third party's
            logger.exception("pool '%s': its scheduler fails", self._label)
            self._failed(PoolFailed(f"the scheduler of pool '{self._label}' fails: {type(error).__name__}: {error}"))
        self._close()

    def _step(self) -> None:
        self.book.prove()
        self._find_unanswered()
        self._poll()
        ended = self.book.in_vain()
        if len(ended) >= IN_VAIN:
            self._failed(PoolFailed(self.book.why(ended)))
            return
        alive, demand = self.book.alive(), max(0, self._demand() - self._crew.spent())
        if demand > self._crew.workers():
            self._wanted = time.monotonic()
        supplied = [self._supplied(one) for one in alive if not one.given_back]
        self._give_back(surplus(self._size, demand, supplied), {one.block for one in supplied if one.useless})
        supplied = [self._supplied(one) for one in alive]
        self._expected = sum(one.workers for one in supplied)
        self._room = len(supplied) < self._size.blocks
        if self._submitting.ready:
            self._submit(missing(self._size, demand, supplied))

    def _poll(self) -> None:
        """Ask for the states of the blocks that have not ended, if it is time."""
        alive, now = self.book.alive(), time.monotonic()
        if not alive or now < self._polled + self._scheduler.interval or not self._asking.ready:
            return
        self._polled = now
        try:
            states = self._scheduler.states([one.job for one in alive])
        except SchedulerUnavailable as error:
            self._asking.failed(error)
            return
        self._asking.succeeded()
        for one in alive:
            self.book.note(one, states[one.job])
        ended = [one.job for one in alive if one.ended is not None]
        if ended and self._record is not None:
            self._record.ended(ended)

    def _supplied(self, known: Known) -> Supplied:
        if known.given_back:
            return Supplied(known.number, 0, 0, 0.0)
        if known.number not in self._crew.answered:
            idle = time.monotonic() - max(known.submitted, self._wanted)
            return Supplied(known.number, self._size.workers, 0, idle)
        managers = self._crew.of(known.number)
        workers, tasks = self._crew.workers_of(known.number), sum(one.tasks for one in managers)
        idle = min((one.idle for one in managers), default=0.0)
        return Supplied(known.number, workers, tasks, idle, useless=not workers and not tasks)

    def _submit(self, count: int) -> None:
        for _ in range(count):
            if self._over.is_set():
                return
            number = str(next(self._numbers))
            command, name = self._command(number), f"{self._name}-{number}"
            folder, secrets = self._folder / BLOCKS, self._secrets()
            block = Block(name, command, folder, self._on_every_node, self._crew.excluded, secrets)
            try:
                job = self._scheduler.submit(block)
            except SchedulerUnavailable as error:
                self._unanswered.append((number, block))
                self._doubtful = True
                self._submitting.failed(error)
                return
            except SubmissionRefused as error:
                self._refused(error)
                return
            self._submitting.succeeded()
            self._add(Known(block, number, job))

    def _add(self, known: Known) -> None:
        if self._record is not None:
            self._record.submitted(known.number, known.job)
        self.book.add(known)

    def _find_unanswered(self) -> None:
        """Take the jobs into the book that the scheduler has although it did not answer."""
        if not self._unanswered or not self._submitting.ready:
            return
        try:
            found = self._scheduler.find(self._name)
        except SchedulerUnavailable as error:
            self._submitting.failed(error)
            return
        for number, block in self._unanswered:
            if block.name in found:
                self._add(Known(block, number, found[block.name]))
        self._unanswered.clear()

    def _refused(self, error: Exception) -> None:
        """A first block that is refused is the end of the pool; of a further one it is a limit on their number."""
        if self.book.alive():
            self._submitting.failed(error, least=CLOSING)
        else:
            self._failed(PoolFailed(f"the scheduler refuses the blocks of pool '{self._label}': {error}"))

    def _give_back(self, numbers: Sequence[str], useless: Collection[str]) -> None:
        """Cancel blocks, some of them useless, unless a task has reached them since."""
        if numbers:
            self._hold([one.name for number in numbers for one in self._crew.of(number)])
        chosen = [one for one in self.book.alive() if one.number in numbers]
        chosen = [one for one in chosen if not any(manager.tasks for manager in self._crew.of(one.number))]
        if not chosen:
            return
        for one in chosen:
            one.given_back, one.useless = True, one.number in useless and not self._on_excluded_host(one)
        try:
            self._scheduler.cancel([one.job for one in chosen])
        except SchedulerUnavailable as error:
            self._asking.failed(error)
            for one in chosen:
                one.given_back = False
            return
        logger.info("pool '%s' gives blocks back: %s", self._label, ", ".join(one.number for one in chosen))

    def _on_excluded_host(self, known: Known) -> bool:
        return any(manager.host in self._crew.excluded for manager in self._crew.of(known.number))

    def _close(self) -> None:
        empty = self._cancel_all()
        if self._record is not None:
            self._record.close(empty)

    def _cancel_all(self) -> bool:
        """Cancel every block, and try again for a while if the scheduler is unavailable; returns whether that is done.

        Otherwise the record tells the next driver.
        """
        jobs, deadline = [one.job for one in self.book.alive()], time.monotonic() + CLOSING
        for attempt in itertools.count(1):
            try:
                if self._doubtful:
                    jobs = sorted({*jobs, *self._scheduler.find(self._name).values()})
                if jobs:
                    self._scheduler.cancel(jobs)
                return True
            except SchedulerUnavailable as error:
                failed: Exception = error
                if time.monotonic() + pause(attempt) > deadline:
                    break
                time.sleep(pause(attempt))
            except Exception as error:  # the scheduler is a third party's
                failed = error
                break
        words = "pool '%s': jobs %s could not be cancelled; the next driver cancels them: %s"
        logger.warning(words, self._label, ", ".join(jobs), failed)
        return False
