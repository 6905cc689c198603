"""The proxy's configuration: its limits fit those of the services, and what is rendered is what Envoy takes."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from cs_cli.stack.envoy import EdgeSettings, render
from cs_core.config import Settings
from tests.support.edge import DESCRIPTORS


def make_settings(folder: Path) -> EdgeSettings:
    return EdgeSettings(
        listen_host="::1",
        listen_port=8080,
        admin_pipe=folder / "admin.sock",
        control=("control.example", 1),
        gateway=("gateway.example", 2),
        descriptors=DESCRIPTORS,
    )


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def test_limits_leave_room_for_those_of_the_services() -> None:
    edge, services = make_settings(Path("/run")), Settings()
    limits = services.limits
    room = 64 * 1024
    assert edge.max_body_bytes >= limits.http_body_bytes * 4 / 3 + room
    assert edge.max_draft_bytes >= limits.bundle_bytes * 4 / 3 + room
    assert edge.max_draft_bytes <= services.rpc.max_message_bytes
    assert edge.max_answer_bytes >= services.rpc.max_message_bytes
    assert limits.http_header_bytes < edge.max_headers_kib * 1024 < services.rpc.max_metadata_bytes
    assert seconds(edge.route_timeout) > max(limits.wait_max, limits.timeout_max + limits.correlation_slack)
    assert seconds(edge.stream_idle_timeout) > limits.worker_timeout_max


def test_streams_outlive_the_longest_wait() -> None:
    found = re.search(r"stream_idle_timeout: (\S+)", render(make_settings(Path("/run"))))
    assert found is not None
    assert seconds(found[1]) > seconds(make_settings(Path("/run")).route_timeout)


def test_the_admin_interface_has_no_port() -> None:
    admin = render(make_settings(Path("/run"))).partition("admin:")[2].partition("overload_manager:")[0]
    assert "pipe" in admin
    assert "socket_address" not in admin


@pytest.mark.parametrize("name", ["plain", "with blank", 'it\'s "quoted"', "back\\slash", "ü: {x} #y", "$HOME"])
async def test_envoy_takes_it_whatever_the_paths_hold(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    config = folder / "envoy.yaml"
    config.write_text(render(make_settings(folder)))
    command = [str(Path(sys.executable).parent / "envoy"), "--mode", "validate", "-c", str(config), "-l", "error"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
