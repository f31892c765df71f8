"""OpenIddict's errors: their texts, and how they look at each kind of endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.squidex import wire

TEXTS = {
    "ID2000": "The security token is missing.",
    "ID2001": "The specified authorization code is invalid.",
    "ID2004": "The specified token is invalid.",
    "ID2008": "The specified token is not an access token.",
    "ID2019": "The specified token is no longer valid.",
    "ID2029": "The mandatory '{0}' parameter is missing.",
    "ID2030": "The '{0}' parameter must be a valid absolute URI.",
    "ID2032": "The specified '{0}' is not supported.",
    "ID2035": "The '{0}' scope is not allowed.",
    "ID2037": "The '{0}' parameter cannot be used without '{1}'.",
    "ID2043": "The specified '{0}' is not valid for this client application.",
    "ID2046": "This client application is not allowed to use the authorization endpoint.",
    "ID2052": "The specified '{0}' is invalid.",
    "ID2053": "The '{0}' parameter is not valid for this client application.",
    "ID2054": "The '{0}' parameter required for this client application is missing.",
    "ID2055": "The specified client credentials are invalid.",
    "ID2057": "The '{0}' or '{1}' parameter must be specified when using the client credentials grant.",
    "ID2064": "This client application is not allowed to use the specified grant type.",
    "ID2074": "The '{0}' parameter is not valid in this context.",
    "ID2075": "This client application is not allowed to use the introspection endpoint.",
    "ID2081": "The mandatory '{0}' header is missing.",
    "ID2082": "The specified '{0}' header is invalid.",
    "ID2084": "The specified HTTP method is not valid.",
    "ID2087": "Multiple client credentials cannot be specified.",
    "ID2088": "The issuer associated to the specified token is not valid.",
    "ID2089": "The specified token is not of the expected type.",
    "ID2090": "The signing key associated to the specified token was not found.",
    "ID2091": "The signature associated to the specified token is not valid.",
    "ID2190": "One of the specified '{0}' parameters is invalid.",
}
"""Texts of OpenIddict's messages by id; clients see both."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An OAuth 2.0 error (RFC 6749, section 5.2) with the id of its text."""

    error: str
    code: str
    parameters: tuple[str, ...] = ()

    @property
    def document(self) -> dict[str, str]:
        """The error as JSON members, in the order in which they are sent."""
        return {
            "error": self.error,
            "error_description": TEXTS[self.code].format(*self.parameters),
            "error_uri": f"https://documentation.openiddict.com/errors/{self.code}",
        }


def fail(error: str, code: str, *parameters: str) -> Failure:
    """Return a failure whose text names `parameters`."""
    return Failure(error, code, parameters)


def challenge(scheme: str, document: dict[str, str]) -> tuple[str, str]:
    """Return the WWW-Authenticate header that repeats the members of `document`."""
    members = ", ".join(f'{name}="{value}"' for name, value in document.items())
    return "WWW-Authenticate", f"{scheme} {members}" if members else scheme


def reply(failure: Failure, *, no_store: bool = False) -> wire.Reply:
    """Return a failure as the token, introspection and discovery endpoints send it.

    Only `invalid_client` is a 401, even where no Basic credentials were sent.
    """
    headers = wire.NO_STORE if no_store else ()
    if failure.error == "invalid_client":
        return wire.oauth_json(401, failure.document, (*headers, challenge("Basic", failure.document)))
    return wire.oauth_json(400, failure.document, headers)


def identityserver4_reply(failure: Failure) -> wire.Reply:
    """Return a failure as Squidex before 6.6 sent it: 400 and the bare error."""
    return wire.Reply(
        400,
        (
            ("Content-Type", "application/json; charset=UTF-8"),
            ("Cache-Control", "no-store, no-cache, max-age=0"),
            ("Pragma", "no-cache"),
        ),
        f'{{"error":"{failure.error}"}}'.encode(),
    )
