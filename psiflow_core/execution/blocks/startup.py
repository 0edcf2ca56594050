"""The script with which an instance of a cloud starts: it runs one block, and ends the instance whatever happens."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from psiflow_core.execution.blocks.scheduler import Block, exports, set_up

ENDED = "psiflow: the block has ended with code"
"""Words of the last line of the script's output, before the code."""

SHOWN = 3
"""Lines before it that are shown."""

SCRIPT = """#!/bin/bash
# A block of psiflow. This instance ends when its command ends, or {limit} s after its start.
over() {{
    code=$?
    [ "$BASHPID" = "$$" ] || exit "$code"  # a part of this script that was ended before it forgot this trap
    trap - EXIT
    kill "$timer" "$notice" 2>/dev/null
    echo "{ended} $code"
    {{
        :
{finish}
    }} || true
    {shutdown}
}}
trap over EXIT
told() {{
    [ "$BASHPID" = "$$" ] || exit
    told=yes
    kill -TERM "$work" 2>/dev/null
}}
told= work= timer= notice=
trap told TERM INT
pause() {{  # without a process that could be left behind: nothing is ever written into this pipe
    read -rt "$1" <> <(:) || true
}}
timer() {{
    pause {limit}
    echo 'psiflow: the time of this instance is over'
    kill -TERM "$work" 2>/dev/null
    pause {grace}
    kill -KILL "$work" 2>/dev/null
    pause {grace}
    {shutdown}
}}
notice() {{
    until {{
        false
{notice}
    }}; do pause {look}; done
    echo 'psiflow: this instance is about to be interrupted'
    kill -TERM "$work" 2>/dev/null
}}
(
{setup}
exec {command}
) &
work=$!
timer & timer=$!
notice & notice=$!
[ -z "$told" ] || kill -TERM "$work" 2>/dev/null  # before there was work
wait "$work"
code=$?
while kill -0 "$work" 2>/dev/null; do
    wait "$work"
    code=$?
done
exit "$code"
"""


@dataclass(frozen=True)
class Cloud:
    """The ways of a cloud, as lines of shell."""

    notice: str
    """Commands, the last of which succeeds once the cloud has announced that it will take the instance back."""
    finish: str = ""
    """Commands that end the instance for good, before it is shut down."""
    shutdown: str = "shutdown -h now"
    """The command that shuts it down."""
    grace: int = 60
    """Time between the walltime, at which the guard ends the work, and SIGTERM; and between SIGTERM and SIGKILL. [s]"""
    look: int = 5
    """Time between two looks for a notice. [s]"""


@dataclass(frozen=True)
class Docker:
    """A container on an instance that has Docker."""

    image: str
    binds: tuple[str, ...] = ()
    """Folders of the instance that it sees, as SOURCE or SOURCE:TARGET."""
    gpus: bool = False

    def words(self, block: Block) -> list[str]:
        """The words that run the command of a block in it."""
        binds = [word for one in self.binds for word in ("--volume", one if ":" in one else f"{one}:{one}")]
        variables = [word for name in block.secrets for word in ("--env", name)]
        options = [*variables, *binds, *(["--gpus", "all"] if self.gpus else [])]
        return ["docker", "run", "--rm", "--init", "--network", "host", *options, self.image, *block.command]


def start_up_script(
    block: Block, cloud: Cloud, setup: Sequence[str], walltime: float, container: Docker | None = None
) -> str:
    """The script. The lines of set-up are the user's shell; everything else of the block is quoted.

    Nobody pays for an instance without work: its command ends if its driver has gone, and then the instance ends. A
    command that hangs is ended after the walltime. SIGTERM, and a notice of the cloud, reach the command.

    Args:
        walltime: [s]
    """
    return SCRIPT.format(
        limit=round(walltime) + cloud.grace,
        grace=cloud.grace,
        look=cloud.look,
        ended=ENDED,
        notice=cloud.notice,
        finish=cloud.finish,
        shutdown=cloud.shutdown,
        setup="\n".join([*exports(block.secrets).splitlines(), *set_up(setup)]),
        command=shlex.join(container.words(block) if container else block.command),
    )


def end_told(output: str) -> tuple[int | None, str]:
    """The exit code in the output of an instance, and the last lines before it; None and no lines without it."""
    before, told, after = output.rpartition(ENDED)
    code = after.split()[:1]
    if not told or not code or not code[0].isdigit():
        return None, ""
    lines = [line.strip() for line in before.splitlines() if line.strip()]
    return int(code[0]), " | ".join(lines[-SHOWN:])
