"""`make demo`: the main job from end to end, and three things that go wrong and are healed. Ends by itself."""

from __future__ import annotations

import base64
import json
import signal
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from sandbox import binaries
from sandbox.controlplane import client
from sandbox.environment import Sandbox
from sandbox.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

NAMESPACE = "demo"
NAME = "shop-token"
CLIENT_ID = "shop:default"
DEADLINE = 60.0
INTERRUPTED = 130
HTTP_OK = 200

SAMPLE = """\
apiVersion: squidex-operator.io/v1beta1
kind: SquidexClient
metadata:
  name: {name}
  namespace: {namespace}
spec:
  url: {url}
  credentialsSecretRef:
    name: shop-credentials
  tls:
    caRef: {{kind: ConfigMap, name: sandbox-ca}}
"""


def say(text: str = "") -> None:
    """One line, at once."""
    print(text, flush=True)


class Demo:
    """Acts as a user of the sandbox would, with kubectl and with HTTP."""

    def __init__(self, sandbox: Sandbox) -> None:
        """The sandbox has started."""
        self.sandbox = sandbox
        self.secret_version = 1

    def kubectl(self, *args: str, text: str | None = None) -> str:
        """Run kubectl in the demo's namespace."""
        return self.sandbox.control_plane.kubectl_run(*args, f"--namespace={NAMESPACE}", input=text).stdout

    def token(self) -> str:
        """The token that a pod would see; empty while there is none."""
        found = self.kubectl("get", "secret", NAME, "-o", "json", "--ignore-not-found")
        return base64.b64decode(json.loads(found)["data"].get("token", "")).decode() if found.strip() else ""

    def ask_squidex(self, token: str) -> int:
        """Call the stand-in's API as an application does; the status."""
        headers = {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"{self.sandbox.squidex.url}/api/apps/shop", headers=headers)
        context = client.trusting(self.sandbox.squidex.ca_file)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def set_credentials(self) -> None:
        """A new secret: in Squidex, and in the Secret."""
        secret = f"demo-secret-{self.secret_version}"
        self.secret_version += 1
        self.sandbox.squidex.patch({"clients": {CLIENT_ID: secret}})
        labels = {"squidex-operator.io/role": "credentials"}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "shop-credentials", "labels": labels},
            "stringData": {"clientId": CLIENT_ID, "clientSecret": secret},
        }
        self.kubectl("apply", "-f", "-", text=json.dumps(body))

    def first_token(self) -> None:
        """From nothing to a token that Squidex accepts."""
        manifest = SAMPLE.format(name=NAME, namespace=NAMESPACE, url=self.sandbox.squidex.url)
        say(f"\n$ kubectl apply -f -\n{indent(manifest)}")
        began = time.monotonic()
        self.kubectl("apply", "-f", "-", text=manifest)
        self.kubectl("wait", "--for=condition=Ready", f"sqc/{NAME}", "--timeout=60s")
        say(f"ready after {time.monotonic() - began:.2f} s")
        say(f"\n$ kubectl get squidexclients\n{indent(self.kubectl('get', 'sqc'))}")
        secret: dict[str, Any] = json.loads(self.kubectl("get", "secret", NAME, "-o", "json"))
        expires = base64.b64decode(secret["data"]["expiresAt"]).decode()
        say(f"The Secret {NAME!r} has the keys {', '.join(sorted(secret['data']))}; the token expires at {expires}.")
        say("\nThe conditions of the SquidexClient:")
        for found in json.loads(self.kubectl("get", "sqc", NAME, "-o", "json"))["status"]["conditions"]:
            say(f"    {found['type']:22} {found['status']:8} {found['reason']:18} {found['message']}")
        say(f"\nGET {self.sandbox.squidex.url}/api/apps/shop with that token: HTTP {self.ask_squidex(self.token())}")

    def heal(self, what: str, break_it: Callable[[], object], *, dead: bool) -> None:
        """Break something, and wait until there is another token that Squidex accepts."""
        old = self.token()
        say(f"\n{what}")
        began = time.monotonic()
        break_it()
        if dead:
            say(f"    the old token is answered with HTTP {self.ask_squidex(old)}")
        end = began + DEADLINE
        while time.monotonic() < end:
            new = self.token()
            if new not in ("", old) and self.ask_squidex(new) == HTTP_OK:
                why = json.loads(self.kubectl("get", "secret", NAME, "-o", "json"))["metadata"]["annotations"]
                say(
                    f"    healed after {time.monotonic() - began:.2f} s: a new token, signed by the key "
                    f"{why['squidex-operator.io/key-id']}, accepted with HTTP 200"
                )
                return
            time.sleep(0.05)  # between two looks
        raise SandboxError(f"not healed within {DEADLINE:.0f} s; the operator's log: {self.sandbox.operators[0].log}")

    def run(self) -> None:
        """The whole of it."""
        self.first_token()
        squidex = self.sandbox.squidex
        self.heal(
            "Squidex's signing key is replaced: every token dies at once.",
            lambda: squidex.patch({"key": "replace"}),
            dead=True,
        )
        self.heal(
            "The client's secret is rotated, in Squidex and in the credentials Secret.",
            self.set_credentials,
            dead=False,
        )
        self.heal("Somebody deletes the target Secret.", lambda: self.kubectl("delete", "secret", NAME), dead=False)
        requests = squidex.state()["counts"]["token"]["total"]
        say(f"\nToken requests that Squidex has seen in all of this: {requests}, one for each token.")


def indent(text: str) -> str:
    """A block that stands apart."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


def run() -> None:
    """Start everything, show it, end everything."""
    began = time.monotonic()
    binaries.find()  # may take minutes, and shows its progress
    say(
        "starting etcd, kube-apiserver, kube-controller-manager, a stand-in Squidex and the operator: usually 8 seconds"
    )
    with Sandbox() as sandbox:
        sandbox.add_namespace(NAMESPACE)
        demo = Demo(sandbox)
        demo.set_credentials()
        # Keys are checked every five minutes unless told otherwise: a demo should not take that long.
        sandbox.start_operator(extra_args=["--keys-interval=2s"])
        say(f"ready after {time.monotonic() - began:.1f} s")
        demo.run()
    say(
        f"\nEverything is ended again, after {time.monotonic() - began:.1f} s. `make sandbox` leaves it running for you."
    )


def main() -> int:
    """Run it; the exit status."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    try:
        run()
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nended", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
