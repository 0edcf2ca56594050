"""Messages between depot and couriers: a JSON object, and pieces of files as plain bytes.

Connections use ZeroMQ's CURVE (https://rfc.zeromq.org/spec/26/): they are encrypted, and the depot proves its
identity.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psiflow_core.structures import Plain

if TYPE_CHECKING:
    import zmq

PIECE = 2**20
"""The longest piece of a file, and about the longest message. [bytes]"""

ANSWER = 60.0
"""After so long without an answer, a courier connects anew, and asks again. [s]"""


@dataclass(frozen=True)
class Message:
    """A request of a worker, or the depot's answer."""

    header: Plain
    pieces: Sequence[bytes] = ()

    def frames(self) -> list[bytes]:
        return [json.dumps(self.header).encode(), *self.pieces]

    @classmethod
    def read(cls, frames: Sequence[bytes]) -> Message:
        """The message in these frames; raises `ValueError` if it is none."""
        header = json.loads(frames[0])
        if not isinstance(header, dict):
            raise ValueError("a message begins with a JSON object")
        return cls(header, frames[1:])


def listening(context: zmq.Context[zmq.Socket[bytes]], ports: tuple[int, int]) -> tuple[zmq.Socket[bytes], int, str]:
    """The socket of a depot, its port, and its public key."""
    import zmq

    public, secret = zmq.curve_keypair()
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    socket.curve_secretkey, socket.curve_publickey, socket.curve_server = secret, public, True
    port = socket.bind_to_random_port("tcp://*", *ports)
    return socket, port, public.decode()


def calling(context: zmq.Context[zmq.Socket[bytes]], address: str, key: str) -> zmq.Socket[bytes]:
    """The socket of a courier to the depot with this public key."""
    import zmq

    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_serverkey = key.encode()
    socket.connect(f"tcp://{address}")
    return socket
