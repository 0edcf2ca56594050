"""The driver's side: it serves the files of tasks that are under way, and takes what they have written."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from psiflow_core.errors import WorkerLost
from psiflow_core.execution.failures import failure
from psiflow_core.execution.tasks.request import Request
from psiflow_core.execution.transport.arrival import Arrival
from psiflow_core.execution.transport.ticket import Ticket
from psiflow_core.execution.transport.turns import Turns
from psiflow_core.execution.transport.waybill import Digests, waybill
from psiflow_core.execution.transport.wire import ANSWER, PIECE, Message, listening
from psiflow_core.processes.claims import Claims, Owner
from psiflow_core.structures import Plain

PORTS = (55000, 56000)
"""The range of ports that Parsl uses, so that one rule of a firewall is enough."""

ROOM = 64 * PIECE
"""Bytes that couriers have asked for and not yet read: beyond them, others wait for their turn."""

END = b"end"


@dataclass
class _Consignment:
    """The files of one task."""

    request: Request
    claim: Path | None
    outward: dict[str, str] = field(default_factory=dict)
    """Those that its worker may read: path and hash."""
    arriving: dict[str, Arrival] = field(default_factory=dict)
    arrived: dict[str, str] = field(default_factory=dict)
    """Those that are complete: path and hash. A worker that has missed an answer asks again."""

    def target(self, path: str) -> Path:
        """The place of a file that the worker has written; raises `PermissionError` outside the task's folders."""
        file = Path(path)
        if ".." in file.parts or not any(file.is_relative_to(place) for place in self.request.places):
            raise PermissionError(f"{path} is in none of the folders of the task")
        return self.request.landing(file)

    def remove(self, path: str) -> None:
        """Remove a file that the worker has removed."""
        self.arrived.pop(path, None)
        self.target(path).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what has arrived incompletely."""
        for arrival in list(self.arriving.values()):
            arrival.discard()

    def is_lasting(self, file: Path) -> bool:
        """Whether a file is of more than this task: labels, weights and candidates are."""
        return self.request.folder is None or not file.is_relative_to(self.request.folder)


class Depot:
    """Serves the files of a driver to workers of other sites, until it is closed. It is safe to use from threads."""

    def __init__(self) -> None:
        import zmq

        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket, self._port, self._key = listening(self._context, PORTS)
        self._end, self._ended = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        self._end.bind("inproc://end")
        self._ended.connect("inproc://end")
        self._consignments: dict[str, _Consignment] = {}
        self._digests, self._claims = Digests(), Claims()
        self._thread = threading.Thread(target=self._serve, name="psiflow-depot", daemon=True)
        self._thread.start()

    def claim(self, request: Request) -> Owner | None:
        """Hold the claim of a request until it has ended; returns another owner, if there is one."""
        return None if request.claim is None else self._claims.take(request.claim)

    def ticket(self, request: Request, hosts: Sequence[str]) -> Ticket:
        """Open the files of a request to the worker that will run it.

        Args:
            hosts: the driver's names or addresses, for workers.
        """
        token = secrets.token_urlsafe(24)
        self._consignments[token] = _Consignment(request, request.claim)
        return Ticket(addresses=tuple(f"{host}:{self._port}" for host in hosts), key=self._key, token=token)

    def ended(self, ticket: Ticket, outcome: Future[str]) -> None:
        """A task has ended: close its files. A worker that is only believed to be lost may still bring some."""
        claim = self._consignments[ticket.token].claim
        if claim is not None:
            self._claims.release(claim)
        if outcome.exception() is None:
            self._consignments.pop(ticket.token).discard()

    def close(self) -> None:
        """End the service."""
        self._claims.close()
        if self._thread.is_alive():
            self._end.send(END)
            self._thread.join()
        self._end.close(linger=0)
        self._context.term()

    def _serve(self) -> None:
        import zmq

        poller = zmq.Poller()
        for socket in (self._socket, self._ended):
            poller.register(socket, zmq.POLLIN)
        turns = Turns(ROOM, ANSWER)
        while self._ended not in (ready := dict(poller.poll(1000 if turns else None))):
            if self._socket in ready:
                courier, *frames = self._socket.recv_multipart()
                turns.arrived(courier, frames)
            for courier, asked in turns.next():
                answer = self._answer(asked)
                turns.answered(courier, sum(map(len, answer.pieces)))
                self._socket.send_multipart([courier, *answer.frames()])
        for consignment in self._consignments.values():
            consignment.discard()
        self._socket.close(linger=0)
        self._ended.close(linger=0)

    def _answer(self, frames: Sequence[bytes]) -> Message:
        """The answer to a message; an error is an answer, too."""
        number = None
        try:
            asked = Message.read(frames)
            number = asked.header["number"]
            answer = self._done(asked)
            return Message({**answer.header, "number": number}, answer.pieces)
        except Exception as error:  # the service must go on: the worker is told
            return Message({"number": number, "failure": failure(error).to_plain()})

    def _done(self, asked: Message) -> Message:
        what = asked.header["do"]
        if what == "greet":
            return Message({})
        consignment = self._consignments.get(asked.header["token"])
        if consignment is None:
            raise WorkerLost("the driver no longer waits for this task")
        match what:
            case "list":
                return Message({"waybill": self._listed(consignment)})
            case "read":
                pieces = [_piece(consignment, *file) for file in asked.header["files"]]
                return Message({}, pieces)
            case "write":
                for file, piece in zip(asked.header["files"], asked.pieces, strict=True):
                    _take(consignment, *file, piece=piece)
                return Message({})
            case "remove":
                for path in asked.header["paths"]:
                    consignment.remove(path)
                return Message({})
        raise ValueError(f"a depot cannot {what}")

    def _listed(self, consignment: _Consignment) -> Plain:
        found = waybill(consignment.request, self._digests)
        consignment.outward = {str(one.path): one.digest for one in (*found.named, *found.kept)}
        return found.to_plain()


def _piece(consignment: _Consignment, path: str, offset: int, length: int) -> bytes:
    """A piece of a file that the task reads."""
    if path not in consignment.outward:
        raise PermissionError(f"{path} is no file of the task")
    with open(path, "rb") as stream:
        return os.pread(stream.fileno(), length, offset)


def _take(consignment: _Consignment, path: str, digest: str, size: int, offset: int, *, piece: bytes) -> None:
    """Take a piece of a file that the task has written."""
    if consignment.arrived.get(path) == digest:
        return
    target = consignment.target(path)
    arrival = consignment.arriving.get(path)
    if arrival is None or arrival.digest != digest:
        if arrival is not None:
            arrival.discard()
        arrival = Arrival(target, digest, size, durable=consignment.is_lasting(target))
        consignment.arriving[path] = arrival
    try:
        complete = arrival.take(offset, piece)
    except BaseException:
        consignment.arriving.pop(path).discard()
        raise
    if complete:
        del consignment.arriving[path]
        consignment.arrived[path] = digest
