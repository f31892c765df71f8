"""Fetch a token: OAuth2 client credentials (RFC 6749, 4.4), posted as the SDKs of Squidex post them."""

import dataclasses
import datetime as dt
import re

from squidex_operator.api import reasons
from squidex_operator.policy import credentials as credentials_policy
from squidex_operator.policy import jwt, render, schedule
from squidex_operator.squidex import answers, errors, http, keys

TOKEN_PATH = "/identity-server/connect/token"

# RFC 6750, 2.1: what may stand behind "Bearer ". Anything else could end the header early.
_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]+=*", re.ASCII)
_MAX_TOKEN = 64 * 1024


@dataclasses.dataclass(frozen=True)
class Fetched:
    """A token, and how far the server's clock is ahead of ours."""

    grant: render.Grant
    clock_skew: dt.timedelta | None


async def fetch(
    sender: http.Http,
    base_url: str,
    credentials: credentials_policy.Credentials,
    scope: str,
    *,
    ca: str,
    now: dt.datetime,
) -> Fetched:
    """Fetch one token. Every call makes a new one in Squidex, so nobody calls this to find something out.

    Args:
        base_url: without a trailing slash; may carry a path.
        ca: PEM certificates to trust; empty for the system's.
        now: aware UTC; the token counts as issued then.

    Raises:
        SquidexError: with the reason and a message fit for a status.
    """
    form = {
        "grant_type": "client_credentials",
        "client_id": credentials.client_id,
        "client_secret": credentials.client_secret,
        "scope": scope,
    }
    answer = await sender.send("POST", base_url + TOKEN_PATH, ca=ca, form=form)
    grant = read(answer, answers.token_answer(answer), now=now)
    if grant.client_id not in ("", credentials.client_id):
        raise errors.UnclearError(
            reasons.Reason.INVALID_RESPONSE, f"{answer.host} answered with the token of another client."
        )
    skew = answer.date - now if answer.date else None
    return Fetched(grant, skew)


def read(answer: answers.Answer, parsed: dict[str, object], *, now: dt.datetime) -> render.Grant:
    """Check a token answer and its token's claims (RFC 6749, 5.1).

    Raises:
        UnclearError: where something in it cannot be used.
    """
    token, kind = parsed.get("access_token"), parsed.get("token_type", "Bearer")
    if not isinstance(token, str) or len(token) > _MAX_TOKEN or not _BEARER.fullmatch(token):
        raise _invalid(answer, "has no usable access_token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise _invalid(answer, "has a token_type that is not Bearer")
    expires_in = jwt.number(parsed.get("expires_in"))
    claims = jwt.read(token)
    expires = claims.expires if claims else None
    lifetime = schedule.lifetime_granted(
        expires_in=expires_in if expires_in is not None and (expires_in > 0 or expires is None) else None,
        expires=expires,
        server_now=answer.date.timestamp() if answer.date else None,
        now=now.timestamp(),
    )
    if claims is not None and not claims.client_id:
        # Nothing could tell it from a token that somebody pasted into the target.
        raise _invalid(answer, "has a token that does not say which client it is for")
    if lifetime < dt.timedelta(seconds=1):
        raise _invalid(answer, "is about a token that has expired already")
    issued_at = now.replace(microsecond=0)
    return render.Grant(
        token=token,
        issued_at=issued_at,
        # To the second, as it is written: the dead second is never part of it.
        expires_at=(issued_at + lifetime).replace(microsecond=0),
        key_id=_safe(claims.key_id) if claims else "",
        client_id=claims.client_id if claims else "",
    )


def _safe(key_id: str) -> str:
    # It goes into an annotation and a status: a server must not be able to put a token there.
    return key_id if keys.KEY_ID.fullmatch(key_id) else ""


def _invalid(answer: answers.Answer, what: str) -> errors.UnclearError:
    return errors.UnclearError(
        reasons.Reason.INVALID_RESPONSE,
        f"The token answer of {answer.host} (HTTP {answer.status}) {what}. "
        "Is spec.url a Squidex, and does nothing in between change its answers?",
    )
