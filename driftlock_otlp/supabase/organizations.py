"""Which organisation there is meant by one here; made there if it is new."""

from __future__ import annotations

from driftlock_otlp.supabase.client import Project


class Organizations:
    """Organisations of the project, by the names that sidecars know them by.

    Args:
        project: Where they are.
        default: Name of the organisation of what comes without an API key.
    """

    def __init__(self, project: Project, default: str) -> None:
        self._project = project
        self._default = default
        self._ids: dict[str, str] = {}

    @property
    def known(self) -> dict[str, str]:
        """Ids of those met so far, by tenant."""
        return dict(self._ids)

    async def id_of(self, tenant: str) -> str:
        """Return the id of a tenant's organisation.

        Raises:
            RetryableError: It cannot be asked for now.
        """
        if tenant not in self._ids:
            slug = tenant or self._default
            await self._project.upsert(
                "organizations", [{"slug": slug, "name": slug}], on_conflict="slug", is_merged=False
            )
            found = await self._project.select("organizations", "id", equal={"slug": slug}, order="id", limit=1)
            self._ids[tenant] = str(found[0]["id"])
        return self._ids[tenant]
