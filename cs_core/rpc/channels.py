"""Channels to gRPC servers, with limits that fit the servers'."""

from __future__ import annotations

import grpc

_MIB = 1024 * 1024


def channel_options(max_message_bytes: int = 32 * _MIB) -> list[tuple[str, int]]:
    """Options of a channel: message sizes in bytes as the servers allow, and metadata to match."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_metadata_size", 96 * 1024),
        ("grpc.absolute_max_metadata_size", 96 * 1024),
    ]


def open_channel(target: str, *, tls: bool = False) -> grpc.aio.Channel:
    """Open a channel to `host:port`; with `tls` the system's certificate authorities are trusted."""
    if tls:
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=channel_options())
    return grpc.aio.insecure_channel(target, options=channel_options())
