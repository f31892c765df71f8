"""`python -m squidex_operator`: exit codes, and a message for each."""

from __future__ import annotations

import gc
import logging
import os
import runpy
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from squidex_operator import __main__ as main_module
from squidex_operator import process
from squidex_operator.observe import health
from tests.unit.kube import apiserver

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No timer that would end the tests' own process, and their logging and garbage collector put back."""
    monkeypatch.setattr(threading, "Timer", lambda *_: threading.Thread(target=lambda: None))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    root.handlers[:] = before
    root.setLevel(level)


def run(monkeypatch: pytest.MonkeyPatch, result: BaseException | None = None) -> int:
    """Run with a process that ends like this."""

    async def ends(_self: object) -> None:
        if result is not None:
            raise result

    monkeypatch.setattr(process.Process, "run", ends)
    return main_module.main(["--health-listen=127.0.0.1:0"])


def test_after_a_stop_it_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch) == 0


def test_after_ctrl_c_it_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, KeyboardInterrupt()) == 0


@pytest.mark.parametrize("error", [health.UnhealthyError("watch: silent"), OSError(98, "address already in use")])
def test_where_it_cannot_go_on_it_is_1_and_says_why(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, error) == 1
    written = capsys.readouterr().err
    assert f"ending because of {type(error).__name__}: " in written
    assert str(error) in written
    assert "Traceback" not in written


def test_a_setting_that_cannot_be_used_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_module.main(["--workers=0"]) == 2
    assert capsys.readouterr().err.startswith("squidex-operator: --workers: ")


def test_no_way_to_an_api_server_is_2(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    assert main_module.main([f"--kubeconfig={tmp_path}/none", "--health-listen=127.0.0.1:0"]) == 2
    written = capsys.readouterr().err
    assert written.startswith("squidex-operator: There is no way to a Kubernetes API server")
    assert "Traceback" not in written


def test_a_port_that_is_taken_is_1_and_named(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    kubeconfig = apiserver.write_kubeconfig(tmp_path, "http://127.0.0.1:1", {"token": "t"})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main_module.main([f"--kubeconfig={kubeconfig}", f"--health-listen={listen}"]) == 1
    written = capsys.readouterr().err
    assert listen.rpartition(":")[2] in written
    assert "address already in use" in written
    assert "Unclosed" not in written


def test_whatever_hangs_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Timer:
        daemon = False

        def __init__(self, seconds: float, function: object, args: list[int]) -> None:
            made.append((seconds, function, args, self))

        def start(self) -> None:
            made.append("started")

    monkeypatch.setattr(threading, "Timer", Timer)
    run(monkeypatch)
    (seconds, function, args, timer), started = made
    assert (function, args, started) == (os._exit, [1], "started")
    assert timer.daemon
    assert seconds < 30  # terminationGracePeriodSeconds


def test_it_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["squidex-operator", "--version"])
    monkeypatch.delitem(sys.modules, "squidex_operator.__main__")
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("squidex_operator", run_name="__main__")
    assert caught.value.code == 0
    assert "squidex-operator" in capsys.readouterr().out
