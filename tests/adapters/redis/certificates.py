"""A certificate for tests of TLS."""

import ssl
import subprocess
from pathlib import Path


def untrusted_certificate(folder: Path) -> ssl.SSLContext:
    """Return a server's context with a new certificate for localhost, which nobody trusts."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-days", "1", "-nodes", "-newkey", "rsa:2048"]
    subprocess.run(
        ["openssl", "req", "-x509", *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
