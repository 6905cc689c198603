"""The parsers that face outside, as targets of the fuzz driver. Each looks at what it parsed, too."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from codesous.cell.v1.frames_pb2 import FromCell, RunResult
from codesous.control.v1.schedule_pb2 import ScheduleSpec
from codesous.gateway.v1.invocation_service_pb2 import InvokeRequest
from codesous.gateway.v1.web_service_pb2 import HandleRequest
from codesous.type.v1.function_response_pb2 import FunctionResponse
from codesous.type.v1.principal_pb2 import Principal
from google.protobuf.message import DecodeError

from cs_control.manifest import read_manifest
from cs_control.version_config import effective_config
from cs_core import names
from cs_core.bundle import check_path, pack, unpack
from cs_core.config import LimitSettings
from cs_core.errors import AuthenticationError, CodeSousError, RuntimeFailure, ValidationError
from cs_core.event import check_json
from cs_core.iam.signed import check_header, header_of, key_id_of
from cs_core.iam.strict_json import parse_object
from cs_core.rpc.paging import Page
from cs_core.rpc.status import MAX_STATUS_BYTES, to_status
from cs_core.schedules.rule import CronError, Rule, check_cron
from cs_core.store import keys
from cs_core.store.mutations import is_position, position_key
from cs_gateway.event_json import event_of
from cs_gateway.http_event import read_request, to_event
from cs_gateway.http_response import to_web
from cs_gateway.ingress import check_idempotency_key
from cs_gateway.watching import Cursor
from cs_sandbox.frames import FrameBuffer, FrameError, encode
from tests.support.fuzzing import Target

LIMITS = LimitSettings()
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BUNDLE_BYTES, BUNDLE_FILES = 64 * 1024, 16
FRAME_BYTES = 4096
SCOPE = ("t_alpha0", "default")
NAME_RULES: dict[str, Callable[[str], object]] = {
    "tenant": names.check_tenant,
    "namespace": names.check_namespace,
    "function": names.check_function,
    "schedule": names.check_schedule,
    "worker": names.check_worker,
    "alias": names.check_alias,
    "draft": names.check_draft_id,
    "activation": names.check_activation_id,
    "ref": names.parse_ref,
}


def text_of(data: bytes) -> str:
    """Text as gRPC hands it to a service: always valid UTF-8."""
    return data.decode("utf-8", "replace")


def parse_name(data: bytes) -> None:
    """A text that a rule lets pass makes one part of a key, and one only."""
    text, passed = text_of(data), 0
    for rule in NAME_RULES.values():
        try:
            rule(text)
        except ValidationError as error:
            told(error)
        else:
            passed += 1
    if not passed:
        raise ValidationError.field("name", "no rule lets it pass")
    assert text.isascii() and text.isprintable() and not set(text) & set("{}:/\\ *?[]\"'%"), "an odd name passed"
    tag = keys.function("t_alpha0", "default", text).partition("}")[0]
    assert tag == "cs:{t_alpha0", "a name moved its key to another slot"


def told(error: CodeSousError) -> None:
    """A refusal must be one that can be told."""
    assert to_status(error, "req_1").ByteSize() <= MAX_STATUS_BYTES


def parse_bundle(data: bytes) -> None:
    """What is unpacked lies below the bundle's root, within the limits, and can be packed again."""
    files = unpack(data, max_bytes=BUNDLE_BYTES, max_files=BUNDLE_FILES)
    assert len(files) <= BUNDLE_FILES and sum(map(len, files.values())) <= BUNDLE_BYTES, "a limit was passed"
    for path in files:
        check_path(path, "bundle")
        assert not path.startswith("/") and ".." not in path.split("/"), "a path leads out"


