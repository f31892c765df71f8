"""Names: what is silent holds up nobody else."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from squidex_operator.squidex import resolver

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Names that begin with "silent" are not answered before this event."""
    spoken = threading.Event()

    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        if host.startswith("silent"):
            spoken.wait(30)
        if host.startswith("odd"):
            raise ValueError("embedded null character")
        return [ADDRESS]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield spoken
    spoken.set()


async def _resolve(found: resolver.Resolver, host: str) -> str:
    return str((await found.resolve(host, 443))[0]["host"])


def test_names_that_nobody_answers_for_hold_up_no_other(silent: threading.Event) -> None:
    async def main() -> None:
        names = resolver.Resolver()
        # More than the threads of any pool that a loop makes for itself.
        waiting = [asyncio.create_task(_resolve(names, f"silent-{number}.test")) for number in range(100)]
        async with asyncio.timeout(10):
            assert await _resolve(names, "known.test") == "192.0.2.1"
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
        silent.set()
        async with asyncio.timeout(10):
            assert await asyncio.gather(*waiting[1:]) == ["192.0.2.1"] * 99

    asyncio.run(main())


def test_there_are_no_more_lookups_than_threads_allowed(
    silent: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "MOST", 2)

    async def main() -> None:
        names = resolver.Resolver()
        waiting = [asyncio.create_task(_resolve(names, f"silent-{number}.test")) for number in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="too many names"):
            await _resolve(names, "known.test")
        silent.set()
        await asyncio.gather(*waiting)
        assert await _resolve(names, "known.test") == "192.0.2.1"

    asyncio.run(main())


def test_an_end_does_not_wait_for_a_name(silent: threading.Event) -> None:
    async def main() -> None:
        task = asyncio.create_task(_resolve(resolver.Resolver(), "silent.test"))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())
    assert not silent.is_set()
    thread = next(each for each in threading.enumerate() if each.name == "look up a name")
    silent.set()
    thread.join(10)  # it finds the loop closed, and says nothing
    assert not thread.is_alive()


def test_whatever_a_lookup_raises_reaches_whoever_asked(silent: threading.Event) -> None:
    with pytest.raises(ValueError, match="null"):
        asyncio.run(_resolve_new("odd.test"))


async def _resolve_new(host: str) -> str:
    return await _resolve(resolver.Resolver(), host)
