"""The control plane as one object."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Any, Self

from sandbox import binaries as sources
from sandbox.controlplane import audit, client, commands, kubeconfig, prometheus
from sandbox.controlplane.certificates import Authority, private_key, public_pem, write_private
from sandbox.controlplane.ports import LOOPBACK, HeldPort
from sandbox.errors import ProgramFailed, SandboxError, said
from sandbox.processes import Household

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence
    from pathlib import Path

    from sandbox.binaries import Binaries
    from sandbox.processes import Program

HTTP_OK = 200
PORT_ATTEMPTS = 3
PORT_TAKEN = "address already in use"
MASTERS = "system:masters"


class ControlPlane:
    """A context manager: inside it, `url` answers with `admin_kubeconfig`, and RBAC is on.

    `crds` are applied before the controllers start: the garbage collector notices kinds that come later only
    at its next discovery, up to half a minute after. All times are seconds.
    """

    def __init__(
        self,
        *,
        binaries: Binaries | None = None,
        home: Household | None = None,
        crds: Sequence[Path] = (),
        audit_log: bool = True,
        site: commands.Site | None = None,
        timeout: float = 60,
    ) -> None:
        """Describe it; nothing runs yet. With a `home` of somebody else's, that one cleans up."""
        self.site = site or commands.Site()
        self.home = home or Household()
        self._owns_home = home is None
        self.dir = self.home.dir
        self.files = commands.Files(self.dir)
        self.timeout = timeout
        self._binaries = binaries
        self._crds = list(crds)
        self._audit_log = audit_log
        self._port: HeldPort | None = None

    @property
    def binaries(self) -> Binaries:
        """The programs in use."""
        if self._binaries is None:
            self._binaries = sources.find()
        return self._binaries

    @property
    def port(self) -> int:
        """The API server's port; it stays the same over restarts."""
        if self._port is None:
            raise SandboxError("the control plane was not started")
        return self._port.number

    @property
    def url(self) -> str:
        """The API server."""
        return f"https://{self.site.address}:{self.port}"

    @property
    def ca_file(self) -> Path:
        """The authority of the API server's certificate."""
        return self.files.pki("ca.crt")

    @property
    def admin_kubeconfig(self) -> Path:
        """For a user who may do everything."""
        return self.dir / "admin.kubeconfig"

    @property
    def kubectl(self) -> Path:
        """The kubectl of the same version."""
        return self.binaries.kubectl

    def start(self) -> Self:
        """Start the three programs and wait for their work; a SandboxError leaves nothing behind."""
        _ = self.binaries  # may take minutes and needs no folder
        try:
            if self._owns_home:
                self.home.open()
            self._write_files()
            self._make_programs()
            self._start_apiserver()
            if self._crds:
                self.apply(*self._crds)
                self._wait_for_crds()
            self.controller_manager.start()
            self._wait_for_controllers()
        except BaseException:
            self.stop()
            raise
        return self

    def _wait_for_crds(self) -> None:
        """Until all are established; kubectl gives up on one that has no conditions yet, so it is asked again."""
        end = time.monotonic() + self.timeout
        while True:
            command = ("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
            if self.kubectl_run(*command, check=time.monotonic() > end).returncode == 0:
                return
            time.sleep(0.1)

    def stop(self) -> None:
        """End the programs and remove the folder. Harmless when repeated."""
        if self._owns_home:
            self.home.close()
        if self._port is not None:
            self._port.release()

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def _write_files(self) -> None:
        pki = self.dir / "pki"
        pki.mkdir()
        self.authority = Authority("sandbox-kubernetes")
        self.ca_file.write_bytes(self.authority.cert)
        addresses = {LOOPBACK, self.site.address, self.site.service_address}
        names = ["localhost", *sorted(addresses), "kubernetes", "kubernetes.default.svc"]
        self.authority.serving(names).write(pki, "apiserver")
        self._admin = self.authority.client("sandbox-admin", [MASTERS])
        self._admin.write(pki, "admin")
        self._write_service_account_keys()
        self.files.audit_policy.write_text(commands.AUDIT_POLICY)
        self.admin_context = client.trusting(self.ca_file, cert=pki / "admin.crt", key=pki / "admin.key")
        """TLS with the administrator's certificate."""

    def _write_service_account_keys(self) -> None:
        pki = self.dir / "pki"
        key, pem = private_key()
        write_private(pki / "service-accounts.key", pem)
        (pki / "service-accounts.pub").write_bytes(public_pem(key))

    def _make_programs(self) -> None:
        modest = {"GOGC": "50"}  # a third less memory for some more CPU
        self.etcd = self.home.program("etcd", commands.etcd(self.binaries, self.files))
        self.apiserver = self.home.program("kube-apiserver", [], env=modest)
        manager = commands.controller_manager(self.binaries, self.files, self.dir / "controllers.kubeconfig")
        self.controller_manager = self.home.program("kube-controller-manager", manager, env=modest)
        self.programs: tuple[Program, ...] = (self.etcd, self.apiserver, self.controller_manager)

    def _start_apiserver(self) -> None:
        self.etcd.start()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._port = HeldPort(self.site.address, self.site.port)
            self._write_kubeconfigs()
            self.apiserver.argv = [
                str(part)
                for part in commands.apiserver(
                    self.binaries, self.files, self.site, port=self.port, audit=self._audit_log
                )
            ]
            self.apiserver.start()
            try:
                self.wait_ready()
            except ProgramFailed:
                taken = not self.apiserver.alive and PORT_TAKEN in self.apiserver.output()
                if not taken or attempt == PORT_ATTEMPTS:
                    raise
                self._port.release()
            else:
                return

    def _write_kubeconfigs(self) -> None:
        ca = self.ca_file.read_bytes()
        kubeconfig.write(self.admin_kubeconfig, server=self.url, ca=ca, user="sandbox-admin", auth=self._admin)
        self.certificate_kubeconfig("controllers", "system:kube-controller-manager")

    def certificate_kubeconfig(self, name: str, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig NAME.kubeconfig of a user with a client certificate."""
        return kubeconfig.write(
            self.dir / f"{name}.kubeconfig",
            server=self.url,
            ca=self.ca_file.read_bytes(),
            user=name,
            auth=self.authority.client(user, groups),
        )

    def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until /readyz says yes, for example after `apiserver.start()`; raises ProgramFailed."""

        def ready() -> bool:
            if not self.etcd.alive:
                raise self.etcd.failure(f"ended with code {self.etcd.returncode}")
            return self.get("/readyz", timeout=1)[0] == HTTP_OK

        self.apiserver.wait_until(ready, timeout=timeout or self.timeout, what="a yes from /readyz")

    def _wait_for_controllers(self) -> None:
        """The first work of the controllers: from then on namespaces have what pods and tests expect."""
        self.controller_manager.wait_until(
            lambda: self.get("/api/v1/namespaces/default/serviceaccounts/default")[0] == HTTP_OK,
            timeout=self.timeout,
            what="the ServiceAccount of the default namespace",
        )

    def get(self, path: str, *, timeout: float = 10) -> tuple[int, bytes]:
        """GET a path as the admin: (status, body), status 0 when nobody answers."""
        return client.get(self.site.address, self.port, path, self.admin_context, timeout=timeout)

    def restart_apiserver(self) -> None:
        """Kill it and start it again: watches break, nothing is lost.

        `apiserver.stop()` is no faster way: it waits a minute for open watches.
        """
        self.apiserver.kill()
        self.apiserver.start()
        self.wait_ready()

    def replace_service_account_key(self) -> None:
        """Restart with another key: every ServiceAccount token that there is gets 401 from now on."""
        self._write_service_account_keys()
        self.restart_apiserver()
        self.controller_manager.kill()
        self.controller_manager.start()

    def kubectl_run(
        self,
        *args: str | Path,
        input: str | None = None,  # noqa: A002  (as subprocess.run calls it)
        check: bool = True,
        kubeconfig: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, as the admin unless told otherwise; raises SandboxError if `check`."""
        env = {
            "KUBECONFIG": str(kubeconfig or self.admin_kubeconfig),
            "KUBECACHEDIR": str(self.dir / "kubectl-cache"),
            "HOME": str(self.dir),
            "PATH": "/usr/bin:/bin",
        }
        command = [str(self.kubectl), *map(str, args)]
        done = subprocess.run(command, input=input, env=env, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise SandboxError(f"kubectl {' '.join(map(str, args))}: {said(done)}")
        return done

    def apply(self, *paths: Path, server_side: bool = True) -> None:
        """`kubectl apply -f` files and folders, `-k` for folders with a kustomization."""
        for path in paths:
            flag = "-k" if (path / "kustomization.yaml").is_file() else "-f"
            self.kubectl_run("apply", flag, path, *(["--server-side"] if server_side else []))

    def service_account_kubeconfig(
        self, namespace: str, name: str, *, path: Path | None = None, seconds: int = 3600
    ) -> Path:
        """A kubeconfig of a ServiceAccount, with a token that lives `seconds` (at least 600)."""
        token = self.kubectl_run("create", "token", name, f"--namespace={namespace}", f"--duration={seconds}s")
        return kubeconfig.write(
            path or self.dir / f"{namespace}.{name}.kubeconfig",
            server=self.url,
            ca=self.ca_file.read_bytes(),
            user=name,
            auth=token.stdout.strip(),
            namespace=namespace,
        )

    def metrics(self, name: str = "apiserver_request_total") -> list[prometheus.Sample]:
        """The samples of one metric of the API server."""
        status, body = self.get("/metrics", timeout=30)
        if status != HTTP_OK:
            raise SandboxError(f"kube-apiserver answered {status} to /metrics")
        return list(prometheus.samples(body.decode(), name))

    def request_counts(self) -> Counter[tuple[str, str, str]]:
        """Requests so far by (HTTP method, resource, code), of all users together.

        The control plane's own are among them, those that RBAC refused are not: the audit log knows better.
        """
        from collections import Counter

        counts: Counter[tuple[str, str, str]] = Counter()
        for sample in self.metrics():
            resource = "/".join(filter(None, (sample.labels["resource"], sample.labels.get("subresource"))))
            counts[sample.labels["verb"], resource, sample.labels["code"]] += int(sample.value)
        return counts

    def audit_mark(self) -> int:
        """A place in the audit log: what `since=` takes."""
        log = self.files.audit_log
        return log.stat().st_size if log.exists() else 0

    def audit_events(self, *, since: int = 0) -> list[audit.AuditEvent]:
        """Every request but the control plane's own, since a mark."""
        return audit.read(self.files.audit_log, since=since)

    def requests_of(self, user: str, *, since: int = 0) -> list[audit.AuditEvent]:
        """The requests of a user name or a ServiceAccount ("namespace/name")."""
        return audit.of_user(self.audit_events(since=since), user)

    def compact(self) -> int:
        """Make etcd forget all but the present; returns that revision.

        A list or watch from an older resourceVersion gets 410 Gone, unless the API server's watch cache still
        has it: restart the API server as well to forget that.
        """
        found: dict[str, Any] = client.etcd_call(self.files.etcd_socket, "kv/range", {"key": "AA=="})
        revision = int(found["header"]["revision"])
        client.etcd_call(self.files.etcd_socket, "kv/compaction", {"revision": revision, "physical": True})
        return revision
