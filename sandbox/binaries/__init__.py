"""Where the control plane's programs come from: `find()`, first hit wins.

sources.py    the order, and the one message when nothing works
releases.py   the official downloads and their checksums
transfer.py   one file over HTTP: resumed, verified
gobuild.py    a build from the modules pinned in sandbox/gomodule/
toolchain.py  the Go for that
"""

from sandbox.binaries.model import PROGRAMS, Binaries
from sandbox.binaries.settings import Settings
from sandbox.binaries.sources import find

__all__ = ["PROGRAMS", "Binaries", "Settings", "find"]
