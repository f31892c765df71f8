"""`python -m sandbox up`, `node`, `status`, `down`, `binaries`: see --help."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import sandbox as sandbox_package
from sandbox import background, binaries
from sandbox.errors import (
    AlreadyRunning,
    BinariesNotFound,
    ImageUnavailable,
    NodeUnavailable,
    NotRunning,
    SandboxError,
)
from sandbox.guide import describe, guide, variables

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from sandbox.environment import Sandbox
    from sandbox.images import Built

BY_CTRL_C = "Ctrl-C"
BY_DOWN = "make sandbox-down   (or: python -m sandbox down)"
INTERRUPTED = 130
UNAVAILABLE = 3
"""This machine lacks something: not an error of ours (.ci/run goes on)."""
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
    up.add_argument("--node", action="store_true", help=argparse.SUPPRESS)
    up.add_argument("--owner", action="store_true", help=argparse.SUPPRESS)
    node = commands.add_parser("node", help="the same with a real node and the operator's Deployment (root and Linux)")
    node.add_argument("--detach", action="store_true", help="leave it running in the background")
    node.add_argument("--prepare", action="store_true", help="only get what it takes: packages, programs, the image")
    image = commands.add_parser("image", help="load an image into the node in the background")
    image.add_argument("archive", type=Path, help="a file as `docker save` writes it")
    commands.add_parser("down", help="end the sandbox in the background")
    commands.add_parser("status", help="say how to use the sandbox in the background")
    commands.add_parser("env", help="the variables of the sandbox in the background, for a shell to eval")
    commands.add_parser("binaries", help="get the programs of the control plane and say where they are")
    return parser.parse_args(argv)


STARTING = "starting a control plane and a stand-in Squidex: usually 5 seconds"
STARTING_NODE = "starting a control plane, a node, a stand-in Squidex and the operator: usually 20 seconds"


def up(*, operator: bool, node: bool, background_owner: bool) -> None:
    """Run a sandbox until a signal, or until one of its programs ends by itself."""
    from sandbox.environment import Sandbox

    started = time.monotonic()
    images = [prepare().archive] if node else []
    print(STARTING_NODE if node else STARTING, file=sys.stderr)
    sandbox = Sandbox(node=node, images=images)
    with sandbox:
        sandbox.add_namespace("default")
        if node:
            sandbox.wait_for_deployment()
        elif operator:
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
    programs += sandbox.node.programs_running if sandbox.node is not None else []
    nothing = threading.Event()
    while True:
        for program in programs:
            if not program.alive:
                raise program.failure(f"ended by itself with code {program.returncode}")
        nothing.wait(0.5)


def run_as_owner(*, operator: bool, node: bool) -> None:
    """The process behind `up --detach`."""
    with background.owning():
        try:
            up(operator=operator, node=node, background_owner=True)
        finally:
            background.forget()


def detach(*, operator: bool, node: bool = False) -> None:
    """Leave a sandbox running, or say that one runs already."""
    state = background.running()
    if state is None and background.owner() is not None:
        print("a sandbox is being started by another process; waiting for it", file=sys.stderr)
        state = background.wait_for_start()
    if state is not None and node and not state.node:
        raise AlreadyRunning(f"a sandbox without a node runs already; end it first: {BY_DOWN}")
    if state is not None:
        print("A sandbox runs already.\n")
    elif node:
        prepare()
        print(STARTING_NODE, file=sys.stderr)
        state = background.start(["--node"])
    else:
        binaries.find()  # here, where its progress can be seen
        print(STARTING, file=sys.stderr)
        state = background.start(["--operator"] if operator else [])
    print(guide(state, end=BY_DOWN))


def prepare() -> Built:
    """What a node takes; its imports are those of no other command."""
    from sandbox.node import preparation

    return preparation.prepare()


def run_node(options: argparse.Namespace) -> None:
    """A sandbox with a node: what it takes only, in the background, or here."""
    if options.prepare:
        print(prepare().archive)
    elif options.detach:
        detach(operator=False, node=True)
    else:
        up(operator=False, node=True, background_owner=False)


def status() -> None:
    """Say how to use the one in the background."""
    state = background.running()
    print(guide(state, end=BY_DOWN) if state is not None else "no sandbox runs in the background")


def print_variables() -> None:
    """What a shell has to know of the one in the background; raises NotRunning."""
    state = background.running()
    if state is None:
        raise NotRunning("no sandbox runs in the background: make sandbox")
    print(variables(state))


def down() -> None:
    """End the one in the background; that there is none is what was wanted."""
    try:
        print(background.stop())
    except NotRunning as error:
        print(error)


def load_image(archive: Path) -> None:
    """Load an image into the node in the background; raises SandboxError."""
    from sandbox.node.cell import run_in
    from sandbox.node.node import import_command

    state = background.running()
    if state is None or not state.node:
        raise NotRunning("no node runs in the background: make node")
    run_in(Path(state.dir), *import_command(archive.resolve()))
    print(f"the node has the images of {archive}")


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
            run_as_owner(operator=options.operator, node=options.node)
        elif options.command == "up" and options.detach:
            detach(operator=options.operator)
        elif options.command == "up":
            up(operator=options.operator, node=options.node, background_owner=False)
        elif options.command == "node":
            run_node(options)
        elif options.command == "image":
            load_image(options.archive)
        elif options.command == "down":
            down()
        elif options.command == "status":
            status()
        elif options.command == "env":
            print_variables()
        else:
            print(binaries.find().folder)
    except (NodeUnavailable, ImageUnavailable, BinariesNotFound) as error:
        print(error, file=sys.stderr)
        return UNAVAILABLE
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nended", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
