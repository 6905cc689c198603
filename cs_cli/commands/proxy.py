"""`cs proxy`: the configuration of the proxy, for deployments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cs_cli.failure import CommandError
from cs_cli.stack.envoy import EdgeSettings, TlsFiles, render
from cs_cli.stack.plan import descriptors_path

app = typer.Typer(help="The proxy in front of the services.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The proxy in front of the services."""


def _address(text: str, option: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise CommandError("CS_CLI_USAGE", f"{option}: {text} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _tls(certificate: Path | None, key: Path | None, authority: Path | None) -> TlsFiles | None:
    if (certificate is None) != (key is None):
        raise CommandError("CS_CLI_USAGE", "a certificate and its key are given together")
    return None if certificate is None or key is None else TlsFiles(certificate, key, authority)


@app.command()
def config(
    control: Annotated[str, typer.Option("--control", help="Where cs-control is, as host:port.")],
    gateway: Annotated[str, typer.Option("--gateway", help="Where the gateways are, as host:port.")],
    out: Annotated[Path, typer.Option("--out", help="File to write, for `envoy --config-path`.")],
    listen: Annotated[str, typer.Option("--listen", help="Address of the public port.")] = "0.0.0.0:8080",
    admin_pipe: Annotated[
        Path | None, typer.Option("--admin-pipe", help="Socket of Envoy's administration; beside --out by default.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option("--certificate", help="Of the public port (PEM).")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Its private key.")] = None,
    service_certificate: Annotated[
        Path | None, typer.Option("--service-certificate", help="What the proxy shows to the services (PEM).")
    ] = None,
    service_key: Annotated[Path | None, typer.Option("--service-key", help="Its private key.")] = None,
    service_authority: Annotated[
        Path | None, typer.Option("--service-authority", help="Authority that the services are of (PEM).")
    ] = None,
) -> None:
    """Write what Envoy is to be started with. The files that it names are those of this installation."""
    host, port = _address(listen, "--listen")
    settings = EdgeSettings(
        listen_host=host,
        listen_port=port,
        admin_pipe=(admin_pipe or out.parent / "admin.sock").absolute(),
        control=_address(control, "--control"),
        gateway=_address(gateway, "--gateway"),
        descriptors=descriptors_path(),
        public_tls=_tls(certificate, key, None),
        service_tls=_tls(service_certificate, service_key, service_authority),
    )
    try:
        out.write_text(render(settings), encoding="utf-8")
    except OSError as error:
        raise CommandError("CS_CLI_WRITE", f"{out} cannot be written: {error}") from error
