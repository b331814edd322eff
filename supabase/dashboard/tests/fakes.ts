/** Two servers that hold the same anomalies, in memory: a sidecar's API, and a Supabase project's. */

import type { Source } from "../src/data/source";
import { RestSource } from "../src/data/rest";
import { SupabaseSource } from "../src/data/supabase";

export const KEY = "dl_0123456789ab_secret";
const STATES = ["open", "ongoing", "resolved", "resolved", "resolved"];
const TEXTS = ["payment timeout", "slow spans", "queue grows", "payment timeout", "disk full"];

interface Fact {
  id: string;
  at: string;
  state: string;
  text: string;
  status: string;
  said: { status?: string; verdict?: string; note: string }[];
}

function facts(): Fact[] {
  return STATES.map((state, index) => ({
    id: `${index}`.repeat(32),
    // Two of the same time: only ids tell them apart.
    at: `2026-11-24T10:0${9 - Math.min(index, 3)}:00+00:00`,
    state,
    text: TEXTS[index] ?? "",
    status: "new",
    said: [],
  }));
}

const numbers = {
  score: 0.9, p_value: 0.01, bits: 20, record_count: 50, window_count: 2, ncd: 0.5, compression_ratio: 2,
  baseline_compression_ratio: 4, entropy_bits: 3, baseline_entropy_bits: 2, baseline_windows: 12, baseline_records: 600,
};
const words = { severity: "high", level: "page", is_suppressed: false, trace_id: "", span_id: "", related_trace_ids: [], compressor: "zstd" };
const evidence = [
  { name: "template", kind: "pattern", bits: 20, said: "a new template", observed: "35", expected: "0" },
  { name: "severity", kind: "pattern", bits: 12, said: "a new severity", observed: "35", expected: "0" },
];
const usage = [
  { hour: "2026-11-24T09:00:00Z", signal: "logs", items: 10, bytes: 1000, requests: 1 },
  { hour: "2026-11-24T10:00:00Z", signal: "logs", items: 5, bytes: 500, requests: 1 },
  { hour: "2026-11-24T10:00:00Z", signal: "traces", items: 7, bytes: 700, requests: 2 },
];

function json(body: unknown, status = 200): Response {
  return new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json" } });
}

function problem(status: number, detail: string): Response {
  return json({ title: "no", status, detail }, status);
}

export interface Home {
  name: string;
  source: Source;
  signIn: () => Promise<void>;
  /** From now on nobody answers. */
  cut: () => void;
  /** Paths asked so far, with their headers. */
  asked: { url: URL; headers: Headers }[];
}

export function sidecar(): Home {
  const known = facts();
  const asked: Home["asked"] = [];
  let isCut = false;
  const summary = (fact: Fact) => ({
    ...numbers, ...words, id: fact.id, state: fact.state, status: fact.status, incident_id: null,
    stream: { id: "s", signal: "logs", service: "shop", name: "", organization: "" },
    detected_at: fact.at, last_at: fact.at, resolved_at: fact.state === "resolved" ? fact.at : null,
    resolution: fact.state === "resolved" ? "recovered" : null, explanation: fact.text, template: "",
  });
  const answer = async (path: string, init: RequestInit = {}): Promise<Response> => {
    if (isCut) throw new TypeError("fetch failed");
    const url = new URL(path, "http://sidecar");
    const headers = new Headers(init.headers);
    asked.push({ url, headers });
    if (headers.get("authorization") !== `Bearer ${KEY}`) return problem(401, "a key is needed");
    const body = init.body ? JSON.parse(String(init.body)) : {};
    if (url.pathname === "/v1/version") return json({ version: "1" });
    if (url.pathname === "/v1/usage") {
      const by = url.searchParams.get("by");
      const rows = usage.map((row) => ({ ...row, start: by === "total" ? null : row.hour, organization: "" }));
      return json({ usage: by === "total" ? totals(rows) : rows, next_cursor: null });
    }
    if (url.pathname === "/v1/anomalies") {
      const state = url.searchParams.get("state");
      const text = url.searchParams.get("text");
      const from = Number(url.searchParams.get("cursor") ?? 0);
      const limit = Number(url.searchParams.get("limit"));
      const rows = [...known].sort(newestFirst).filter((fact) => (!state || fact.state === state) && (!text || fact.text.includes(text)));
      return json({ anomalies: rows.slice(from, from + limit).map(summary), next_cursor: rows.length > from + limit ? String(from + limit) : null });
    }
    const [, , , id, action] = url.pathname.split("/");
    const fact = known.find((one) => one.id === id);
    if (!fact) return problem(404, "there is no such anomaly");
    if (action === "status") {
      fact.status = body.status;
      fact.said.unshift({ status: body.status, note: body.note });
      return json(summary(fact));
    }
    if (action === "feedback") {
      fact.said.unshift({ verdict: body.verdict, note: body.note });
      return json(body, 202);
    }
    return json({
      ...summary(fact), window_start: fact.at, window_end: fact.at, fingerprint: "f",
      evidence: evidence.map(({ name, said, ...rest }) => ({ ...rest, column: name, text: said })),
      feedback: latest(fact), withheld_items: 0, released_items: 0, records: null, has_evidence_bundle: false,
      history: fact.said.map((one, index) => ({ seq: 9 - index, at: fact.at, actor: "local", subject: fact.id, action: one.status ? "status_changed" : "feedback_given", detail: one.status ? { to: one.status, note: one.note } : { verdict: one.verdict, note: one.note } })),
    });
  };
  const source = new RestSource("", answer);
  return { name: "sidecar", source, signIn: () => source.signIn({ secret: KEY }), cut: () => { isCut = true; }, asked };
}

