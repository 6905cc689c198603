"""From files to a version behind an alias: make the function when it is missing, upload, publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codesous.control.v1 import function_service_pb2, version_pb2, version_service_pb2
from codesous.control.v1.alias_pb2 import Alias
from codesous.control.v1.capability_diff_pb2 import CapabilityDiff
from codesous.runtime.v1.version_config_pb2 import VersionConfig

from cs_cli.api import LONG_DEADLINE, Api
from cs_cli.failure import CommandError


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deployment made. `created`: the function too; `diff`: how what the alias may reach has changed."""

    draft: version_pb2.Draft
    version: version_pb2.Version
    alias: Alias | None
    created: bool
    diff: CapabilityDiff | None


def upload(api: Api, namespace: str, name: str, files: Mapping[str, bytes]) -> version_pb2.Draft:
    """Upload files as a draft. Raises CommandError."""
    request = version_service_pb2.UploadDraftRequest(
        tenant=api.tenant, namespace=namespace, function=name, files=dict(files)
    )
    answer: version_service_pb2.UploadDraftResponse = api.call(api.versions.UploadDraft, request, LONG_DEADLINE)
    return answer.draft


def publish(
    api: Api, namespace: str, name: str, draft_id: str, alias: str, config: VersionConfig | None = None
) -> version_service_pb2.PublishVersionResponse:
    """Publish a draft, with an alias when one is named. Raises CommandError."""
    request = version_service_pb2.PublishVersionRequest(
        tenant=api.tenant, namespace=namespace, function=name, draft_id=draft_id, alias=alias, config=config
    )
    answer: version_service_pb2.PublishVersionResponse = api.call(api.versions.PublishVersion, request)
    return answer


def deploy(
    api: Api,
    namespace: str,
    name: str,
    files: Mapping[str, bytes],
    alias: str,
    config: VersionConfig | None = None,
) -> Deployed:
    """Draft, publish and alias in one go. Raises CommandError."""
    created = _make_if_missing(api, namespace, name)
    draft = upload(api, namespace, name, files)
    answer = publish(api, namespace, name, draft.draft_id, alias, config)
    diff = answer.capability_diff if answer.HasField("capability_diff") else None
    return Deployed(draft, answer.version, answer.alias if answer.HasField("alias") else None, created, diff)


def _make_if_missing(api: Api, namespace: str, name: str) -> bool:
    try:
        api.call(
            api.functions.GetFunction,
            function_service_pb2.GetFunctionRequest(tenant=api.tenant, namespace=namespace, function=name),
        )
    except CommandError as error:
        if error.reason != "CS_NOT_FOUND_FUNCTION":
            raise
        api.call(
            api.functions.CreateFunction,
            function_service_pb2.CreateFunctionRequest(tenant=api.tenant, namespace=namespace, function=name),
        )
        return True
    return False
