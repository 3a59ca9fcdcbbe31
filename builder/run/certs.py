"""Make certificates for mutual TLS between driver, scheduler and workers."""

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import MissingExtra, SpecError

DAYS = 365


@dataclass(frozen=True)
class Certificates:
    """Files that were written: the authority's certificate, and one certificate with its key for all parties."""

    ca_file: Path
    cert_file: Path
    key_file: Path

    def facts(self) -> dict[str, Any]:
        """Return the block ``tls`` of a profile."""
        return {"ca_file": str(self.ca_file), "cert_file": str(self.cert_file), "key_file": str(self.key_file)}

    def text(self) -> str:
        """Return the block ``tls`` of a profile as YAML."""
        return "tls:\n" + "\n".join(f"  {name}: {path}" for name, path in self.facts().items())


def write_certificates(folder: Path, *, days: int = DAYS) -> Certificates:
    """Make an authority, sign one certificate with it, and discard the authority's key, so that nobody can sign more.

    Raises
    ------
    SpecError
        When the folder already holds certificates.
    MissingExtra
        When the package ``cryptography`` is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise MissingExtra("cryptography", "tls") from error
    made = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    there = [path.name for path in (made.ca_file, made.cert_file, made.key_file) if path.exists()]
    if there:
        raise SpecError(f"--to: found {', '.join(there)} in the folder, expected none; name another folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "builder cluster authority")])
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "builder cluster")])
    sign = _signer(x509, authority, authority_key, days=days)
    _write(made.ca_file, _pem(sign(authority, authority_key.public_key(), True)), mode=0o644)
    _write(made.cert_file, _pem(sign(name, key.public_key(), False)), mode=0o644)
    _write(made.key_file, _private(key), mode=0o600)
    return made


def _signer(x509: Any, issuer: Any, issuer_key: Any, *, days: int) -> Callable[[Any, Any, bool], Any]:
    """Return a function that signs (subject, public key, whether it is an authority)."""
    from cryptography.hazmat.primitives import hashes

    now = datetime.datetime.now(datetime.UTC)

    def sign(subject: Any, public_key: Any, authority: bool) -> Any:
        usages = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(issuer_id, critical=False)
            .add_extension(_key_usage(x509, authority), critical=True)
        )
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    return sign


def _key_usage(x509: Any, authority: bool) -> Any:
    names = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    unused = dict.fromkeys((*names, "decipher_only"), False)
    return x509.KeyUsage(digital_signature=True, key_cert_sign=authority, crl_sign=authority, **unused)


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    data: bytes = certificate.public_bytes(Encoding.PEM)
    return data


def _private(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    data: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return data


def _write(path: Path, data: bytes, *, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
