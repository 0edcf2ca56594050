"""Files of tasks for workers that do not see the driver's file system.

The driver serves the files that a task reads (`depot`), and the worker asks for those that its node lacks (`courier`,
`shelf`). It runs the task with local paths, and brings back what the task has written (`away`). Every file is known by
its hash, on either side. Connections are encrypted, and each task's ticket opens the files of its own request only.
"""
