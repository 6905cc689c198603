"""The rules of a function's response, checked in the cell for a good message and again outside it for trust."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from codesous.type.v1 import function_response_pb2

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_FIELD_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")


class ResponseError(ValueError):
    """A response breaks a rule. The text begins with the field's name."""


def check_response(response: function_response_pb2.FunctionResponse) -> None:
    """Raise `ResponseError` unless the status, headers, cookies and body are what a function may answer."""
    if not 200 <= response.status_code <= 599:
        raise ResponseError("statusCode: must be an integer from 200 to 599")
    for name, value in response.headers.items():
        _check_header(name, value)
    for cookie in response.cookies:
        if not _FIELD_VALUE.fullmatch(cookie):
            raise ResponseError("cookies: must be printable ASCII")
    if response.is_base64_encoded:
        try:
            base64.b64decode(response.body, validate=True)
        except (binascii.Error, ValueError):
            raise ResponseError("body: is not base64") from None


def _check_header(name: str, value: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise ResponseError(f"headers: {name[:100]!a} is not a header name")
    if not _FIELD_VALUE.fullmatch(value):
        raise ResponseError(f"headers.{name}: must be printable ASCII without CR, LF and NUL")
