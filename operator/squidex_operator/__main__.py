"""`python -m squidex_operator`: command line -> settings -> run.

Exit status: 0 after a signal, 1 where the process cannot go on (a new one can), 2 where it is configured wrongly.
"""

import asyncio
import gc
import logging
import os
import sys
import threading
from collections.abc import Sequence

from squidex_operator import settings
from squidex_operator.observe import logs

logger = logging.getLogger(__name__)

_LAST_RESORT = 20.0
"""Seconds after which a process that should have ended ends, whatever hangs in it."""

_COLLECT_AFTER = 10_000
"""Objects made and not freed until the youngest are looked at; Python's own figure is 700."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the operator until it is stopped."""
    try:
        parsed = settings.parse(sys.argv[1:] if argv is None else argv)
    except settings.SettingsError as error:
        print(f"squidex-operator: {error}", file=sys.stderr)
        return 2
    logs.configure(parsed.log_level)
    # Imported late: --help and --version need none of it. Without the collector, which would find nothing to collect.
    gc.disable()
    from squidex_operator import process
    from squidex_operator.kube import access

    calm_collector()

    async def run() -> None:
        await process.Process(parsed).run()

    try:
        with asyncio.Runner() as runner:
            try:
                runner.run(run())
            finally:
                # Kopf's own tasks may take their time.
                last_resort = threading.Timer(_LAST_RESORT, os._exit, [1])
                last_resort.daemon = True
                last_resort.start()
    except access.AccessError as error:
        print(f"squidex-operator: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    except Exception as error:
        logger.critical("ending because of %s: %s", type(error).__name__, error)
        logger.debug("details", exc_info=True)
        return 1
    return 0


def calm_collector() -> None:
    """Leave what was imported out of garbage collection, and collect less often (docs/adr/0017).

    A full collection walks through all objects, with the event loop standing still; a quarter of a million of them are
    modules, classes and functions, which stay.
    """
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
    gc.enable()


if __name__ == "__main__":
    sys.exit(main())
