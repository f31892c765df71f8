"""Log lines are `event key=value`. What looks like a token never gets through, wherever it comes from."""

import logging
import re
import sys

# A JWT in any text: three base64url parts, the first of which is a JSON object ('{"' is eyJ); the same as a Secret's data has
# it, in base64 once more (eyJ is ZXlK). And anything behind "Bearer" and in a form's client_secret.
_TOKEN = re.compile(
    r"eyJ[\w-]{8,}(?:\.[\w-]*){0,2}|ZXlK[\w+/-]{8,}=*|(?i:bearer)\s+[\w.~+/-]{16,}=*|client_secret=[^&\s]+"
)


class _Redacting(logging.Formatter):
    """The last line of defence: our own code never logs a token, but a library's exception might."""

    def format(self, record: logging.LogRecord) -> str:
        return _TOKEN.sub("[redacted]", super().format(record))


def configure(level: str = "INFO") -> None:
    """Send all logs to stderr, redacted."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = _Redacting("%(asctime)s %(levelname)s %(name)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z")
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Kopf repeats whole objects at debug level, and says little of use above it.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
