"""The only module that knows the Supabase client: tables are written and read, errors get our meaning."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from postgrest import APIError
from postgrest.types import ReturnMethod
from supabase import AsyncClient, AsyncClientOptions

from driftlock_otlp.config.supabase import SupabaseConfig
from driftlock_otlp.errors import PermanentError, RetryableError
from driftlock_otlp.retry import parse_retry_after_s
from driftlock_otlp.supabase.rows import Row

_SETUP_RETRY_S = 30.0
_RETRIED_STATUSES = {408, 425, 429}
_REFUSED_STATUSES = {401, 403}
# Classes of SQLSTATE: connection, transaction rolled back, resources, intervention by an operator, system, internal.
_RETRIED_CLASSES = ("08", "40", "53", "57", "58", "XX")
_ROW_CLASSES = ("21", "22", "23", "P0")
_UNIQUE_VIOLATION = "23505"
# A table, column or function that is not there: PostgreSQL's words for it, and PostgREST's.
_UNMIGRATED = {"42P01", "42703", "42883", "42P10", "PGRST106", "PGRST202", "PGRST204", "PGRST205"}


class RowsRefusedError(PermanentError):
    """The database refuses at least one of the rows, and would refuse it again."""


class SetupError(RetryableError):
    """The project is not as it must be; the message says what to do. Nothing is lost while it waits."""


class Project:
    """A Supabase project, with the rights of its secret key.

    Args:
        config: Where it is.
    """

    def __init__(self, config: SupabaseConfig) -> None:
        self._key = config.secret_key
        self._http = httpx.AsyncClient(
            timeout=config.timeout,
            follow_redirects=False,
            event_hooks={"request": [self._show_key], "response": [_refuse_status]},
        )
        options = AsyncClientOptions(
            httpx_client=self._http, auto_refresh_token=False, persist_session=False, postgrest_client_retry=False
        )
        self._client = AsyncClient(config.url, config.secret_key, options)

    async def close(self) -> None:
        """Let go of its connections."""
        await self._http.aclose()

    async def upsert(self, table: str, rows: Sequence[Row], on_conflict: str, *, is_merged: bool) -> None:
        """Write rows; all of them or none.

        Args:
            table: The table.
            rows: All with the same keys.
            on_conflict: Columns that say which row it is.
            is_merged: Whether a row that is known takes the new values; else it stays as it is.

        Raises:
            RowsRefusedError: One of them cannot be written as it is.
            RetryableError: It may work later; `SetupError` once somebody has acted.
        """
        query = self._client.table(table).upsert(
            list(rows),
            returning=ReturnMethod.minimal,
            ignore_duplicates=not is_merged,
            on_conflict=on_conflict,
            default_to_null=False,
        )
        try:
            await self._execute(query)
        except _DuplicateError:
            if len(rows) > 1:
                raise RowsRefusedError("one of the rows is known under another key") from None
            # What is there already has been delivered.

    async def select(
        self,
        table: str,
        columns: str,
        *,
        equal: Mapping[str, str] | None = None,
        above: Mapping[str, Any] | None = None,
        from_: Mapping[str, Any] | None = None,
        below: Mapping[str, Any] | None = None,
        order: str,
        limit: int,
        offset: int = 0,
    ) -> list[Row]:
        """Return rows.

        Args:
            table: The table or view.
            columns: Names with commas between them.
            equal: Columns and the values that they must have.
            above: Columns that must be greater.
            from_: Columns that must be as great or greater.
            below: Columns that must be less.
            order: Columns, with commas, by which they come.
            limit: Most to return; a project gives no more than 1,000 at once.
            offset: Rows to leave out first.

        Raises:
            RetryableError: It may work later.
        """
        query = self._client.table(table).select(columns)
        for column, value in (equal or {}).items():
            query = query.eq(column, value)
        for column, value in (above or {}).items():
            query = query.gt(column, value)
        for column, value in (from_ or {}).items():
            query = query.gte(column, value)
        for column, value in (below or {}).items():
            query = query.lt(column, value)
        for column in order.split(","):
            query = query.order(column)
        found: list[Row] = await self._execute(query.range(offset, offset + limit - 1))
        return found

    async def call(self, function: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Call a function of the database and return what it returns.

        Raises:
            RetryableError: It may work later.
        """
        return await self._execute(self._client.rpc(function, dict(arguments or {})))

    async def _execute(self, query: Any) -> Any:
        try:
            return (await query.execute()).data
        except APIError as error:
            raise _meaning(error) from None
        except httpx.HTTPError as error:
            raise RetryableError(f"Supabase cannot be reached: {type(error).__name__}: {error}") from None

    async def _show_key(self, request: httpx.Request) -> None:
        request.headers["apikey"] = self._key
        if self._key.startswith("sb_"):
            # Not a JSON web token: as a bearer it would be taken for one that is broken.
            request.headers.pop("authorization", None)


class _DuplicateError(Exception):
    """The row is there already."""


async def _refuse_status(response: httpx.Response) -> None:
    status = response.status_code
    if status in _REFUSED_STATUSES:
        await response.aread()
        raise SetupError(
            f"Supabase refuses the key ({status}: {response.text[:200]}): set supabase.secret_key to the project's"
            " secret key (sb_secret_…), and run `driftlock-otlp supabase migrate` if this is a new version",
            _SETUP_RETRY_S,
        )
    if status in _RETRIED_STATUSES or status >= 500:
        wish = parse_retry_after_s(response.headers.get("retry-after"), time.time())
        raise RetryableError(f"Supabase answers {status}", wish)


def _meaning(error: APIError) -> Exception:
    """Return what an error of PostgREST means for us."""
    code, text = str(error.code or ""), f"{error.code}: {error.message} {error.details or ''}".strip()
    if code == _UNIQUE_VIOLATION:
        return _DuplicateError(text)
    if code in _UNMIGRATED or code == "404":
        return SetupError(
            f"the Supabase project lacks something ({text}): run `driftlock-otlp supabase migrate`", _SETUP_RETRY_S
        )
    if code.startswith(_ROW_CLASSES) or code in {"400", "413", "422", "PGRST102"}:
        return RowsRefusedError(text)
    if code.startswith(_RETRIED_CLASSES):
        return RetryableError(f"Supabase: {text}")
    # What is not known is not given up.
    return SetupError(f"Supabase refuses: {text}", _SETUP_RETRY_S)
