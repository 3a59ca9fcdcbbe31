"""Keys of a federation, and who signed what: Ed25519 (RFC 8032) by the library cryptography."""

import os
import stat
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import LayoutError, MissingExtra, PrivacyError, SpecError
from builder.federation.documents import D, Document, Signature, read, signed_bytes, with_article
from builder.model.layout import CURRENT

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PREFIX = "ed25519:"
PUBLIC_SUFFIX = ".pub"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_key(path: Path) -> str:
    """Write a new private key for its owner alone, and the public key beside it. Return the public key.

    Raises
    ------
    SpecError
        If there is a file already, or the place lies in a dataset.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    _refuse_datasets(path)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise SpecError(
            f"{path}: found a file, expected none; a key is never written over: name another file"
        ) from None
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
    public = public_of(key)
    path.with_name(path.name + PUBLIC_SUFFIX).write_text(public + "\n")
    return public


def load_key(path: Path) -> "Ed25519PrivateKey":
    """Return the private key of a file that nobody but its owner can read.

    Raises
    ------
    SpecError
        If this is no such file. Its content is never shown.
    """
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    _refuse_datasets(path)
    try:
        mode, data = path.stat().st_mode, path.read_bytes()
    except FileNotFoundError:
        raise SpecError(f"{path}: found no file, expected a key; make one with builder federate key --to") from None
    if mode & _OTHERS:
        raise SpecError(
            f"{path}: found a key that others may read (mode {stat.S_IMODE(mode):04o}), expected mode 0600; make a new "
            "key if anybody may have copied it, else chmod 600"
        )
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SpecError(f"{path}: found no Ed25519 key in PEM, expected one that builder federate key wrote")
    return key


def public_of(key: "Ed25519PrivateKey") -> str:
    """Return the public key as documents write it."""
    return PREFIX + key.public_key().public_bytes_raw().hex()


def read_public(text: str, *, where: str) -> str:
    """Return a public key given as text, or as the path of a ``.pub`` file. Raises SpecError."""
    found = text.strip()
    if not found.startswith(PREFIX):
        try:
            found = Path(found).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            raise SpecError(f"{where}: found neither a public key nor a file, expected {PREFIX}... or a .pub") from None
    digits = found.removeprefix(PREFIX)
    if not found.startswith(PREFIX) or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise SpecError(f"{where}: found no public key, expected {PREFIX} and 64 hexadecimal digits")
    return found


def sign(document: Document, key: "Ed25519PrivateKey") -> Signature:
    """Return the signature of a document."""
    return Signature(key=public_of(key), value=key.sign(signed_bytes(document)).hex())


def read_signed(data: bytes, kind: type[D], *, where: str, pinned: Mapping[str, str]) -> D:
    """Return the document of a file that one of the pinned keys signed.

    Parameters
    ----------
    pinned
        Public keys whose signature counts, with what messages call their owner.

    Raises
    ------
    LayoutError
        If the file is no such document, or was changed after it was signed.
    PrivacyError
        If nobody signed it, or somebody else did.
    """
    _require_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    document, signature = read(data, kind, where=where)
    name = document.kind
    owners = " or ".join(sorted(set(pinned.values())))
    if signature is None:
        raise PrivacyError(f"{where}: found the {name} without a signature, expected that of {owners}; ask for it")
    if signature.key not in pinned:
        raise PrivacyError(
            f"{where}: found the {name} signed by {signature.key}, expected the key of {owners}; if the key changed, "
            "compare it with its owner by telephone before you pin the new one"
        )
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.key.removeprefix(PREFIX)))
        public.verify(bytes.fromhex(signature.value), signed_bytes(document))
    except (InvalidSignature, ValueError):
        raise LayoutError(
            f"{where}: found {with_article(name)} that was changed after {pinned[signature.key]} signed it, expected "
            "what was signed; ask for the file again"
        ) from None
    return document


def _refuse_datasets(path: Path) -> None:
    for folder in path.resolve().parents:
        if (folder / CURRENT).is_file():
            raise SpecError(f"{path}: found a place in the dataset {folder}, expected a key outside of datasets")


def _require_cryptography() -> None:
    if find_spec("cryptography") is None:
        raise MissingExtra("cryptography", "federation")
