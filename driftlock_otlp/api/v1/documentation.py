"""`/v1/docs`: the description of the API as a page that asks nobody else for anything."""

from __future__ import annotations

import json
from typing import Any

from driftlock_otlp.api.html import Html, tag

STYLE_PATH = "/v1/docs.css"
STYLE = """\
:root { color-scheme: light dark; --quiet: #6b7280; --line: #d1d5db; --code: #f3f4f6; --accent: #b45309; }
@media (prefers-color-scheme: dark) { :root { --line: #374151; --code: #1f2937; --quiet: #9ca3af; --accent: #f59e0b; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0; }
h2 { border-bottom: 1px solid var(--line); margin: 2rem 0 .5rem; text-transform: capitalize; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; }
summary code { background: none; }
.method { color: var(--accent); display: inline-block; font-weight: 700; width: 4.5rem; }
.quiet { color: var(--quiet); }
code, pre { background: var(--code); border-radius: 4px; font: 13px/1.5 ui-monospace, monospace; padding: .1rem .3rem; }
pre { overflow-x: auto; padding: .6rem .8rem; }
table { border-collapse: collapse; margin: .5rem 0; width: 100%; }
td, th { border-bottom: 1px solid var(--line); padding: .25rem .6rem .25rem 0; text-align: left; vertical-align: top; }
"""

_MOST_DEPTH = 5


def page(openapi: dict[str, Any]) -> str:
    """Return the page about a description in OpenAPI 3.1."""
    info = openapi["info"]
    by_tag: dict[str, list[Html]] = {}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append(_operation(openapi, path, method.upper(), operation))
    body = tag(
        "body",
        tag("h1", info["title"]),
        tag(
            "p",
            f"Version {info['version']} · OpenAPI {openapi['openapi']} · ",
            tag("a", "openapi.json", href="/v1/openapi.json"),
            class_="quiet",
        ),
        *(_text(part) for part in info["description"].strip().split("\n\n")),
        *(tag("section", tag("h2", name), *operations) for name, operations in by_tag.items()),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", info["title"]),
        tag("link", rel="stylesheet", href=STYLE_PATH),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en")


def _operation(openapi: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> Html:
    parameters = operation.get("parameters", [])
    body = _content(operation.get("requestBody", {}))
    answers = operation["responses"]
    good = {status: answer for status, answer in answers.items() if status < "300"}
    failures = ", ".join(f"{status} {answer['description']}" for status, answer in answers.items() if status >= "400")
    parts: list[Html | None] = [_text(operation.get("description", ""))]
    if parameters:
        parts.append(_table(("Parameter", "In", "Type", "Meaning"), [_parameter(openapi, item) for item in parameters]))
    parts.append(_lines(_curl(openapi, path, method, body)))
    for media_type, schema in body.items():
        parts += [tag("p", f"Body, {media_type}"), _schema(openapi, schema)]
    for status, answer in good.items():
        parts.append(tag("p", f"{status} {answer['description']}", class_="quiet"))
        parts += [_schema(openapi, schema) for schema in _content(answer).values() if schema]
    parts.append(tag("p", f"Problems: {failures}", class_="quiet"))
    title = tag(
        "summary",
        tag("span", method, class_="method"),
        tag("code", path),
        " ",
        tag("span", operation["summary"], class_="quiet"),
    )
    return tag("details", title, *parts, id=operation["operationId"])


def _content(described: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {media_type: item.get("schema", {}) for media_type, item in described.get("content", {}).items()}


def _parameter(openapi: dict[str, Any], parameter: dict[str, Any]) -> tuple[str, str, str, str]:
    schema = parameter["schema"]
    kind = _kind(openapi, schema)
    default = schema.get("default")
    return (
        parameter["name"] + (" *" if parameter.get("required") else ""),
        parameter["in"],
        kind if default is None else f"{kind} = {json.dumps(default)}",
        parameter.get("description", schema.get("description", "")),
    )


def _schema(openapi: dict[str, Any], schema: dict[str, Any]) -> Html:
    return _table(("Field", "Type", "Meaning"), list(_fields(openapi, schema, "", 0)))


def _fields(openapi: dict[str, Any], schema: dict[str, Any], prefix: str, depth: int) -> list[tuple[str, ...]]:
    """Return the fields of an object, and of the objects in it, one a row."""
    rows: list[tuple[str, ...]] = []
    schema = _resolved(openapi, schema)
    if depth > _MOST_DEPTH:
        return rows
    if schema.get("type") == "array":
        return _fields(openapi, schema["items"], f"{prefix}[]", depth + 1)
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}.{name}".removeprefix(".")
        rows.append((path, _kind(openapi, field), field.get("description", "")))
        for variant in field.get("anyOf", [field]):
            rows += _fields(openapi, variant, path, depth + 1)
    return rows


def _resolved(openapi: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return openapi["components"]["schemas"][name] if name else schema


def _kind(openapi: dict[str, Any], schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_kind(openapi, variant) for variant in schema["anyOf"]))
    schema = _resolved(openapi, schema)
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_kind(openapi, schema['items'])}"
    bounds = [f"{sign} {schema[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in schema]
    return ", ".join([schema.get("format") or schema.get("type", "anything"), *bounds])


def _curl(openapi: dict[str, Any], path: str, method: str, body: dict[str, dict[str, Any]]) -> list[str]:
    """Return a command that does it, line by line."""
    lines = [f"curl{'' if method == 'GET' else f' -X {method}'} 'http://127.0.0.1:8080{path}'"]
    if body:
        media_type, schema = next(iter(body.items()))
        example = json.dumps(_example(openapi, schema), ensure_ascii=False)
        lines = [f"{lines[0]} \\", f"     -H 'content-type: {media_type}' \\", f"     -d '{example}'"]
    return lines


def _lines(lines: list[str]) -> Html:
    """Return lines as they are; what stands between them is no text, for text has no control characters here."""
    return tag("pre", *(part for line in lines for part in (line, Html("\n"))))


def _example(openapi: dict[str, Any], schema: dict[str, Any]) -> Any:
    if "examples" in schema:
        return schema["examples"][0]
    if "anyOf" in schema:
        return _example(openapi, schema["anyOf"][0])
    schema = _resolved(openapi, schema)
    if "examples" in schema:
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "array":
        return [_example(openapi, schema["items"])]
    if "properties" in schema:
        return {name: _example(openapi, field) for name, field in schema["properties"].items()}
    return {"string": "…", "integer": 1, "number": 0.01, "boolean": True, "null": None}.get(schema.get("type", ""), {})


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Html:
    return tag(
        "table",
        tag("thead", tag("tr", *(tag("th", cell) for cell in head))),
        tag(
            "tbody",
            *(
                tag("tr", tag("td", tag("code", row[0])), *(tag("td", _inline(cell)) for cell in row[1:]))
                for row in rows
            ),
        ),
    )


def _text(text: str) -> Html:
    return tag("p", _inline(" ".join(text.split())))


def _inline(text: str) -> Html:
    """Return text in which what stands between backquotes is code."""
    parts = text.split("`")
    return tag("span", *(tag("code", part) if index % 2 else part for index, part in enumerate(parts)))
