/** A Supabase project: what sidecars have reported to it, under its row-level security. */

import { type SupabaseClient, createClient } from "@supabase/supabase-js";
import type { Ability, Connection, Credentials, Source } from "./source";
import { SourceError } from "./source";
import type {
  Anomaly,
  AnomalyDetail,
  AnomalyFilter,
  Evidence,
  HistoryEntry,
  Page,
  Signal,
  Status,
  UsageRow,
  Verdict,
} from "./types";

const ABILITIES: ReadonlySet<Ability> = new Set<Ability>(["usage"]);
const HOUR_MS = 3_600_000;
const MOST_HOURS = 5_000;
const MOST_CHANGES = 100;
const COLUMNS =
  "id,organization_id,detected_at,service,signal,stream,severity,level,state,status,explanation,score,p_value,bits,record_count,window_count,last_at,resolved_at,resolution,template,incident_id,is_suppressed";
const DETAIL_COLUMNS = `${COLUMNS},ncd,compression_ratio,baseline_compression_ratio,entropy_bits,baseline_entropy_bits,baseline_windows,baseline_records,window_start_at,window_end_at,trace_id,span_id,related_trace_ids,detector,compressor`;

interface Row extends Omit<Anomaly, "stream" | "incident_id" | "resolution"> {
  organization_id: string;
  service: string;
  signal: Signal;
  stream: string;
  incident_id: string;
  resolution: string;
}

interface DetailRow extends Row {
  ncd: number;
  compression_ratio: number;
  baseline_compression_ratio: number;
  entropy_bits: number;
  baseline_entropy_bits: number;
  baseline_windows: number;
  baseline_records: number;
  window_start_at: string;
  window_end_at: string;
  trace_id: string;
  span_id: string;
  related_trace_ids: string[];
  detector: string;
  compressor: string;
}

/** What supabase-js answers; only what is read of it. */
interface Answer<T> {
  data: T | null;
  error: { message: string; code?: string } | null;
  status?: number;
}

export class SupabaseSource implements Source {
  readonly home = "supabase";
  readonly abilities = ABILITIES;
  readonly #client: SupabaseClient;
  #isSignedIn = false;

  constructor(client: SupabaseClient) {
    this.#client = client;
  }

  /** The session stays in memory: nothing is written to the browser's storage or the address. */
  static connect(url: string, anonKey: string, fetcher?: typeof fetch): SupabaseSource {
    return new SupabaseSource(
      createClient(url, anonKey, {
        auth: { persistSession: false, autoRefreshToken: true, detectSessionInUrl: false },
        ...(fetcher ? { global: { fetch: fetcher } } : {}),
      }),
    );
  }

  get isSignedIn(): boolean {
    return this.#isSignedIn;
  }

  async signIn({ name, secret }: Credentials): Promise<void> {
    const { error } = await this.#client.auth.signInWithPassword({ email: name ?? "", password: secret });
    if (error) throw new SourceError("unauthenticated", error.message);
    this.#isSignedIn = true;
  }

  async signOut(): Promise<void> {
    await this.#client.auth.signOut();
    this.#isSignedIn = false;
  }

  async anomalies(filter: AnomalyFilter, limit: number, cursor?: string): Promise<Page<Anomaly>> {
    this.#requireSession();
    let query = this.#client.from("anomalies").select(COLUMNS);
    for (const name of ["signal", "service", "state", "status", "severity", "level", "incident_id"] as const) {
      const value = filter[name];
      if (value !== undefined) query = query.eq(name, value);
    }
    if (filter.since) query = query.gte("detected_at", filter.since);
    if (filter.until) query = query.lt("detected_at", filter.until);
    if (filter.text) {
      const pattern = quoted(`*${filter.text.replace(/[\\%_*]/g, "_")}*`);
      query = query.or(`explanation.ilike.${pattern},template.ilike.${pattern}`);
    }
    if (cursor) {
      const [at, id] = cursor.split("|");
      query = query.or(`detected_at.lt.${at},and(detected_at.eq.${at},id.lt.${id})`);
    }
    const ordered = query.order("detected_at", { ascending: false }).order("id", { ascending: false });
    const rows = taken<Row[]>(await ordered.limit(limit + 1));
    const last = rows.length > limit ? rows[limit - 1] : undefined;
    return { rows: rows.slice(0, limit).map(anomalyOf), next: last ? `${last.detected_at}|${last.id}` : null };
  }

