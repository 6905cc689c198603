"""Certificates for development: an authority of one's own, and what it signs for the services and for the proxy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY: Final = "ca"
SERVER_USES: Final = (ExtendedKeyUsageOID.SERVER_AUTH,)
CLIENT_USES: Final = (ExtendedKeyUsageOID.CLIENT_AUTH,)
# Who holds a client's certificate can call the services, and cannot pass for one of them.
PARTS: Final = {"public": SERVER_USES, "service": SERVER_USES, "client": CLIENT_USES}


def make_certificates(folder: Path, names: Sequence[str], days: int) -> None:
    """Write `ca`, `public`, `service` and `client`, each as `.pem` and `.key.pem`, over what is there.

    Args:
        folder: where to; keys are readable by their owner only.
        names: host names and addresses that the servers are reached by.
        days: how long they are good for.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    end = datetime.now(UTC) + timedelta(days=days)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "code-sous development authority")])
    authority = (
        _builder(authority_name, authority_name, authority_key, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    _write(folder, AUTHORITY, authority, authority_key)
    for part, uses in PARTS.items():
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"code-sous {part}")])
        certificate = (
            _builder(subject, authority_name, key, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        _write(folder, part, certificate, key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks differ.
        .not_valid_before(datetime.now(UTC) - timedelta(minutes=5))
        .not_valid_after(end)
    )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _write(folder: Path, part: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    (folder / f"{part}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path = folder / f"{part}.key.pem"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
