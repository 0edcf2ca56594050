"""The GPUs that a process may use, by CUDA's driver library; it needs no package.

A process of its own asks, ``python -m psiflow_core.processes.devices``: a worker must not open a GPU for a question.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

PATIENCE = 60.0
"""How long a driver may take to wake a GPU. [s]"""


def visible() -> list[str]:
    """Name, memory and identity of each GPU that this process may use; empty without GPUs, or without a driver."""
    words = [sys.executable, "-m", "psiflow_core.processes.devices"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return []
    found: list[str] = json.loads(done.stdout) if done.returncode == 0 else []
    return found


def main() -> None:
    print(json.dumps(_devices()))


def _devices() -> list[str]:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    return [_described(cuda, number) for number in range(count.value)]


def _described(cuda: ctypes.CDLL, number: int) -> str:
    name, memory, identity = ctypes.create_string_buffer(100), ctypes.c_size_t(), (ctypes.c_ubyte * 16)()
    cuda.cuDeviceGetName(name, len(name), number)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), number)
    cuda.cuDeviceGetUuid(identity, number)
    return f"{name.value.decode()}, {memory.value / 2**30:.0f} GiB, {bytes(identity).hex()[:8]}"


if __name__ == "__main__":
    main()
