"""Kinds of tasks, one file each: the request, the work of a worker, and the result."""