  async anomaly(id: string): Promise<AnomalyDetail> {
    this.#requireSession();
    const [rows, evidence, history] = await Promise.all([
      this.#client.from("anomalies").select(DETAIL_COLUMNS).eq("id", id).limit(1).then(taken<DetailRow[]>),
      this.#client.from("evidence").select("field,kind,bits,sentence,observed,expected").eq("anomaly_id", id).order("rank").then(taken<(Evidence & { field: string; sentence: string })[]>),
      this.#history(id),
    ]);
    const row = rows[0];
    if (!row) throw new SourceError("missing", "There is no such anomaly.");
    const said = history.find((entry) => entry.action === "feedback_given")?.detail.verdict;
    return {
      ...anomalyOf(row),
      ncd: row.ncd,
      compression_ratio: row.compression_ratio,
      baseline_compression_ratio: row.baseline_compression_ratio,
      entropy_bits: row.entropy_bits,
      baseline_entropy_bits: row.baseline_entropy_bits,
      baseline_windows: row.baseline_windows,
      baseline_records: row.baseline_records,
      window_start: row.window_start_at,
      window_end: row.window_end_at,
      trace_id: row.trace_id,
      span_id: row.span_id,
      related_trace_ids: row.related_trace_ids,
      fingerprint: row.detector,
      compressor: row.compressor,
      evidence: evidence.map(({ field, sentence, ...rest }) => ({ ...rest, column: field, text: sentence })),
      history,
      feedback: said === "false_alarm" || said === "confirmed" ? said : null,
      withheld_items: 0,
      released_items: 0,
      records: null,
      has_evidence_bundle: false,
    };
  }

