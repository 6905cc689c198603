"""AccessService."""

from __future__ import annotations

from codesous.control.v1 import access_service_pb2 as pb
from codesous.control.v1.access_service_pb2_grpc import AccessServiceServicer

from cs_control.access import explain_access
from cs_control.servicers import actor
from cs_core.iam.policy import Policy
from cs_core.rpc.context import Context


class AccessServicer(AccessServiceServicer):
    """Serves explanations of the policy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def ExplainAccess(self, request: pb.ExplainAccessRequest, context: Context) -> pb.ExplainAccessResponse:
        caller = actor().principal
        decision = explain_access(self._policy, caller, request.action, request.resource, request.roles)
        return pb.ExplainAccessResponse(decision=decision)
