"""Encrypt associations, with certificates of both ends."""

import ssl

from pydantic import BaseModel, ConfigDict

from builder.errors import SpecError


class Tls(BaseModel):
    """Encrypt the connection (PS3.15 B.1), and show a certificate if the PACS asks for one.

    Parameters
    ----------
    ca
        File with the certificates to trust (PEM); without it those of the system.
    cert, key
        Files with our certificate and its key (PEM).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


def tls_context(tls: Tls, *, receiving: bool = False) -> ssl.SSLContext:
    """Return what both ends agree on: TLS 1.2 or later, with certificates that are checked. Raises SpecError."""
    purpose = ssl.Purpose.CLIENT_AUTH if receiving else ssl.Purpose.SERVER_AUTH
    try:
        context = ssl.create_default_context(purpose, cafile=tls.ca)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ValueError) as error:
        raise SpecError(
            f"sources.tls: found no certificate or key that can be read ({type(error).__name__}), expected PEM files "
            "in ca, cert and key; 'builder certs' makes some"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if receiving and tls.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
