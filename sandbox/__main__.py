"""`python -m sandbox up`, `status`, `down`, `binaries`: see --help."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import sandbox as sandbox_package
from sandbox import background, binaries
from sandbox.errors import NotRunning, SandboxError
from sandbox.guide import describe, guide

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from sandbox.environment import Sandbox

BY_CTRL_C = "Ctrl-C"
BY_DOWN = "make sandbox-down   (or: python -m sandbox down)"
INTERRUPTED = 130
EPILOG = """\
The programs (etcd, kube-apiserver, kube-controller-manager, kubectl) come from $KUBEBUILDER_ASSETS, the
cache, the official releases or a build with Go, whichever works first.
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=sandbox_package.__doc__, epilog=EPILOG)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a sandbox and keep it until Ctrl-C")
    up.add_argument("--detach", action="store_true", help="leave it running in the background")
    up.add_argument("--operator", action="store_true", help="start the operator in it as well")
    up.add_argument("--owner", action="store_true", help=argparse.SUPPRESS)
    commands.add_parser("down", help="end the sandbox in the background")
    commands.add_parser("status", help="say how to use the sandbox in the background")
    commands.add_parser("binaries", help="get the programs of the control plane and say where they are")
    return parser.parse_args(argv)


def up(*, operator: bool, background_owner: bool) -> None:
    """Run a sandbox until a signal, or until one of its programs ends by itself."""
    from sandbox.environment import Sandbox

    started = time.monotonic()
    print("starting a control plane and a stand-in Squidex: usually 5 seconds", file=sys.stderr)
    sandbox = Sandbox()
    with sandbox:
        sandbox.add_namespace("default")
        if operator:
            sandbox.start_operator()
        elif sandbox.has_manifests:
            sandbox.operator_kubeconfig()
        print(f"ready after {time.monotonic() - started:.1f} s\n", file=sys.stderr)
        state = describe(sandbox)
        if background_owner:
            background.write(state)
        print(guide(state, end=BY_DOWN if background_owner else BY_CTRL_C), flush=True)
        watch(sandbox)


def watch(sandbox: Sandbox) -> None:
    """Return never; raises ProgramFailed when a program has ended although nobody asked it to."""
    programs = [*sandbox.control_plane.programs, sandbox.squidex.program]
    programs += [operator.program for operator in sandbox.operators]
    nothing = threading.Event()
    while True:
        for program in programs:
            if not program.alive:
                raise program.failure(f"ended by itself with code {program.returncode}")
        nothing.wait(0.5)


def run_as_owner(*, operator: bool) -> None:
    """The process behind `up --detach`."""
    with background.owning():
        try:
            up(operator=operator, background_owner=True)
        finally:
            background.forget()


def detach(*, operator: bool) -> None:
    """Leave a sandbox running, or say that one runs already."""
    state = background.running()
    if state is None and background.owner() is not None:
        print("a sandbox is being started by another process; waiting for it", file=sys.stderr)
        state = background.wait_for_start()
    if state is not None:
        print("A sandbox runs already.\n")
    else:
        binaries.find()  # here, where its progress can be seen
        print("starting a control plane and a stand-in Squidex: usually 5 seconds", file=sys.stderr)
        state = background.start(["--operator"] if operator else [])
    print(guide(state, end=BY_DOWN))


def status() -> None:
    """Say how to use the one in the background."""
    state = background.running()
    print(guide(state, end=BY_DOWN) if state is not None else "no sandbox runs in the background")


def down() -> None:
    """End the one in the background; that there is none is what was wanted."""
    try:
        print(background.stop())
    except NotRunning as error:
        print(error)


def interrupt(number: int, _frame: FrameType | None) -> None:
    """SIGTERM and SIGHUP end it as Ctrl-C does."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse(argv)
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    try:
        if options.command == "up" and options.owner:
            run_as_owner(operator=options.operator)
        elif options.command == "up" and options.detach:
            detach(operator=options.operator)
        elif options.command == "up":
            up(operator=options.operator, background_owner=False)
        elif options.command == "down":
            down()
        elif options.command == "status":
            status()
        else:
            print(binaries.find().folder)
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nended", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