export function supabase(): Home {
  const known = facts();
  const asked: Home["asked"] = [];
  let isCut = false;
  let count = 0;
  const dashed = (id: string) => id.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
  const row = (fact: Fact) => ({
    ...numbers, ...words, id: dashed(fact.id), organization_id: "o", service: "shop", signal: "logs", stream: "", state: fact.state,
    status: fact.status, incident_id: "", detected_at: fact.at, last_at: fact.at, resolved_at: fact.state === "resolved" ? fact.at : null,
    resolution: fact.state === "resolved" ? "recovered" : "", explanation: fact.text, template: "", window_start_at: fact.at, window_end_at: fact.at, detector: "f",
  });
  const at = () => new Date(Date.UTC(2026, 10, 24, 11, 0, count++)).toISOString();
  const changes: { anomaly: string; status?: string; verdict?: string; note: string; at: string }[] = [];
  const answer = async (input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> => {
    if (isCut) throw new TypeError("fetch failed");
    const url = new URL(input instanceof Request ? input.url : input);
    asked.push({ url, headers: new Headers(init.headers) });
    const body = init.body ? JSON.parse(String(init.body)) : {};
    const given = (name: string) => url.searchParams.get(name);
    const equal = (name: string) => given(name)?.replace(/^eq\./, "");
    if (url.pathname === "/auth/v1/token") {
      if (body.password !== KEY) return json({ error: "invalid_grant", error_description: "Invalid login credentials", msg: "Invalid login credentials", code: 400 }, 400);
      return json({ access_token: "t.t.t", token_type: "bearer", expires_in: 3600, expires_at: 4e9, refresh_token: "r", user: { id: "u", email: "a@b" } });
    }
    const table = url.pathname.split("/").at(-1);
    if (table === "set_anomaly_status" || table === "give_anomaly_feedback") {
      const fact = known.find((one) => one.id === body.anomaly);
      if (!fact) return json({ code: "42501", message: "no such anomaly", details: null, hint: null }, 403);
      fact.status = body.status ?? fact.status;
      changes.unshift({ ...body, at: at() });
      return new Response(null, { status: 204 });
    }
    if (table === "anomalies") {
      const parts = url.searchParams.getAll("or");
      const cursor = parts.map((part) => /detected_at\.lt\.([^,]+),and\(detected_at\.eq\.[^,]+,id\.lt\.([^)]+)\)/.exec(part)).find(Boolean);
      const text = parts.map((part) => /explanation\.ilike\."\*(.*?)\*"/.exec(part)).find(Boolean)?.[1];
      const rows = [...known].sort(newestFirst).map(row).filter((one) =>
        (!equal("state") || one.state === equal("state")) && (!equal("id") || one.id.replaceAll("-", "") === equal("id")) &&
        (!text || one.explanation.includes(text)) &&
        (!cursor || one.detected_at < String(cursor[1]) || (one.detected_at === cursor[1] && one.id < String(cursor[2]))));
      return json(rows.slice(0, Number(given("limit"))));
    }
    if (table === "evidence") return json(evidence.map(({ name, said, ...rest }) => ({ ...rest, field: name, sentence: said })));
    const mine = changes.filter((change) => change.anomaly === equal("anomaly_id"));
    if (table === "anomaly_status_history") return json(mine.filter((one) => one.status).map((one) => ({ ...one, actor: "user:u", changed_at: one.at })));
    if (table === "anomaly_feedback") return json(mine.filter((one) => one.verdict).map((one) => ({ ...one, actor: "user:u", given_at: one.at })));
    if (table === "usage_hourly") return json(usage.map((one) => ({ ...one, organization_id: "o" })));
    return json({ code: "PGRST205", message: `no table ${table}`, details: null, hint: null }, 404);
  };
  const source = SupabaseSource.connect("http://project", "anon", answer as typeof fetch);
  return { name: "supabase", source, signIn: () => source.signIn({ name: "a@b", secret: KEY }), cut: () => { isCut = true; }, asked };
}

/** What was taken back is not said any more. */
function latest(fact: Fact): string | null {
  const verdict = fact.said.find((one) => one.verdict)?.verdict ?? null;
  return verdict === "withdrawn" ? null : verdict;
}

function newestFirst(one: Fact, other: Fact): number {
  return other.at.localeCompare(one.at) || other.id.localeCompare(one.id);
}

function totals(rows: (typeof usage)[number][]): unknown[] {
  return [...new Set(rows.map((row) => row.signal))].map((signal) => {
    const mine = rows.filter((row) => row.signal === signal);
    const sum = (name: "items" | "bytes" | "requests") => mine.reduce((total, row) => total + row[name], 0);
    return { start: null, organization: "", signal, items: sum("items"), bytes: sum("bytes"), requests: sum("requests") };
  });
}
