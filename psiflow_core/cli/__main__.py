"""`python -m psiflow_core.cli`: the command, where its script is not on PATH."""

from psiflow_core.cli import main

main()
