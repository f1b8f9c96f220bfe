"""TLS between client and robot server: contexts of both ends, and what a failed handshake means."""

import os
import ssl
from pathlib import Path

from websockets.exceptions import InvalidMessage

from vla_bench_envs.robot.errors import CertificateError

CA_VARIABLE = "VLA_BENCH_ROBOT_CA"
"""Environment variable with the file of the certificate, or authority, that clients trust besides the system's."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the server's end.

    Raises:
        CertificateError: If the files cannot be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as caught:
        raise CertificateError(f"{certificate} and {key}", caught) from caught
    return context


def client_context(url: str) -> ssl.SSLContext | None:
    """Return the client's end for an address that begins with `wss:`, otherwise None; names are always verified.

    Raises:
        CertificateError: If the file that `VLA_BENCH_ROBOT_CA` names cannot be read.
    """
    if not url.startswith("wss:"):
        return None
    trusted = os.environ.get(CA_VARIABLE)
    try:
        return ssl.create_default_context(cafile=trusted)
    except (OSError, ssl.SSLError) as caught:
        raise CertificateError(f"{trusted} ({CA_VARIABLE})", caught) from caught


def explained(url: str, caught: Exception) -> str:
    """Return why no connection was made, with what to do where TLS is the reason."""
    if isinstance(caught, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {caught.verify_message}; {CA_VARIABLE} names the file to trust"
    if isinstance(caught, ssl.SSLError):
        return f"the TLS handshake failed: {caught.reason}; a server without a certificate is asked by ws:"
    if isinstance(caught, InvalidMessage | EOFError) and url.startswith("ws:"):
        return f"{caught}; a server with a certificate is asked by wss:"
    return str(caught)
