"""Sees every state that a Secret goes through, from the API server's watch: a state between two looks is not missed."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tests.e2e.world import World

KEYS = {"token", "tokenType", "expiresAt", "url"}
DEADLINE = 20.0


class Witness:
    """A context manager around what happens; afterwards `assert_whole` judges what was seen."""

    def __init__(self, world: World, name: str = "shop") -> None:
        self._world = world
        self._name = name
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115  (it is closed at the end)
        self._told = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        plane = self._world.sandbox.control_plane
        self._process = subprocess.Popen(
            [
                *(str(plane.kubectl), f"--kubeconfig={plane.admin_kubeconfig}", f"--namespace={self._world.namespace}"),
                *("get", "secret", self._name, "--watch", "--output-watch-events", "-o", "json"),
            ],
            stdout=self._output,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._wait(lambda: bool(self.events()), "the watch's first event")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._told = self._text()
        self._output.close()

    def events(self) -> list[dict[str, Any]]:
        """What the watch has told so far."""
        text, decoder, found, place = self._text(), json.JSONDecoder(), [], 0
        while place < len(text):
            try:
                event, place = decoder.raw_decode(text, place)
            except ValueError:
                break  # still being written
            found.append(event)
            place += len(text[place:]) - len(text[place:].lstrip())
        return found

    def _text(self) -> str:
        if self._output.closed:
            return self._told
        self._output.seek(0)
        return self._output.read()

    def tokens(self) -> list[str]:
        """The tokens that it has held, each once, in order."""
        held = [base64.b64decode(event["object"].get("data", {}).get("token", "")).decode() for event in self.events()]
        return list(dict.fromkeys(held))

    def see(self, token: str) -> None:
        """Wait until the watch has told of a token: what came before it has been told, too."""
        self._wait(lambda: token in self.tokens(), "the watch to tell of the new token")

    def assert_whole(self) -> None:
        """It was there all the time, with all its keys, none of them empty."""
        for event in self.events():
            assert event["type"] != "DELETED"
            data = event["object"].get("data", {})
            assert data.keys() >= KEYS
            assert all(data[key] for key in KEYS)

    @staticmethod
    def _wait(look: Any, what: str) -> None:
        end = time.monotonic() + DEADLINE
        while not look():
            assert time.monotonic() < end, what
            time.sleep(0.05)
