"""SecretService."""

from __future__ import annotations

from codesous.control.v1 import secret_service_pb2 as pb
from codesous.control.v1.secret_service_pb2_grpc import SecretServiceServicer

from cs_control.secrets import Secrets
from cs_control.servicers import actor
from cs_core.rpc import paging
from cs_core.rpc.context import Context


class SecretServicer(SecretServiceServicer):
    """Serves Secrets."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    async def SetSecret(self, request: pb.SetSecretRequest, context: Context) -> pb.SetSecretResponse:
        secret = await self._secrets.set(request.tenant, request.namespace, request.secret, request.value, actor())
        return pb.SetSecretResponse(secret=secret)

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Context) -> pb.ListSecretsResponse:
        scope = (request.tenant, request.namespace)
        page = paging.Page("secrets", scope, request.page_size, request.page_token)
        found, last = await self._secrets.list_by_name(*scope, after=page.after_name(), limit=page.size)
        return pb.ListSecretsResponse(secrets=found, next_page_token=page.next_token(last))

    async def DeleteSecret(self, request: pb.DeleteSecretRequest, context: Context) -> pb.DeleteSecretResponse:
        await self._secrets.delete(request.tenant, request.namespace, request.secret, actor())
        return pb.DeleteSecretResponse()
