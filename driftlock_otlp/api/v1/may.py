"""What routes depend on: a caller who may do what the route does."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer

from driftlock_otlp.api.access import Caller
from driftlock_otlp.api.v1.border import CALLER
from driftlock_otlp.auth.roles import Permission

# Only described by these; `Border` has read the headers.
_bearer = HTTPBearer(auto_error=False, description="Authorization: Bearer dl_…")
_header = APIKeyHeader(name="x-api-key", auto_error=False, description="x-api-key: dl_…")


class _May:
    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(
        self,
        request: Request,
        bearer: Annotated[object, Security(_bearer)] = None,
        header: Annotated[object, Security(_header)] = None,
    ) -> Caller:
        caller: Caller = request.scope[CALLER]
        caller.require(self.permission)
        return caller


Reader = Annotated[Caller, Depends(_May(Permission.READ))]
Operator = Annotated[Caller, Depends(_May(Permission.ACT))]
Admin = Annotated[Caller, Depends(_May(Permission.CONFIGURE))]
Sender = Annotated[Caller, Depends(_May(Permission.INGEST))]


def permission_of(route: APIRoute) -> Permission:
    """Return what a route needs of its caller."""
    (found,) = (part.call.permission for part in route.dependant.dependencies if isinstance(part.call, _May))
    return found
