"""Programs that end with their owner, whatever ends it.

`Household` owns a folder and the programs that live in it. Leaving it, Ctrl-C at any point, an exception and
a SIGKILL of the owner all come to the same: no program and no folder is left.
"""

from sandbox.processes.household import Household
from sandbox.processes.program import Program

__all__ = ["Household", "Program"]
