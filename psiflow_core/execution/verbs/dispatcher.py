"""The thread behind a context's verbs: it starts tasks once their inputs exist, and receives their outcomes."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from psiflow_core.errors import ContextLeft
from psiflow_core.execution.failures import ATTEMPTS, DIVERGED, Failure, worth_another
from psiflow_core.execution.hosts import Hosts, host_of, of_host
from psiflow_core.execution.tasks.request import Outcome, Request
from psiflow_core.execution.verbs.handles import Handle
from psiflow_core.execution.verbs.known import known
from psiflow_core.execution.verbs.places import Places
from psiflow_core.execution.workers import Workers
from psiflow_core.files import LATE
from psiflow_core.processes.claims import Watch
from psiflow_core.processes.logs import LOG, level, written_to

T = TypeVar("T")

LOOK = 1.0
"""How long to wait for outcomes before checking for dead pools. [s]"""

log = logging.getLogger("psiflow.context")


class Dispatcher:
    """Runs verbs, which are coroutines, in one thread with one event loop."""

    def __init__(self, workers: Workers, places: Places) -> None:
        self.workers = workers
        self.places = places
        self._level = level()
        self._desk = workers.desk()
        self._hosts = Hosts(socket.gethostname())
        self._sent: dict[str, asyncio.Future[Outcome]] = {}
        self._under_way: dict[Path, asyncio.Task[Outcome]] = {}
        self._handles: set[Handle[Any, Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._some: asyncio.Event = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="psiflow-verbs", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T], handle: Handle[T, Any]) -> None:
        """Run a verb; its result or error goes to the handle."""
        self._handles.add(handle)
        asyncio.run_coroutine_threadsafe(self._fulfil(work, handle), self._loop)

    async def finished(self, request: Request) -> Outcome:
        """The outcome of a task: found in its folder, or computed. Equal requests share one task."""
        folder = request.own_folder
        if folder not in self._under_way:
            self._under_way[folder] = self._loop.create_task(self._finish(request))
            self._under_way[folder].add_done_callback(lambda _: self._under_way.pop(folder, None))
        return await asyncio.shield(self._under_way[folder])

    async def released(self, claim: Path) -> None:
        """Wait until the label of a claim exists, or its owner has given it up or died."""
        watch = Watch(claim)
        while not watch.over():
            await asyncio.sleep(LOOK)

    def close(self) -> None:
        """End the thread; verbs under way fail with `ContextLeft`."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._desk.wake()
            self._thread.join()
        for handle in list(self._handles):
            handle.fail(
                ContextLeft(
                    f"the context was left before the end of this ({handle!r}); run the same again with "
                    f"folder={str(self.places.folder)!r}: finished tasks are found there"
                )
            )
        self._handles.clear()

    def _serve(self) -> None:
        with written_to(self.places.folder / LOG, self._level):
            self._run_loop()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        receiving = self._loop.create_task(self._receive())
        try:
            self._loop.run_forever()
        finally:
            left = [task for task in asyncio.all_tasks(self._loop) if task is not receiving]
            for task in (receiving, *left):
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(receiving, *left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _fulfil(self, work: Coroutine[Any, Any, T], handle: Handle[T, Any]) -> None:
        try:
            value = await work
        except asyncio.CancelledError:
            raise  # the context was left: `close` sets the handle's error
        except (Exception, SystemExit) as error:  # the handle raises it; a plugin's code may call sys.exit
            log.warning("%s failed: %s", handle, error)
            self._handles.discard(handle)
            handle.fail(error)
        else:
            self._handles.discard(handle)
            handle.fulfil(value)

    async def _finish(self, request: Request) -> Outcome:
        """Compute a task without a known outcome; try again after a failure of the machine, or the end of a block."""
        attempts, cut = 0, False
        while True:
            outcome = known(request)
            if outcome is not None:
                log.info("found %s", request.own_folder.name)
                return outcome
            outcome = await self._computed(request, first=cut)
            if outcome.failure is not None:
                outcome = known(request) or outcome  # its worker may have been lost after it had finished
            cut = outcome.is_cut
            attempts += not cut
            if not cut and not self._again(request, outcome, attempts):
                return outcome
            assert outcome.failure is not None
            log.warning("started again %s: %s", request.own_folder.name, outcome.failure.message)

    def _again(self, request: Request, outcome: Outcome, attempts: int) -> bool:
        """Whether a task is worth another attempt; hosts on which tasks fail are excluded."""
        failed, task, host = outcome.failure, request.own_folder.name, host_of(outcome.worker)
        if failed is None or not of_host(failed.type, failed.reason):
            self._hosts.finished(host)
        elif self._hosts.failed(task, host, failed.message):
            log.warning("host %s is excluded: several tasks in a row failed on it; the last: %s", host, failed.message)
        left = ATTEMPTS - (attempts - self._hosts.refunded(task))
        self.workers.exclude(self._hosts.excluded)
        return failed is not None and left > 0 and (self._elsewhere(failed, host) or _repeats(request, failed))

    def _elsewhere(self, failed: Failure, host: str) -> bool:
        """Whether a failure may not repeat on another host."""
        return of_host(failed.type, failed.reason) and self._hosts.is_remote(host)

    async def _computed(self, request: Request, first: bool) -> Outcome:
        key = str(request.own_folder)
        self._sent[key] = self._loop.create_future()
        try:
            self._desk.submit(key, request, first)
            log.info("started %s", request.own_folder.name)
            self._some.set()
            outcome = await self._sent[key]
            await self._seen(request, outcome)
            return outcome
        finally:
            self._sent.pop(key, None)

    async def _seen(self, request: Request, outcome: Outcome) -> None:
        """Wait until the files of a result can be seen: a worker on another machine has just written them."""
        until = self._loop.time() + LATE
        while outcome.value is not None and request.is_late(outcome.value) and self._loop.time() < until:
            await asyncio.sleep(LOOK)

    async def _receive(self) -> None:
        """Pass outcomes to their verbs."""
        while True:
            await self._some.wait()
            try:
                ended = await asyncio.to_thread(self._ended)
            except Exception as error:  # no outcome could be delivered: all waiting verbs get this error
                ended = [(key, error) for key in self._sent]
            for key, outcome in ended:
                self._hand_on(key, outcome)
            if not self._sent:
                self._some.clear()

    def _ended(self) -> list[tuple[str, Outcome | BaseException]]:
        return list(self._desk.ended(LOOK))

    def _hand_on(self, key: str, ended: Outcome | BaseException) -> None:
        waiting = self._sent.get(key)
        if waiting is None or waiting.done():
            return
        if isinstance(ended, BaseException):
            waiting.set_exception(ended)
        else:
            waiting.set_result(ended)


def _repeats(request: Request, failed: Failure) -> bool:
    """Whether the same request is worth another attempt."""
    return failed.type != DIVERGED and worth_another(request.kind, failed.type, failed.reason)
