"""Execution: the kinds of task, the workers that run them, and their outcomes."""

import logging

_logger = logging.getLogger("psiflow")
_logger.addHandler(logging.NullHandler())
_logger.propagate = False  # quiet on the terminal; the campaign's log and the user's handlers get every message
if _logger.level == logging.NOTSET:
    _logger.setLevel(logging.DEBUG)
