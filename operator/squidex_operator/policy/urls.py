"""Where a credential may be sent.

The CRD refuses most of this already; it is checked again because an object can be older than the CRD, and because whoever may
create a SquidexClient must not be able to make the operator send a secret wherever they like.
"""

import ipaddress
import re
import urllib.parse
from collections.abc import Collection

from squidex_operator.api import reasons
from squidex_operator.policy import backoff

_CLUSTER_SUFFIXES = (".svc", ".svc.cluster.local")
# A name, an address, or an IPv6 address with its zone. Anything else, a backslash above all, other parsers read otherwise.
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f.:]+(%[a-z0-9._-]+)?")
_METADATA_HOSTS = {"metadata.google.internal", "metadata", "instance-data"}
_METADATA_ADDRESSES = {
    ipaddress.ip_address("fd00:ec2::254"),  # Amazon, on IPv6
    ipaddress.ip_address("100.100.100.200"),  # Alibaba
    ipaddress.ip_address("192.0.0.192"),  # Oracle
}
"""Those that are not in a link-local range."""


def check(url: str, allowed_hosts: Collection[str] = ()) -> backoff.Problem | None:
    """Why no request goes to this base URL; None where it may.

    Args:
        url: a SquidexClient's `spec.url`.
        allowed_hosts: host names, or `*.example.com` for the names below it; empty allows all.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, _port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return _refused("has no valid host or port")
    if not host or parts.scheme not in ("http", "https"):
        return _refused("is not an http or https address")
    if not _HOST.fullmatch(host):
        return _refused("has no valid host or port")
    if not all("!" <= letter <= "~" for letter in url):
        return _refused("has letters that are not printable ASCII")
    if "?" in url or "#" in url or "@" in parts.netloc:
        return _refused("must not carry a query, a fragment, or a user name")
    if parts.scheme == "http" and not (host.endswith(_CLUSTER_SUFFIXES) or is_loopback(host)):
        return _refused(
            "would send the secret in clear text: use https, or an address in the cluster that ends in .svc"
        )
    if host in _METADATA_HOSTS or is_link_local(host):
        return _refused("is a link-local or metadata address")
    if allowed_hosts and not any(_matches(host, pattern) for pattern in allowed_hosts):
        return _refused(
            f"names the host {host!r}, which the operator's --allowed-hosts does not list: have it listed, or use another"
        )
    return None


def is_link_local(host: str) -> bool:
    """Whether this is a link-local or metadata IP address: where clouds keep credentials of the node."""
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address is not None and (address.is_link_local or address in _METADATA_ADDRESSES)


def is_loopback(host: str) -> bool:
    """Whether a request to this host never leaves the machine (RFC 8252, 8.3, makes the same exception to https)."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:].lower())
    return host == pattern.lower()


def _refused(why: str) -> backoff.Problem:
    return backoff.Problem(
        backoff.Kind.PERMANENT,
        reasons.Reason.URL_NOT_ALLOWED,
        f"spec.url {why}. No request was sent. Correct spec.url.",
    )
