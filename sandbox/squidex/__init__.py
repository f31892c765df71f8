"""A stand-in for Squidex: it says on the wire what a Squidex 7 says, and fails on request.

Run it with `python -m sandbox.squidex`, or inside a test::

    async with StandIn(clients={"demo:ci": "s3cr3t"}) as squidex:
        ...  # squidex.url, squidex.patch({...}), squidex.state()

    with running({"demo:ci": "s3cr3t"}) as squidex:  # the same in a thread, for code without a loop
        ...

README.md beside this file lists the switches and counts.
"""

from __future__ import annotations

from sandbox.squidex.server import StandIn
from sandbox.squidex.switches import SwitchError
from sandbox.squidex.threaded import Running, running

__all__ = ["Running", "StandIn", "SwitchError", "running"]