def pack_paths(data: bytes) -> None:
    """The paths of an upload."""
    parts = text_of(data).split("\n")
    files = {path: path.encode() for path in parts}
    bundle = pack(files, max_bytes=BUNDLE_BYTES, max_files=BUNDLE_FILES)
    assert unpack(bundle.data, max_bytes=BUNDLE_BYTES, max_files=BUNDLE_FILES) == files, "it came out otherwise"


def parse_manifest(data: bytes) -> None:
    """A manifest, and the configuration that a publish makes of it."""
    try:
        manifest = read_manifest({"manifest.json": data, "index.js": b""}, LIMITS)
        config = effective_config(manifest, type(manifest.config)(), LIMITS)
    except ValidationError as error:
        told(error)
        raise
    assert config.timeout.ToTimedelta().total_seconds() <= LIMITS.timeout_max


def parse_page_token(data: bytes) -> None:
    """A token as it comes, and one that is forged as far as a caller can: with the check of the list."""
    forged = Page("functions", SCOPE, 0, "").next_token(0)
    raw = _unpadded(forged)[:8] + data
    refused = 0
    for token in (text_of(data), _padded(raw)):
        for read in (Page.after_name, Page.number, Page.after_pair):
            try:
                read(Page("functions", SCOPE, 0, token))
            except ValidationError as error:
                told(error)
                refused += 1
    if refused == 6:
        raise ValidationError.field("page_token", "refused")


def _padded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unpadded(token: str) -> bytes:
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))


def parse_cursor(data: bytes) -> None:
    """The cursors of watches."""
    text = text_of(data)
    if is_position(text):
        assert position_key(text) >= (0, 0)
        return
    cursor = Cursor.parse(text)
    assert Cursor.parse(str(cursor)) == cursor


def parse_cron(data: bytes) -> None:
    """A cron expression, and the first ticks of what is let pass."""
    expression = text_of(data)
    check_cron(expression)
    rule = Rule("uid", ScheduleSpec(cron=expression, timezone="Europe/Berlin"), 0)
    moment: int | None = int(NOW.timestamp() * 1000)
    for _ in range(3):
        following = rule.after(moment or 0)
        if following is None:
            return
        assert moment is not None and following > moment, "a tick is not after the one before"
        moment = following


def parse_frames(data: bytes) -> None:
    """What a cell sends, in two pieces."""
    buffer, bodies = FrameBuffer(FRAME_BYTES), list[bytes]()
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        bodies += buffer.feed(piece)
    assert data.startswith(b"".join(len(body).to_bytes(4, "big") + body for body in bodies)), "bytes were lost"
    for body in bodies:
        FromCell.FromString(body)


def parse_event(data: bytes) -> None:
    """An event as bytes, and as the bytes of a structured one."""
    refused = 0
    try:
        event_of(InvokeRequest(event_json=data), LIMITS)
    except ValidationError:
        refused += 1
    request = InvokeRequest()
    try:
        request.MergeFromString(data)
        json.loads(event_of(request, LIMITS))
    except (ValidationError, DecodeError):
        refused += 1
    if refused == 2:
        raise ValidationError.field("event", "refused")


def parse_json(data: bytes) -> None:
    """Documents of JSON: events and those of tokens."""
    check_json(data, "event")
    parse_object(data)


def parse_idempotency_key(data: bytes) -> None:
    """Keys of callers."""
    check_idempotency_key(text_of(data))


def parse_token(data: bytes) -> None:
    """The header of an access token. The rest is read once the signature is right."""
    header = header_of(text_of(data))
    check_header(header)
    key_id_of(header)


def parse_web_request(data: bytes) -> None:
    """The metadata of a web request, one entry a line, and its path."""
    metadata: list[tuple[str, str | bytes]] = []
    for line in data.split(b"\n"):
        name, _, value = line.partition(b"=")
        metadata.append((name.decode("latin-1").lower(), value.decode("latin-1")))
    request = HandleRequest(tenant="t_alpha0", proxy_path=text_of(data))
    request.body.data = data
    web = read_request(request, metadata, LIMITS)
    event = json.loads(to_event(web, Principal(subject="ada"), "req_1", NOW))
    assert len(web.digest()) == 32
    assert event["rawPath"].startswith("/"), "a path without its slash"
    hidden = [name for name in event["headers"] if name.startswith(("x-cs-", "x-envoy-", "grpc-", ":"))]
    assert not hidden and "authorization" not in event["headers"], "a header of ours, or the token, reached a function"


