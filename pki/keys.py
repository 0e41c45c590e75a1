"""Private keys.

Keys are ECDSA P-256: a millisecond to make (RSA 2048: a hundred), fast to verify in every TLS handshake. The files that
hold them are written by pki.files.
"""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

PrivateKey = ec.EllipticCurvePrivateKey


class NotAKey(ValueError):
    """A file that should hold an EC private key does not; the message names it."""


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    """`key` as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: PrivateKey) -> bytes:
    """The public half as SubjectPublicKeyInfo PEM."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_key(path: Path) -> PrivateKey:
    """Raises OSError if `path` cannot be read and NotAKey if it is not an EC private key."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise NotAKey(f"{path}: not an unencrypted PEM private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NotAKey(f"{path}: not an elliptic-curve key")
    return key
