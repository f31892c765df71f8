"""The commands of the README where pods run: what tests/e2e/test_readme.py cannot show is that the installation rolls out."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from tests.e2e import readme

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.world import World
    from tests.pods.cluster import Cluster

IN_PLACE = {"make sandbox": "a node of its own", 'eval "$(make --silent sandbox-env)"': "the variables are given here"}


def test_every_command_of_the_readme_works_on_a_node(cluster: Cluster, shop: World, tmp_path: Path) -> None:
    cluster.need_node()
    plane, squidex = cluster.control_plane, cluster.squidex
    kubeconfig = tmp_path / "kubeconfig"
    shutil.copyfile(plane.admin_kubeconfig, kubeconfig)
    plane.kubectl_run("config", "set-context", "--current", f"--namespace={shop.namespace}", kubeconfig=kubeconfig)
    cluster.kubectl(
        "create", "configmap", "sandbox-ca", f"--from-file=ca.crt={squidex.ca_file}", namespace=shop.namespace
    )
    outputs = readme.run(
        {**readme.ELSEWHERE, **IN_PLACE},
        env={
            "KUBECONFIG": str(kubeconfig),
            "PATH": f"{plane.kubectl.parent}:{os.environ['PATH']}",
            "KUBECACHEDIR": str(tmp_path),
            "SQUIDEX_URL": squidex.url,
            "SQUIDEX_CA": str(squidex.ca_file),
            "SQUIDEX_CLIENT_ID": shop.client_id,
            "SQUIDEX_CLIENT_SECRET": shop.client_secret,
        },
    )
    assert any("successfully rolled out" in text for text in outputs)
