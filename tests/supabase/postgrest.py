"""As much of PostgREST as our client asks for, so that policies really apply: each request becomes its role.

Every request is one transaction as the role of its key, or of the user whose token it shows. A key of the new kind is
no JSON web token: as a bearer it is passed over beside the same `apikey`, and refused otherwise, as a broken token is.
Errors have PostgREST's statuses and bodies.

References:
    PostgREST documentation, "Tables and Views", "Functions as RPC", "Errors"; Supabase documentation, "API keys".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

SECRET_KEY = "sb_secret_0123456789abcdefghijkl_test"
PUBLISHABLE_KEY = "sb_publishable_0123456789abcdefghijkl_test"
JWT_SECRET = b"a secret of the tests alone, long enough for HS256"

_OPERATORS = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_RESERVED = {"select", "order", "limit", "offset", "on_conflict", "columns"}
_STATUSES = {"23505": 409, "23503": 409, "42501": 403, "42P01": 404, "42883": 404, "53400": 500, "57014": 500}
_MOST_ROWS = 1000


def token(role: str, user: str | None = None, expires_in_s: float = 3600) -> str:
    """Return a JSON web token (HS256) of a role, as Supabase's auth gives to users; also a legacy key."""
    claims = {"role": role, "exp": int(time.time() + expires_in_s)} | ({"sub": user} if user else {})
    parts = [_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    return ".".join([*parts, _base64(_sign(".".join(parts)))])


def _sign(text: str) -> bytes:
    return hmac.new(JWT_SECRET, text.encode(), hashlib.sha256).digest()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message, "details": None, "hint": None}


def _claims(text: str) -> dict[str, Any]:
    parts = text.split(".")
    if len(parts) != 3 or not hmac.compare_digest(_base64(_sign(".".join(parts[:2]))), parts[2]):
        raise _RefusedError(401, "PGRST301", "JWSError JWSInvalidSignature")
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    if claims.get("exp", 0) < time.time():
        raise _RefusedError(401, "PGRST303", "JWT expired")
    return claims


@dataclass
class Gateway:
    """A running server.

    Attributes:
        url: Where it is: the project's URL.
        requests: Method and path of each request, in order.
        bearers: What each showed as a bearer; empty if nothing.
        failures: Statuses to answer with, one a request, before anything is done; 0 lets the request through.
        losing: Numbers of the requests whose answer is lost: they are done, and the connection is cut.
    """

    url: str = ""
    requests: list[str] = field(default_factory=list)
    bearers: list[str] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    losing: set[int] = field(default_factory=set)


@contextmanager
def gateway(dsn: str) -> Iterator[Gateway]:
    """Serve a database.

    Args:
        dsn: How to connect to it; the user must be allowed to become the roles of the API.
    """
    state = Gateway()
    local = threading.local()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10
        disable_nagle_algorithm = True

        def finish(self) -> None:
            """Close what this connection's thread had of the database."""
            super().finish()
            if hasattr(local, "connection"):
                local.connection.close()
                del local.connection

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("content-length", 0))))

        def do_GET(self) -> None:
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            number = len(state.requests)
            state.bearers.append(self.headers.get("authorization", ""))
            state.requests.append(f"{self.command} {urlsplit(self.path).path}")
            try:
                if state.failures and (status := state.failures.pop(0)):
                    raise _RefusedError(status, str(status), "told to fail")
                if not hasattr(local, "connection"):
                    local.connection = psycopg.connect(dsn)
                status, found = _serve(local.connection, self.command, self.path, dict(self.headers.items()), body)
            except _RefusedError as error:
                status, found = error.status, error.body
            except psycopg.Error as error:
                diagnosis = error.diag
                code = diagnosis.sqlstate or "XX000"
                status = _STATUSES.get(code, 500 if code[:2] in {"08", "53", "54", "57", "58", "XX", "40"} else 400)
                found = {
                    "code": code,
                    "message": diagnosis.message_primary,
                    "details": diagnosis.message_detail,
                    "hint": None,
                }
            if number in state.losing:
                self.close_connection = True
                return
            data = b"" if found is None else json.dumps(found, default=str).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, *arguments: Any) -> None:
            """A client that went away is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _who(headers: dict[str, str]) -> dict[str, Any]:
    """Return the claims of a request: its user's, or those of the key alone."""
    named = {name.lower(): value for name, value in headers.items()}
    key, bearer = named.get("apikey", ""), named.get("authorization", "").removeprefix("Bearer ")
    roles = {SECRET_KEY: "service_role", PUBLISHABLE_KEY: "anon"}
    if key not in roles and not key.startswith("eyJ"):
        raise _RefusedError(401, "401", "Invalid API key")
    of_key = {"role": roles[key]} if key in roles else _claims(key)
    return _claims(bearer) if bearer and bearer != key else of_key