  async #history(id: string): Promise<HistoryEntry[]> {
    const [changes, verdicts] = await Promise.all([
      this.#client.from("anomaly_status_history").select("status,note,actor,changed_at").eq("anomaly_id", id).order("changed_at", { ascending: false }).limit(MOST_CHANGES).then(taken<{ status: string; note: string; actor: string; changed_at: string }[]>),
      this.#client.from("anomaly_feedback").select("verdict,note,actor,given_at").eq("anomaly_id", id).order("given_at", { ascending: false }).limit(MOST_CHANGES).then(taken<{ verdict: string; note: string; actor: string; given_at: string }[]>),
    ]);
    const entries = [
      ...changes.map((row) => ({ at: row.changed_at, actor: row.actor, action: "status_changed", detail: { to: row.status, note: row.note } })),
      ...verdicts.map((row) => ({ at: row.given_at, actor: row.actor, action: "feedback_given", detail: { verdict: row.verdict, note: row.note } })),
    ].sort((one, other) => Date.parse(other.at) - Date.parse(one.at));
    return entries.map((entry, index) => ({ ...entry, subject: id, seq: entries.length - index }));
  }

  async audit(limit: number, cursor?: string): Promise<Page<HistoryEntry>> {
    this.#requireSession();
    const from = Number(cursor ?? 0);
    const rows = taken<Omit<HistoryEntry, "seq">[]>(
      await this.#client.from("audit_log").select("at,actor,action,subject,detail").order("at", { ascending: false }).order("id").range(from, from + limit),
    );
    return {
      rows: rows.slice(0, limit).map((row, index) => ({ ...row, seq: from + index + 1 })),
      next: rows.length > limit ? String(from + limit) : null,
    };
  }

  async setStatus(id: string, status: Status, note: string): Promise<void> {
    this.#requireSession();
    taken(await this.#client.rpc("set_anomaly_status", { anomaly: id, status, note }));
  }

  async giveFeedback(id: string, verdict: Verdict, note: string): Promise<void> {
    this.#requireSession();
    taken(await this.#client.rpc("give_anomaly_feedback", { anomaly: id, verdict, note }));
  }

  async usage(by: "hour" | "day" | "total", since?: string): Promise<UsageRow[]> {
    this.#requireSession();
    let query = this.#client.from("usage_hourly").select("hour,organization_id,signal,items,bytes,requests");
    if (since) query = query.gte("hour", since);
    const rows = taken<{ hour: string; organization_id: string; signal: UsageRow["signal"]; items: number; bytes: number; requests: number }[]>(
      await query.order("hour").limit(MOST_HOURS),
    );
    const stepMs = { hour: HOUR_MS, day: 24 * HOUR_MS, total: 0 }[by];
    const sums = new Map<string, UsageRow>();
    for (const row of rows) {
      const start = stepMs ? new Date(Math.floor(Date.parse(row.hour) / stepMs) * stepMs).toISOString() : null;
      const key = `${start} ${row.organization_id} ${row.signal}`;
      const sum = sums.get(key) ?? { start, organization: row.organization_id, signal: row.signal, items: 0, bytes: 0, requests: 0 };
      sum.items += row.items;
      sum.bytes += row.bytes;
      sum.requests += row.requests;
      sums.set(key, sum);
    }
    return [...sums.values()];
  }

  watch(onChange: () => void, onConnection: (connection: Connection) => void): () => void {
    let isWanted = true;
    const stop: (() => void)[] = [];
    void this.#client.from("organizations").select("id").then(({ data }) => {
      for (const { id } of (data ?? []) as { id: string }[]) {
        if (!isWanted) return;
        // Each organisation has a private channel; its messages say only that something changed.
        const channel = this.#client.channel(`org:${id}`, { config: { private: true } });
        channel.on("broadcast", { event: "anomalies_changed" }, onChange).subscribe((state) => {
          onConnection(state === "SUBSCRIBED" ? "live" : "lost");
        });
        stop.push(() => void this.#client.removeChannel(channel));
      }
    });
    return () => {
      isWanted = false;
      for (const one of stop) one();
    };
  }

  // What only a sidecar knows; its abilities say so, and no page asks.
  incidents = onlyOnSidecar;
  incident = onlyOnSidecar;
  release = onlyOnSidecar;
  drop = onlyOnSidecar;
  evidence = onlyOnSidecar;
  streams = onlyOnSidecar;
  stream = onlyOnSidecar;
  pipeline = onlyOnSidecar;
  whatIf = onlyOnSidecar;
  setSensitivity = onlyOnSidecar;
  suppressions = onlyOnSidecar;
  suppress = onlyOnSidecar;
  endSuppression = onlyOnSidecar;

  #requireSession(): void {
    if (!this.#isSignedIn) throw new SourceError("unauthenticated", "Sign in first.");
  }
}

async function onlyOnSidecar(): Promise<never> {
  throw new SourceError("missing", "Only a sidecar's own dashboard can show or do this.");
}

function taken<T>({ data, error, status }: Answer<unknown>): T {
  if (!error) return data as T;
  if (status === 401) throw new SourceError("unauthenticated", "Your session is over: sign in again.");
  if (status === 403 || error.code === "42501") throw new SourceError("forbidden", error.message);
  if (status === 0 || /fetch/i.test(error.message)) {
    throw new SourceError("offline", "The Supabase project does not answer. The connection may be gone.");
  }
  throw new SourceError(status !== undefined && status < 500 ? "refused" : "failed", error.message);
}

/** A value as PostgREST's `or` takes it. */
function quoted(value: string): string {
  return `"${value.replace(/["\\]/g, "\\$&")}"`;
}

function anomalyOf(row: Row): Anomaly {
  const name = row.stream;
  return {
    id: row.id.replaceAll("-", ""),
    stream: {
      id: `${row.organization_id} ${row.signal} ${row.service} ${name}`,
      signal: row.signal,
      service: row.service,
      name,
      organization: row.organization_id,
    },
    state: row.state,
    status: row.status,
    severity: row.severity,
    level: row.level,
    incident_id: row.incident_id || null,
    is_suppressed: row.is_suppressed,
    detected_at: row.detected_at,
    last_at: row.last_at,
    resolved_at: row.resolved_at,
    resolution: row.resolution || null,
    record_count: row.record_count,
    window_count: row.window_count,
    score: row.score,
    p_value: row.p_value,
    bits: row.bits,
    explanation: row.explanation,
    template: row.template,
  };
}
