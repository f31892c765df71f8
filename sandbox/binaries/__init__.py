"""Where the control plane's programs come from: `find()`, first hit wins."""

from sandbox.binaries.model import PROGRAMS, Binaries
from sandbox.binaries.sources import find

__all__ = ["PROGRAMS", "Binaries", "find"]
