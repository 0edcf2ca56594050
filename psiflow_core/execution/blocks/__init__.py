"""Executors that start workers in blocks, and the sources of blocks: what an author of an executor uses.

A block is a unit that a scheduler starts: a process of this machine, a job of a batch system, a pod, or an instance of
a cloud.
"""

from psiflow_core.execution.blocks.base import Blocks as Blocks
from psiflow_core.execution.blocks.base import machine_cores as machine_cores
from psiflow_core.execution.blocks.batch import WORD as WORD
from psiflow_core.execution.blocks.batch import Batch as Batch
from psiflow_core.execution.blocks.batch import Lines as Lines
from psiflow_core.execution.blocks.from_image import FromImage as FromImage
from psiflow_core.execution.blocks.from_image import OnInstances as OnInstances
from psiflow_core.execution.blocks.places import Place as Place
from psiflow_core.execution.blocks.places import own_place as own_place
from psiflow_core.execution.blocks.places import place_of as place_of
from psiflow_core.execution.blocks.places import place_of_lost as place_of_lost
from psiflow_core.execution.blocks.processes import Processes as Processes
from psiflow_core.execution.blocks.provided import Provided as Provided
from psiflow_core.execution.blocks.report import BlockReport as BlockReport
from psiflow_core.execution.blocks.report import PoolReport as PoolReport
from psiflow_core.execution.blocks.scheduler import Block as Block
from psiflow_core.execution.blocks.scheduler import BlockState as BlockState
from psiflow_core.execution.blocks.scheduler import Scheduler as Scheduler
from psiflow_core.execution.blocks.scheduler import SchedulerUnavailable as SchedulerUnavailable
from psiflow_core.execution.blocks.scheduler import SubmissionRefused as SubmissionRefused
from psiflow_core.execution.blocks.scheduler import set_up as set_up
from psiflow_core.execution.blocks.startup import Cloud as Cloud
from psiflow_core.execution.blocks.startup import Docker as Docker
from psiflow_core.execution.blocks.startup import end_told as end_told
from psiflow_core.execution.blocks.startup import start_up_script as start_up_script
from psiflow_core.execution.blocks.system import Answer as Answer
from psiflow_core.execution.blocks.system import BatchSystem as BatchSystem
from psiflow_core.execution.blocks.times import Seconds as Seconds
