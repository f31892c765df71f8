"""A port that stays ours, of the loopback address if not told otherwise.

Asking the kernel for a free port, closing it and letting a server bind it leaves a moment in which somebody
else can take it, and a server that is restarted on its port leaves many. So the port stays bound here, with
SO_REUSEPORT and without listening: the kernel lets another socket of the same user bind it, if that asks for
SO_REUSEPORT as well (the API server's --permit-port-sharing), and gives it to nobody else.
"""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"


class HeldPort:
    """Bound until `release`; `number` is the port."""

    def __init__(self, address: str = LOOPBACK, number: int = 0) -> None:
        """Without a number, let the kernel choose."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.bind((address, number))
        except OSError:
            self._socket.close()
            raise
        self.number = int(self._socket.getsockname()[1])

    def release(self) -> None:
        """Let others have it."""
        self._socket.close()


def free_port() -> int:
    """A port that was free a moment ago, for servers that cannot share one: be ready to try again."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        number: int = probe.getsockname()[1]
        return number
