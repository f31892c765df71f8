"""The proxy that the environment names for a URL: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as every client reads them."""

import functools
import urllib.parse
import urllib.request


@functools.lru_cache(maxsize=256)
def proxy_for(url: str) -> str | None:
    """The proxy's URL; None where the server is reached directly. Read once: the environment of a process does not change.

    Args:
        url: of the server; only its scheme, host and port count.
    """
    parts = urllib.parse.urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)