def _serve(
    connection: psycopg.Connection[Any], method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, Any]:
    claims = _who(headers)
    parts = urlsplit(path)
    name = unquote(parts.path.removeprefix("/rest/v1/"))
    query = parse_qsl(parts.query)
    with connection.transaction():
        connection.execute(
            "select set_config('request.jwt.claims', %s, true), set_config('role', %s, true)",
            [json.dumps(claims), claims["role"]],
        )
        if name.startswith("rpc/"):
            return _call(connection, name.removeprefix("rpc/"), json.loads(body or b"{}"))
        if method == "GET":
            return 200, _select(connection, name, query)
        prefer = next((value for key, value in headers.items() if key.lower() == "prefer"), "")
        return _insert(connection, name, dict(query), prefer, body)


def _select(connection: psycopg.Connection[Any], name: str, query: list[tuple[str, str]]) -> Any:
    options = dict(query)
    names = [part for part in options.get("select", "*").split(",") if part]
    columns = sql.SQL("*") if names == ["*"] else sql.SQL(", ").join(map(sql.Identifier, names))
    conditions: list[sql.Composable] = []
    for column, condition in query:
        if column not in _RESERVED:
            operator, _, value = condition.partition(".")
            if operator == "in":
                values = [part.strip('"') for part in value.strip("()").split(",")]
                conditions.append(sql.SQL("{}::text = any({})").format(sql.Identifier(column), sql.Literal(values)))
            elif operator == "is":
                conditions.append(sql.SQL("{} is {}").format(sql.Identifier(column), sql.SQL(value)))  # type: ignore[arg-type]
            else:
                conditions.append(
                    sql.SQL("{} {} {}").format(
                        sql.Identifier(column), sql.SQL(_OPERATORS[operator]), sql.Literal(value)
                    )
                )
    order = [part.split(".") for part in options.get("order", "").split(",") if part]
    statement = sql.SQL(
        "select coalesce(json_agg(r), '[]') from (select {} from public.{} where {} {} limit {} offset {}) r"
    )
    text = statement.format(
        columns,
        sql.Identifier(name),
        sql.SQL(" and ").join(conditions or [sql.SQL("true")]),
        sql.SQL("order by ")
        + sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(c), sql.SQL("desc" if "desc" in how else "asc")) for c, *how in order
        )
        if order
        else sql.SQL(""),
        sql.Literal(min(int(options.get("limit", _MOST_ROWS)), _MOST_ROWS)),
        sql.Literal(int(options.get("offset", 0))),
    )
    row = connection.execute(text).fetchone()
    return row[0] if row else []


def _insert(
    connection: psycopg.Connection[Any], name: str, options: dict[str, str], prefer: str, body: bytes
) -> tuple[int, Any]:
    rows = json.loads(body)
    rows = rows if isinstance(rows, list) else [rows]
    names = re.findall(r'"([^"]+)"', options.get("columns", "")) or list(
        dict.fromkeys(key for row in rows for key in row)
    )
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    conflict: sql.Composable = sql.SQL("")
    if "on_conflict" in options:
        keys = options["on_conflict"].split(",")
        target = sql.SQL(", ").join(map(sql.Identifier, keys))
        changed = [column for column in names if column not in keys]
        if "resolution=merge-duplicates" in prefer and changed:
            values = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c)) for c in changed)
            conflict = sql.SQL("on conflict ({}) do update set {}").format(target, values)
        else:
            conflict = sql.SQL("on conflict ({}) do nothing").format(target)
    returning = sql.SQL("returning {}").format(columns) if "return=representation" in prefer else sql.SQL("")
    statement = sql.SQL(
        "insert into public.{0} ({1}) select {1} from json_populate_recordset(null::public.{0}, {2}) {3} {4}"
    )
    done = connection.execute(
        statement.format(sql.Identifier(name), columns, sql.Literal(json.dumps(rows)), conflict, returning)
    )
    if "return=representation" in prefer:
        names = [column.name for column in done.description or []]
        return 201, [dict(zip(names, row, strict=True)) for row in done.fetchall()]
    return 201, None


def _call(connection: psycopg.Connection[Any], name: str, arguments: dict[str, Any]) -> tuple[int, Any]:
    given = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(key), sql.Literal(Jsonb(value) if isinstance(value, dict) else value))
        for key, value in arguments.items()
    )
    row = connection.execute(
        sql.SQL("select to_json(public.{}({}))").format(sql.Identifier(name), given)
        if not _is_void(connection, name)
        else sql.SQL("select public.{}({}) is null").format(sql.Identifier(name), given)
    ).fetchone()
    return (204, None) if row is None or _is_void(connection, name) else (200, row[0])


def _is_void(connection: psycopg.Connection[Any], name: str) -> bool:
    row = connection.execute(
        "select prorettype = 'void'::regtype from pg_catalog.pg_proc"
        " where proname = %s and pronamespace = 'public'::regnamespace",
        [name],
    ).fetchone()
    if row is None:
        raise _RefusedError(404, "PGRST202", f"Could not find the function public.{name} in the schema cache")
    return bool(row[0])
