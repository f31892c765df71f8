"""What `python -m sandbox up` tells its user."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.background import State
from sandbox.binaries.model import KUBERNETES
from sandbox.environment import CA_CONFIG_MAP, CREDENTIALS

if TYPE_CHECKING:
    from sandbox.environment import Sandbox


def describe(sandbox: Sandbox) -> State:
    """What there is to know about a started sandbox."""
    operators = sandbox.operators
    operator_kubeconfig = sandbox.dir / "operator.kubeconfig"
    return State(
        pid=os.getpid(),
        dir=str(sandbox.dir),
        kubeconfig=str(sandbox.control_plane.admin_kubeconfig),
        kubectl=str(sandbox.control_plane.kubectl),
        api_url=sandbox.control_plane.url,
        squidex_url=sandbox.squidex.url,
        squidex_ca=str(sandbox.squidex.ca_file),
        operator_kubeconfig=str(operator_kubeconfig) if operator_kubeconfig.exists() else "",
        operator_log=str(operators[0].log) if operators else "",
        node=sandbox.node.name if sandbox.node is not None else "",
    )


def variables(state: State) -> str:
    """Lines for a shell: kubectl's, and those that the README uses for the Squidex and its client."""
    secret = f"kubectl get secret {CREDENTIALS} --namespace=default --output=go-template="
    values = {
        "KUBECONFIG": shlex.quote(state.kubeconfig),
        "PATH": f'{shlex.quote(str(Path(state.kubectl).parent))}:"$PATH"',
        "SQUIDEX_URL": shlex.quote(state.squidex_url),
        "SQUIDEX_CA": shlex.quote(state.squidex_ca),
        # Asked for when the lines are read: this output may end up in a log.
        "SQUIDEX_CLIENT_ID": f"\"$({secret}'{{{{.data.clientId|base64decode}}}}')\"",
        "SQUIDEX_CLIENT_SECRET": f"\"$({secret}'{{{{.data.clientSecret|base64decode}}}}')\"",
    }
    return "\n".join(f"export {name}={value}" for name, value in values.items())


def guide(state: State, *, end: str) -> str:
    """How to use it, for a terminal; `end` says how to end it."""
    kubectl, ca = Path(state.kubectl), shlex.quote(state.squidex_ca)
    what = f"Kubernetes {KUBERNETES}{' with a node' if state.node else ''}"
    lines = [
        f"{what} and a stand-in Squidex run on this machine (process {state.pid}).",
        "",
        f"    export KUBECONFIG={shlex.quote(state.kubeconfig)}",
        f"    export PATH={shlex.quote(str(kubectl.parent))}:$PATH        # the kubectl that belongs to it",
        "    kubectl get squidexclients --all-namespaces",
        "",
        'Or, with what the README goes on with:  eval "$(make --silent sandbox-env)"',
        "",
        f"Squidex   {state.squidex_url}",
        f"          its authority: {ca}",
        f"          in the namespace default: ConfigMap {CA_CONFIG_MAP}, Secret {CREDENTIALS}",
        f"          its faults: curl --cacert {ca} {state.squidex_url}/_sandbox/state",
    ]
    if state.node:
        lines += [
            f"Node      {state.node}: pods reach Squidex at the same address; there is no DNS, and no Service but the API server",
            "Operator  runs as it ships: kubectl --namespace squidex-operator logs deployment/squidex-operator",
            "Images    are not pulled; as `docker save` writes it, one is loaded by: python -m sandbox image FILE",
        ]
    elif state.operator_log:
        lines.append(f"Operator  runs; its log: {state.operator_log}")
    elif state.operator_kubeconfig:
        lines.append(f"Operator  KUBECONFIG={shlex.quote(state.operator_kubeconfig)} python -m squidex_operator")
    lines += [f"Logs      {state.dir}/logs", f"The end   {end}"]
    return "\n".join(lines)
