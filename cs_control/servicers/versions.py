"""VersionService."""

from __future__ import annotations

from codesous.control.v1 import version_service_pb2 as pb
from codesous.control.v1.version_service_pb2_grpc import VersionServiceServicer

from cs_control.drafts import Drafts
from cs_control.servicers import actor, answer_created
from cs_control.versions import Versions
from cs_core.rpc import paging
from cs_core.rpc.context import Context


class VersionServicer(VersionServiceServicer):
    """Serves Drafts and Versions."""

    def __init__(self, drafts: Drafts, versions: Versions) -> None:
        self._drafts = drafts
        self._versions = versions

    async def UploadDraft(self, request: pb.UploadDraftRequest, context: Context) -> pb.UploadDraftResponse:
        draft = await self._drafts.upload(
            request.tenant, request.namespace, request.function, dict(request.files), actor()
        )
        answer_created(True)
        return pb.UploadDraftResponse(draft=draft)

    async def PublishVersion(self, request: pb.PublishVersionRequest, context: Context) -> pb.PublishVersionResponse:
        published = await self._versions.publish(request, actor())
        answer_created(published.made)
        return pb.PublishVersionResponse(
            version=published.version, alias=published.alias, capability_diff=published.diff
        )

    async def GetVersion(self, request: pb.GetVersionRequest, context: Context) -> pb.GetVersionResponse:
        version = await self._versions.get(request.tenant, request.namespace, request.function, request.version)
        return pb.GetVersionResponse(version=version)

    async def DiffVersions(self, request: pb.DiffVersionsRequest, context: Context) -> pb.DiffVersionsResponse:
        scope = (request.tenant, request.namespace, request.function)
        diff, same = await self._versions.diff(*scope, request.from_version, request.version)
        return pb.DiffVersionsResponse(diff=diff, same_bundle=same)

    async def ListVersions(self, request: pb.ListVersionsRequest, context: Context) -> pb.ListVersionsResponse:
        scope = (request.tenant, request.namespace, request.function)
        page = paging.Page("versions", scope, request.page_size, request.page_token)
        found, last = await self._versions.list_newest_first(*scope, below=page.number(), limit=page.size)
        return pb.ListVersionsResponse(versions=found, next_page_token=page.next_token(last))
