"""A program for MPI ranks: each prints, as a line of JSON, who it is, and which cores it may use.

It asks the MPI library itself, by its C interface. Where no library is found, the launcher's variables tell the rank
only. Started as ``mpirun -n 2 python -m psiflow_core.processes.hello``; it needs no package.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import time

from psiflow_core.processes.ranks import cores

LIBRARIES = ("libmpi.so.40", "libmpi.so.12", "libmpich.so.12", "libmpi.so")
"""Open MPI; MPICH, Intel MPI and Cray MPICH, which share an interface; Debian's MPICH; the one of a module set."""

MPICH_WORLD = 0x44000000
"""MPI_COMM_WORLD of MPICH and its relatives, from their mpi.h."""

RANKS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")

HOLD = 2.0
"""How long a rank stays, so that the ranks of two tasks are there at once. [s]"""


def main() -> None:
    ours = "OMPI_COMM_WORLD_RANK" in os.environ
    name, rank, size = _asked(LIBRARIES if ours else (*LIBRARIES[1:3], LIBRARIES[0], LIBRARIES[3]))
    told = {
        "rank": rank,
        "size": size,
        "library": name,
        "cores": cores(),
        "host": socket.gethostname(),
    }
    os.write(1, f"{json.dumps(told)}\n".encode())  # at once: lines of ranks may not mix
    time.sleep(HOLD)
    if name:
        ctypes.CDLL(name).MPI_Finalize()


def _asked(libraries: tuple[str, ...]) -> tuple[str, int, int]:
    """The library, and rank and size in its world; without a library "", the rank for the launcher, and 0."""
    for name in libraries:
        with contextlib.suppress(OSError):
            return name, *_world(ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL))
    return "", next((int(os.environ[rank]) for rank in RANKS if rank in os.environ), 0), 0


def _world(library: ctypes.CDLL) -> tuple[int, int]:
    """Rank and size, from the library."""
    library.MPI_Init(None, None)
    world: object = ctypes.c_int(MPICH_WORLD)
    with contextlib.suppress(ValueError):  # not Open MPI, whose handles are addresses
        world = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(library, "ompi_mpi_comm_world")))
    rank, size = ctypes.c_int(), ctypes.c_int()
    library.MPI_Comm_rank(world, ctypes.byref(rank))
    library.MPI_Comm_size(world, ctypes.byref(size))
    return rank.value, size.value


if __name__ == "__main__":
    main()
