"""One thread that starts every process.

Two reasons. Linux's "kill me when my parent ends" means the parent *thread*, so a program started from a
short-lived worker thread would die with it. And a KeyboardInterrupt only ever hits the main thread: a start
that runs elsewhere is either done and recorded or not begun, never half-way.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

_jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
_lock = threading.Lock()
_thread: threading.Thread | None = None


def _run() -> None:
    while True:
        job, future = _jobs.get()
        try:
            future.set_result(job())
        except BaseException as error:  # noqa: BLE001  (whoever waits gets it)
            future.set_exception(error)


def submit(job: Callable[[], Any]) -> Future[Any]:
    """Queue `job` for the thread; the future tells how it went."""
    from concurrent.futures import Future

    global _thread  # noqa: PLW0603
    future: Future[Any] = Future()
    with _lock:
        if _thread is None or not _thread.is_alive():  # a fork leaves the thread behind
            _thread = threading.Thread(target=_run, name="sandbox-spawner", daemon=True)
            _thread.start()
    _jobs.put((job, future))
    return future
