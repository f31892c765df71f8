"""Where a credential may be sent."""

from __future__ import annotations

import pytest

from squidex_operator.api import reasons
from squidex_operator.policy import backoff, urls


@pytest.mark.parametrize(
    "url",
    [
        "https://cloud.squidex.io",
        "https://cms.example.com:8443/base/path",
        "https://10.0.0.1",
        "https://[2001:db8::1]:443",
        "http://squidex.cms.svc",
        "http://squidex.cms.svc:5000/base",
        "http://squidex.cms.svc.cluster.local",
        "http://squidex.cms.svc.",
        "http://localhost:5000",
        "http://127.0.0.1",
        "http://127.8.9.10",
        "http://[::1]:5000",
        "HTTPS://CLOUD.SQUIDEX.IO",
    ],
)
def test_an_address_that_may_be_asked(url: str) -> None:
    assert urls.check(url) is None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        pytest.param("", "is not an http or https address", id="nothing"),
        pytest.param("cloud.squidex.io", "is not an http or https address", id="no scheme"),
        pytest.param("ftp://cms.example.com", "is not an http or https address", id="another scheme"),
        pytest.param("https:///path", "is not an http or https address", id="no host"),
        pytest.param("https://.", "is not an http or https address", id="a host of one dot"),
        pytest.param("https://host:99999", "no valid host or port", id="no such port"),
        pytest.param("https://host:port", "no valid host or port", id="a port of letters"),
        pytest.param("https://[::1", "no valid host or port", id="half an IPv6 address"),
        pytest.param("https://ex\u2100mple.com", "no valid host or port", id="a letter that means two others"),
        pytest.param("https://ex\u00e4mple.com", "no valid host or port", id="a letter outside ASCII"),
        pytest.param("https://evil.org\\.example.com", "no valid host or port", id="a backslash, a slash to some"),
        pytest.param("https://evil.org%2f.example.com", "no valid host or port", id="an escaped slash"),
        pytest.param("https://cms.example.com/\u00e4", "not printable ASCII", id="a path with a letter outside ASCII"),
        pytest.param("https://cms.example.com/a b", "not printable ASCII", id="a blank"),
        pytest.param("https://cms.example.com/a\nb", "not printable ASCII", id="a line break"),
        pytest.param("https://cms.example.com?x=1", "must not carry a query", id="a query"),
        pytest.param("https://cms.example.com?", "must not carry a query", id="an empty query"),
        pytest.param("https://cms.example.com#x", "must not carry a query, a fragment", id="a fragment"),
        pytest.param("https://cms.example.com/#", "must not carry a query, a fragment", id="an empty fragment"),
        pytest.param("https://user:pw@cms.example.com", "or a user name", id="a user name"),
        pytest.param("http://cms.example.com", "in clear text", id="plain http"),
        pytest.param("http://cms.example.com.svc.evil.com", "in clear text", id="svc in the middle"),
        pytest.param("http://127.0.0.1.evil.com", "in clear text", id="a name that begins like loopback"),
        pytest.param("http://10.0.0.1", "in clear text", id="plain http inside"),
        pytest.param("https://169.254.169.254/latest", "link-local or metadata", id="metadata of most clouds"),
        pytest.param("https://[fe80::1%25eth0]", "link-local or metadata", id="link-local with a zone"),
        pytest.param("https://[::ffff:169.254.169.254]", "link-local or metadata", id="metadata written as IPv6"),
        pytest.param("https://[fd00:ec2::254]", "link-local or metadata", id="metadata of Amazon on IPv6"),
        pytest.param("https://100.100.100.200", "link-local or metadata", id="metadata of Alibaba"),
        pytest.param("https://192.0.0.192", "link-local or metadata", id="metadata of Oracle"),
        pytest.param("https://metadata.google.internal", "link-local or metadata", id="metadata of Google"),
        pytest.param("https://METADATA.google.internal.", "link-local or metadata", id="the same in other words"),
    ],
)
def test_an_address_that_nothing_is_sent_to(url: str, why: str) -> None:
    found = urls.check(url)
    assert found is not None
    assert (found.kind, found.reason) == (backoff.Kind.PERMANENT, reasons.Reason.URL_NOT_ALLOWED)
    assert why in found.message
    assert found.message.startswith("spec.url ")
    assert found.message.endswith("No request was sent. Correct spec.url.")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://cms.example.com", True),
        ("https://CMS.example.com:8443/path", True),
        ("https://a.cms.example.org", True),
        ("https://cms.example.org", False),
        ("https://evilcms.example.com", False),
        ("https://cms.example.com.evil.org", False),
        ("https://10.0.0.1", False),
    ],
)
def test_a_list_of_hosts_narrows_it_further(url: str, allowed: bool) -> None:
    found = urls.check(url, ["CMS.example.com", "*.cms.example.org"])
    assert (found is None) is allowed
    assert found is None or "--allowed-hosts" in found.message


@pytest.mark.parametrize(
    ("host", "link_local", "loopback"),
    [
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("localhost", False, True),
        ("169.254.1.1", True, False),
        ("fe80::1%eth0", True, False),
        ("8.8.8.8", False, False),
        ("cms.example.com", False, False),
        ("", False, False),
    ],
)
def test_addresses_of_this_machine_and_of_its_link(host: str, link_local: bool, loopback: bool) -> None:
    assert urls.is_link_local(host) is link_local
    assert urls.is_loopback(host) is loopback
