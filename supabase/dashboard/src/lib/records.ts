/** Reads quoted telemetry, which is OTLP/JSON, as lines for people. */

import type { Quoted } from "../data/types";

export interface QuotedRecord {
  at: string | null;
  /** Severity, kind or unit. */
  label: string;
  text: string;
  attributes: [string, string][];
}

type Json = { [key: string]: unknown };

const LISTS: Record<Quoted["signal"], [string, string]> = {
  logs: ["resourceLogs", "scopeLogs"],
  metrics: ["resourceMetrics", "scopeMetrics"],
  traces: ["resourceSpans", "scopeSpans"],
};

/** Returns at most `most` records of what is quoted. */
export function readRecords(quoted: Quoted[], most: number): QuotedRecord[] {
  const found: QuotedRecord[] = [];
  for (const { signal, request } of quoted) {
    const [resources, scopes] = LISTS[signal];
    for (const scope of listOf(request, resources).flatMap((resource) => listOf(resource, scopes))) {
      if (signal === "logs") found.push(...listOf(scope, "logRecords").map(logRecord));
      else if (signal === "traces") found.push(...listOf(scope, "spans").map(span));
      else found.push(...listOf(scope, "metrics").flatMap(points));
      if (found.length >= most) return found.slice(0, most);
    }
  }
  return found;
}

function logRecord(record: Json): QuotedRecord {
  return {
    at: timeOf(record.timeUnixNano ?? record.observedTimeUnixNano),
    label: String(record.severityText ?? ""),
    text: shown(record.body),
    attributes: attributesOf(record),
  };
}

function span(given: Json): QuotedRecord {
  const start = nanoseconds(given.startTimeUnixNano);
  const end = nanoseconds(given.endTimeUnixNano);
  const status = (given.status as Json | undefined)?.code;
  const took = start !== null && end !== null ? Number(end - start) / 1e6 : null;
  return {
    at: timeOf(given.startTimeUnixNano),
    label: status === 2 ? "ERROR" : "",
    text: `${String(given.name ?? "")}${took === null ? "" : ` – ${took.toFixed(took < 10 ? 2 : 0)} ms`}`,
    attributes: attributesOf(given),
  };
}

function points(metric: Json): QuotedRecord[] {
  const kinds = ["gauge", "sum", "histogram", "exponentialHistogram", "summary"];
  return kinds.flatMap((kind) =>
    listOf(metric[kind], "dataPoints").map((point) => ({
      at: timeOf(point.timeUnixNano),
      label: String(metric.unit ?? ""),
      text: `${String(metric.name ?? "")} = ${String(point.asDouble ?? point.asInt ?? `${point.count ?? "?"} values, sum ${point.sum ?? "?"}`)}`,
      attributes: attributesOf(point),
    })),
  );
}

function attributesOf(record: Json): [string, string][] {
  return listOf(record, "attributes").map((attribute) => [String(attribute.key ?? ""), shown(attribute.value)]);
}

function shown(value: unknown): string {
  if (value === null || typeof value !== "object") return value === undefined ? "" : String(value);
  const given = value as Json;
  for (const name of ["stringValue", "intValue", "doubleValue", "boolValue"]) {
    if (given[name] !== undefined) return String(given[name]);
  }
  return JSON.stringify(value);
}

function listOf(value: unknown, name: string): Json[] {
  const list = (value as Json | undefined)?.[name];
  return Array.isArray(list) ? (list as Json[]) : [];
}

function nanoseconds(value: unknown): bigint | null {
  return typeof value === "string" || typeof value === "number" ? BigInt(value) : null;
}

function timeOf(value: unknown): string | null {
  const at = nanoseconds(value);
  return at ? new Date(Number(at / 1_000_000n)).toISOString() : null;
}

/** Splits a text at what a template's fixed parts match; odd pieces are those parts. Whole if it does not match. */
export function markTemplate(text: string, template: string): { text: string; isMarked: boolean }[] {
  const fixed = template.split("<*>").map((part) => part.trim());
  const pieces: { text: string; isMarked: boolean }[] = [];
  let from = 0;
  for (const part of fixed) {
    if (!part) continue;
    const at = text.indexOf(part, from);
    if (at < 0) return [{ text, isMarked: false }];
    if (at > from) pieces.push({ text: text.slice(from, at), isMarked: false });
    pieces.push({ text: part, isMarked: true });
    from = at + part.length;
  }
  if (from < text.length) pieces.push({ text: text.slice(from), isMarked: false });
  return pieces;
}
