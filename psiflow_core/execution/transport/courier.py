"""The worker's side of the connection: it asks the driver's depot for files, and sends files there."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psiflow_core.errors import WorkerLost
from psiflow_core.execution.failures import Failure
from psiflow_core.execution.transport.arrival import Arrival
from psiflow_core.execution.transport.ticket import Ticket
from psiflow_core.execution.transport.waybill import Cargo, Waybill
from psiflow_core.execution.transport.wire import ANSWER, PIECE, Message, calling

if TYPE_CHECKING:
    import zmq

PATIENCE = 300.0
"""How long the driver may be silent: suspended, out of reach, or busy with the files of other tasks. [s]"""


class Refused(Exception):
    """The depot's answer is a failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Courier:
    """Carries files between this process and one depot. It is safe to use from several threads.

    Its methods raise `WorkerLost` if the driver does not answer, and `Refused` with the driver's own failure.
    """

    def __init__(self, addresses: Sequence[str], key: str) -> None:
        import zmq

        self._addresses, self._key = addresses, key
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._socket: zmq.Socket[bytes] | None = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def waybill(self, token: str) -> Waybill:
        """The files that the task reads."""
        return Waybill.from_plain(self._ask(token, "list").header["waybill"])

    def fetch(self, token: str, wanted: Iterable[tuple[Cargo, Path]]) -> None:
        """Fetch files of a task into local files.

        Raises:
            FileCorrupt: a file has changed since it was listed.
            OSError: a file cannot be written.
        """
        arrival, fetched = None, False
        try:
            for batch in _batches(wanted):
                fetched = True
                files = [(str(cargo.path), offset, length) for cargo, _, offset, length in batch]
                answer = self._ask(token, "read", files=files)
                for (cargo, target, offset, _), piece in zip(batch, answer.pieces, strict=True):
                    if arrival is None:
                        arrival = Arrival(target, cargo.digest, cargo.size)
                    if arrival.take(offset, piece):
                        arrival = None
            if fetched:
                self._ask(token, "greet")  # the depot is told that all was read
        finally:
            if arrival is not None:
                arrival.discard()

    def bring(self, token: str, files: Iterable[tuple[Cargo, Path]]) -> None:
        """Send local files of a task to the driver; they are there when this returns.

        Raises:
            OSError: a file cannot be read.
        """
        for batch in _batches(files):
            named = [(str(cargo.path), cargo.digest, cargo.size, offset) for cargo, _, offset, _ in batch]
            pieces = [_read(file, offset, length) for _, file, offset, length in batch]
            self._ask(token, "write", pieces, files=named)

    def remove(self, token: str, paths: Sequence[Path]) -> None:
        """Remove files of a task that the driver has."""
        self._ask(token, "remove", paths=list(map(str, paths)))

    def _ask(self, token: str, what: str, pieces: Sequence[bytes] = (), **more: object) -> Message:
        """The depot's answer; every request may arrive twice."""
        with self._lock:
            deadline = time.monotonic() + PATIENCE
            while True:
                asked = Message({"do": what, "number": next(self._numbers), "token": token, **more}, pieces)
                socket = self._connected(deadline)
                socket.send_multipart(asked.frames())
                answer = _answer(socket, asked.header["number"], min(ANSWER, deadline - time.monotonic()))
                if answer is not None:
                    break
                self._disconnect()
        failed = answer.header.get("failure")
        if failed is not None:
            raise Refused(Failure.from_plain(failed))
        return answer

    def _connected(self, deadline: float) -> zmq.Socket[bytes]:
        """The connection to the first address that answers; raises `WorkerLost`."""
        if self._socket is not None:
            return self._socket
        import zmq

        tried = [calling(self._context, address, self._key) for address in self._addresses]
        poller = zmq.Poller()
        for socket in tried:
            socket.send_multipart(Message({"do": "greet", "number": -1}).frames())
            poller.register(socket, zmq.POLLIN)
        answered = dict(poller.poll(int(1000 * max(0.0, deadline - time.monotonic()))))
        self._socket = next((socket for socket in tried if socket in answered), None)
        for socket in tried:
            if socket is not self._socket:
                socket.close(linger=0)
        if self._socket is None:
            raise WorkerLost(
                f"files of a task could not be carried: the driver does not answer at {', '.join(self._addresses)}; "
                "its address for workers must be reachable from their nodes"
            )
        return self._socket

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None


@functools.lru_cache(maxsize=2)
def courier_to(addresses: tuple[str, ...], key: str) -> Courier:
    """The courier of this process to a depot."""
    return Courier(addresses, key)


def courier_of(ticket: Ticket) -> Courier:
    """The courier of this process to the depot of a ticket."""
    return courier_to(ticket.addresses, ticket.key)


def _answer(socket: zmq.Socket[bytes], number: int, timeout: float) -> Message | None:
    """The answer with this number; None if it does not come in time. Late answers to others are left out."""
    deadline = time.monotonic() + timeout
    while socket.poll(int(1000 * max(0.0, deadline - time.monotonic()))):
        answer = Message.read(socket.recv_multipart())
        if answer.header["number"] == number:
            return answer
    return None


Piece = tuple[Cargo, Path, int, int]
"""A file, its local path, the piece's offset and length."""


def _batches(files: Iterable[tuple[Cargo, Path]]) -> Iterator[list[Piece]]:
    """The pieces of files, in order, in messages of bounded length."""
    batch: list[Piece] = []
    for cargo, file in files:
        for offset in range(0, max(1, cargo.size), PIECE):
            length = min(PIECE, cargo.size - offset)
            if batch and sum(piece[3] for piece in batch) + length > PIECE:
                yield batch
                batch = []
            batch.append((cargo, file, offset, length))
    if batch:
        yield batch


def _read(file: Path, offset: int, length: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)