def parse_web_response(data: bytes) -> None:
    """A function's response, as a careless cell sends it; nothing in it can split an answer."""
    response = FunctionResponse.FromString(data)
    web = to_web(response, "id")
    assert 200 <= web.status <= 599
    for name, value in (*web.headers, ("content-type", web.content_type)):
        assert name == name.lower() and name.isascii() and not set(name) & set(" :\r\n\0"), "a name splits"
        assert value.isascii() and value.isprintable(), "a value splits"
        assert not name.startswith(("x-cs-", "x-envoy-", "grpc-")), "a name of ours"
        assert name not in ("transfer-encoding", "content-length", "connection"), "a name of the connection"


def tar_of(*entries: tuple[str, bytes] | tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar that holds what no bundle may."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return buffer.getvalue()


def odd_entry(kind: bytes, name: str = "odd", **fields: Any) -> tarfile.TarInfo:
    """An entry that is no plain file."""
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


BUNDLES = (
    tar_of(("index.js", b"export default 1"), ("manifest.json", b"{}")),
    tar_of(("../../etc/passwd", b"x")),
    tar_of(("/etc/passwd", b"x")),
    tar_of(odd_entry(tarfile.SYMTYPE, linkname="/etc/passwd"), ("odd", b"x")),
    tar_of(odd_entry(tarfile.LNKTYPE, linkname="index.js")),
    tar_of(odd_entry(tarfile.CHRTYPE, devmajor=1, devminor=3)),
    tar_of(odd_entry(tarfile.DIRTYPE)),
    tar_of(odd_entry(tarfile.REGTYPE, pax_headers={"comment": "long" * 500, "size": "7"})),
    tar_of(("a" * 250 + "/\u00e9.js", b"x"), form=tarfile.GNU_FORMAT),
    tar_of(("twice", b"1"), ("twice", b"2")),
    tar_of(("d/\u00e9\u4e2d.js", b"x" * 600)),
)
MANIFESTS = (
    b'{"runtime":"cs-js","entry":"index.js","description":"d","config":{"invokeHttpRoles":["admin"],"timeout":"3s",'
    b'"memoryMb":64,"isolation":"version","env":{"A":"b"},"capabilities":{"kv":{"prefixes":["a"],"operations":["get"]},'
    b'"http":{"allowHosts":["*.example.com"],"timeout":"2s"},"codeq":{"publishTopics":["t.*"]},"secrets":["s"]}}}',
    b'{"runtime": "cs-js"}',
    b'{"runtime":"cs-js","config":{"timeout":"-0.000000001s","workerTimeout":"315576000000s"}}',
    b'{"runtime":"cs-js","config":{"timeout":"0.1e999s"}}',
    b'{"runtime":"cs-js","capabilities":{"kv":{"operations":["KV_OPERATION_GET",3,99]}}}',
    b'{"runtime":"cs-js","config":{"retry":{"maxAttempts":3,"initialBackoff":"1s","maxBackoff":"9s"}}}',
)
RESPONSES = tuple(
    FunctionResponse(**fields).SerializeToString()  # type: ignore[arg-type]
    for fields in (
        {"status_code": 200, "headers": {"content-type": "text/html", "x-a": "b"}, "body": "hello"},
        {"status_code": 204, "cookies": ["a=b;\tHttpOnly", " c=d"]},
        {"status_code": 599, "headers": {"Location": "/x", "x-cs-http-status": "200"}},
        {"status_code": 200, "headers": {"x": "a\r\nset-cookie: b"}, "body": "AAAA", "is_base64_encoded": True},
    )
)

TARGETS = (
    Target(
        "names",
        (
            b"t_alpha0",
            b"hello-world",
            b"live",
            b"drf_01ARZ3NDEKTSV4RRFFQ69G5FAV",
            b"4294967295",
            b"1",
            b"123e4567-e89b-12d3-a456-426614174000",
            b"t_alpha0}:{t_other0",
            b"urn:uuid:",
        ),
        parse_name,
        (ValidationError,),
    ),
    Target("bundles", BUNDLES, parse_bundle, (ValidationError,), (b"ustar\x0000", b"\x80\xff\xff\xff", b"20 size=9\n")),
    Target("paths of uploads", (b"index.js\nlib/a.js", b"a\na/b", b"../x", b"/x\n\\y"), pack_paths, (ValidationError,)),
    Target("manifests", MANIFESTS, parse_manifest, (ValidationError,), (b'"kv":', b"1e400", b'"@type":', b'{"":')),
    Target(
        "page tokens",
        (b'"hello"', b"7", b'[1767322800000, "123e4567"]', b"[]", b"{}", b"null", b"[" * 100_000, b"1" * 5000, b"true"),
        parse_page_token,
        (ValidationError,),
    ),
    Target("cursors", (b"1.2.3", b"1767322800000-0", b"0.0.0"), parse_cursor, (ValidationError,)),
    Target(
        "cron",
        (b"*/5 * * * *", b"0 0 29 2 *", b"0 9 * * MON#1", b"0 0 L * 5L", b"1-5/2,7 1 1 JAN-DEC 0-7", b"59 23 31 12 6"),
        parse_cron,
        (CronError,),
        (b"*", b"/", b"#", b"L", b"W", b"-", b",", b"FEB", b"SUN", b"30", b" "),
    ),
    Target(
        "frames of cells",
        (
            encode(FromCell(result=RunResult(run_id=1))) * 2,
            b"\xff\xff\xff\xff",
            b"\x00\x00\x00\x00" * 8,
            b"\x00\x00\x0f\xff",
        ),
        parse_frames,
        (FrameError, DecodeError),
    ),
    Target(
        "events",
        (
            b'{"a":[1,2.5,"x",null,true]}',
            b"[" * 100000,
            b"1" * 5000,
            b'"\\ud800"',
            b"null",
            b"",
            InvokeRequest(tenant="t_alpha0").SerializeToString(),
        ),
        parse_event,
        (ValidationError,),
    ),
    Target("documents", (b'{"a":1}', b'{"a":1,"a":2}', b"[" * 100_000, b"{}"), parse_json, (ValueError, CodeSousError)),
    Target("idempotency keys", (b"order-17", b"a" * 257, b"\xc3\xa9"), parse_idempotency_key, (ValidationError,)),
    Target(
        "headers of tokens",
        (b"eyJhbGciOiJSUzI1NiIsImtpZCI6ImRldiJ9.e30.c2ln", b"eyJhbGciOiJub25lIn0.e30.", b"a.b.c"),
        parse_token,
        (AuthenticationError,),
    ),
    Target(
        "web requests",
        (
            b"x-cs-raw-path=/v1/web/t_alpha0/default/hello/live/a%20b?c\nx-cs-raw-query=a=b&c=%zz&a=2\ncookie=a=b; c\n"
            b"x-forwarded-for=1.2.3.4, 5.6.7.8\nauthorization=Bearer x\nuser-agent=curl\nx-envoy-original-method=GET",
            b"x-cs-raw-path=/\nx-forwarded-for=,\nx-cs-authority=h",
            b"x-cs-raw-query=" + b"a&" * 9000,
        ),
        parse_web_request,
        (CodeSousError,),
    ),
    Target("responses of functions", RESPONSES, parse_web_response, (RuntimeFailure, DecodeError)),
)
