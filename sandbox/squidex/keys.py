"""Signing keys: what a token is signed with and what the JWKS document shows."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

if TYPE_CHECKING:
    from pathlib import Path

FIRST = "first"
"""Name of the key the server starts with."""

_PADDING = padding.PKCS1v15()
_SHA256 = hashes.SHA256()


def b64url(data: bytes) -> str:
    """Return unpadded base64url (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64url_decode(text: str) -> bytes:
    """Undo `b64url`; raises ValueError for anything else."""
    if not text.isascii() or not text.replace("-", "").replace("_", "").isalnum():
        raise ValueError("not base64url")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An RSA key with its id. The id follows from the key, so a restart with the same file keeps it."""

    private: rsa.RSAPrivateKey
    kid: str
    modulus: str
    headers: dict[str, str]
    """Encoded JWS headers by `typ`: they are the same for every token of a kind."""

    def sign(self, data: bytes) -> bytes:
        """Return the RS256 signature of `data`."""
        return self.private.sign(data, _PADDING, _SHA256)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Tell whether `signature` over `data` is by this key."""
        try:
            self.private.public_key().verify(signature, data, _PADDING, _SHA256)
        except InvalidSignature:
            return False
        return True

    def jwk(self) -> dict[str, Any]:
        """Return the public half in the order in which OpenIddict writes it."""
        return {"kid": self.kid, "use": "sig", "kty": "RSA", "alg": "RS256", "e": "AQAB", "n": self.modulus}


def wrap(private: rsa.RSAPrivateKey) -> SigningKey:
    """Give `private` a key id of the form Squidex uses: 16 bytes in base64url."""
    number = private.public_key().public_numbers().n
    modulus = number.to_bytes((number.bit_length() + 7) // 8, "big")
    kid = b64url(hashlib.sha256(modulus).digest()[:16])
    headers = {
        typ: b64url(json.dumps({"alg": "RS256", "kid": kid, "typ": typ}, separators=(",", ":")).encode())
        for typ in ("at+jwt", "JWT")
    }
    return SigningKey(private, kid, b64url(modulus), headers)


def generate() -> SigningKey:
    """Make a new 2048-bit key, the size Squidex makes."""
    return wrap(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def load(path: Path) -> SigningKey:
    """Read an unencrypted RSA private key in PEM; raises ValueError for any other content."""
    private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(private, rsa.RSAPrivateKey):
        raise ValueError(f"{path} holds no RSA key")
    return wrap(private)


class KeyRing:
    """Named keys, and which of them the replicas behind the URL use.

    One name is one server; several names answer in turn, as replicas behind a load balancer do while
    a signing certificate is being replaced.
    """

    def __init__(self, first: SigningKey) -> None:
        self._keys = {FIRST: first}
        self._replicas: tuple[str, ...] = (FIRST,)
        self._turn = 0

    @property
    def replicas(self) -> tuple[str, ...]:
        """Names of the keys in the order in which the replicas answer."""
        return self._replicas

    def use(self, names: tuple[str, ...]) -> None:
        """Let the replicas use these keys; a name seen for the first time gets a new key."""
        for name in names:
            if name not in self._keys:
                self._keys[name] = generate()
        self._replicas = names
        self._turn = 0

    def unused_name(self) -> str:
        """Return a name that no key has yet."""
        return f"key-{len(self._keys) + 1}"

    def get(self, name: str) -> SigningKey:
        """Return the key of that name, making it if need be."""
        if name not in self._keys:
            self._keys[name] = generate()
        return self._keys[name]

    def next(self) -> SigningKey:
        """Return the key of the replica whose turn it is."""
        if len(self._replicas) == 1:
            return self._keys[self._replicas[0]]
        name = self._replicas[self._turn % len(self._replicas)]
        self._turn += 1
        return self._keys[name]

    def kids(self) -> dict[str, str]:
        """Return key ids by name."""
        return {name: key.kid for name, key in self._keys.items()}
