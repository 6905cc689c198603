"""Mutual TLS of a gRPC server: both sides show a certificate, or nobody speaks."""

from __future__ import annotations

from pathlib import Path

import grpc

from cs_core.config import RpcSettings, SettingsError


def server_credentials(settings: RpcSettings) -> grpc.ServerCredentials | None:
    """The credentials that the settings name; None when TLS is off.

    Raises:
        SettingsError: a file cannot be read.
    """
    if not settings.tls_certificate:
        return None
    try:
        certificate, key, authority = (
            Path(path).read_bytes() for path in (settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        )
    except OSError as error:
        raise SettingsError(f"rpc.tls_*: {error}") from error
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=authority, require_client_auth=True)
