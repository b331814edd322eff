/** The sidecar's own API, under /v1 of the host that serves the pages. */

import type { Ability, Connection, Credentials, Source } from "./source";
import { SourceError } from "./source";
import { eventReader } from "./sse";
import type {
  Anomaly,
  AnomalyDetail,
  AnomalyFilter,
  HistoryEntry,
  Incident,
  IncidentDetail,
  NewSuppression,
  Page,
  Pipeline,
  Status,
  Stream,
  StreamDetail,
  Suppression,
  UsageRow,
  Verdict,
  WhatIf,
} from "./types";

type Fetch = (input: string, init?: RequestInit) => Promise<Response>;

const ABILITIES: ReadonlySet<Ability> = new Set<Ability>([
  "incidents",
  "streams",
  "usage",
  "pipeline",
  "withheld",
  "bundle",
  "sensitivity",
  "suppressions",
]);
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;
const MOST_USAGE_PAGES = 10;
/** Requests of which records are quoted. */
const MOST_QUOTED = 5;

export class RestSource implements Source {
  readonly home = "sidecar";
  readonly abilities = ABILITIES;
  #key = "";
  readonly #fetch: Fetch;
  readonly #base: string;

  /** `base` is empty for the host of the page itself. */
  constructor(base = "", fetcher: Fetch = (input, init) => fetch(input, init)) {
    this.#base = base;
    this.#fetch = fetcher;
  }

  get isSignedIn(): boolean {
    return this.#key !== "";
  }

  async signIn({ secret }: Credentials): Promise<void> {
    const before = this.#key;
    this.#key = secret.trim();
    try {
      await this.#json("/v1/version");
    } catch (error) {
      this.#key = before;
      throw error;
    }
  }

  async signOut(): Promise<void> {
    this.#key = "";
  }

  async anomalies(filter: AnomalyFilter, limit: number, cursor?: string): Promise<Page<Anomaly>> {
    const found = await this.#json<{ anomalies: Anomaly[]; next_cursor: string | null }>(
      `/v1/anomalies${query({ ...filter, limit, cursor })}`,
    );
    return { rows: found.anomalies, next: found.next_cursor };
  }

  async anomaly(id: string): Promise<AnomalyDetail> {
    return this.#json(`${anomaly(id)}?records=${MOST_QUOTED}`);
  }

  async incidents(limit: number, cursor?: string): Promise<Page<Incident>> {
    const found = await this.#json<{ incidents: Incident[]; next_cursor: string | null }>(
      `/v1/incidents${query({ limit, cursor })}`,
    );
    return { rows: found.incidents, next: found.next_cursor };
  }

  async incident(id: string): Promise<IncidentDetail> {
    return this.#json(`/v1/incidents/${encodeURIComponent(id)}`);
  }

  async audit(limit: number, cursor?: string): Promise<Page<HistoryEntry>> {
    const found = await this.#json<{ entries: HistoryEntry[]; next_cursor: string | null }>(
      `/v1/audit${query({ limit, cursor })}`,
    );
    return { rows: found.entries, next: found.next_cursor };
  }

  async setStatus(id: string, status: Status, note: string): Promise<void> {
    await this.#send("PATCH", `${anomaly(id)}/status`, { status, note });
  }

  async giveFeedback(id: string, verdict: Verdict, note: string): Promise<void> {
    await this.#send("POST", `${anomaly(id)}/feedback`, { verdict, note });
  }

  async release(id: string, note: string): Promise<number> {
    return this.#decide(id, "release", note);
  }

  async drop(id: string, note: string): Promise<number> {
    return this.#decide(id, "drop", note);
  }

  async evidence(id: string, format: "bundle" | "pdf"): Promise<Blob> {
    const answer = await this.#ask(`${anomaly(id)}/evidence${query({ format })}`);
    return answer.blob();
  }

  async streams(limit: number, cursor?: string): Promise<Page<Stream>> {
    const found = await this.#json<{ streams: Stream[]; next_cursor: string | null }>(
      `/v1/streams${query({ limit, cursor })}`,
    );
    return { rows: found.streams, next: found.next_cursor };
  }

  async stream(id: string, limit: number, before?: string): Promise<StreamDetail> {
    return this.#json(`/v1/streams/${encodeURIComponent(id)}${query({ limit, before })}`);
  }

  async usage(by: "hour" | "day" | "total", since?: string): Promise<UsageRow[]> {
    const rows: UsageRow[] = [];
    let cursor: string | undefined;
    for (let page = 0; page < MOST_USAGE_PAGES; page += 1) {
      const found: { usage: UsageRow[]; next_cursor: string | null } = await this.#json(
        `/v1/usage${query({ by, since, limit: 1000, cursor })}`,
      );
      rows.push(...found.usage);
      if (found.next_cursor === null) break;
      cursor = found.next_cursor;
    }
    return rows;
  }

  async pipeline(): Promise<Pipeline> {
    return pipelineOf(await this.#json("/debug/pipelinez?format=json"));
  }

  async whatIf(streamId: string, significance: number): Promise<WhatIf> {
    const answer = await this.#send("POST", `/v1/streams/${encodeURIComponent(streamId)}/what-if`, { significance });
    return (await answer.json()) as WhatIf;
  }

  async setSensitivity(streamId: string, significance: number | null): Promise<void> {
    await this.#send("PUT", `/v1/streams/${encodeURIComponent(streamId)}/sensitivity`, { significance });
  }

  async suppressions(): Promise<Suppression[]> {
    return (await this.#json<{ suppressions: Suppression[] }>("/v1/suppressions?limit=1000")).suppressions;
  }

  async suppress(what: NewSuppression): Promise<number> {
    const answer = await this.#send("POST", "/v1/suppressions", what);
    return ((await answer.json()) as { silenced: number }).silenced;
  }

  async endSuppression(id: string): Promise<void> {
    await this.#ask(`/v1/suppressions/${encodeURIComponent(id)}`, { method: "DELETE" });
  }

  watch(onChange: () => void, onConnection: (connection: Connection) => void): () => void {
    const stop = new AbortController();
    void this.#follow(stop.signal, onChange, onConnection);
    return () => stop.abort();
  }

  async #follow(signal: AbortSignal, onChange: () => void, onConnection: (connection: Connection) => void) {
    let lastId = "";
    let pauseMs = FIRST_PAUSE_MS;
    // The first event says "connected": with it comes what changed since the page asked first.
    const read = eventReader((event) => {
      lastId = event.id || lastId;
      onChange();
    });
    while (!signal.aborted) {
      try {
        const headers: Record<string, string> = { accept: "text/event-stream" };
        if (lastId) headers["last-event-id"] = lastId;
        const answer = await this.#ask("/v1/anomalies/stream", { headers, signal });
        const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
        onConnection("live");
        pauseMs = FIRST_PAUSE_MS;
        while (reader) {
          const { done, value } = await reader.read();
          if (done) break;
          read(value);
        }
      } catch (error) {
        if (error instanceof SourceError && error.kind === "unauthenticated") return;
      }
      if (signal.aborted) return;
      onConnection("lost");
      await pause(pauseMs, signal);
      pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
    }
  }

  async #json<T>(path: string): Promise<T> {
    const answer = await this.#ask(path, { headers: { accept: "application/json" } });
    return (await answer.json()) as T;
  }

  async #decide(id: string, what: "release" | "drop", note: string): Promise<number> {
    const answer = await this.#send("POST", `${anomaly(id)}/${what}`, { note });
    return ((await answer.json()) as { items: number }).items;
  }

  async #send(method: string, path: string, body: unknown): Promise<Response> {
    return this.#ask(path, { method, body: JSON.stringify(body), headers: { "content-type": "application/json" } });
  }

  async #ask(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.#key) headers.set("authorization", `Bearer ${this.#key}`);
    let answer: Response;
    try {
      answer = await this.#fetch(this.#base + path, { credentials: "omit", cache: "no-store", ...init, headers });
    } catch {
      throw new SourceError("offline", "The sidecar does not answer. It may be stopped, or the connection is gone.");
    }
    if (answer.ok) return answer;
    throw new SourceError(kindOf(answer.status), await problemOf(answer));
  }
}

function anomaly(id: string): string {
  return `/v1/anomalies/${encodeURIComponent(id)}`;
}

function kindOf(status: number): SourceError["kind"] {
  if (status === 401) return "unauthenticated";
  if (status === 403) return "forbidden";
  if (status === 404) return "missing";
  return status < 500 ? "refused" : "failed";
}

/** Says what a problem of RFC 9457 says. */
async function problemOf(answer: Response): Promise<string> {
  try {
    const problem = (await answer.json()) as { title?: string; detail?: string; errors?: { detail: string }[] };
    const mistakes = (problem.errors ?? []).map((mistake) => mistake.detail);
    const said = [problem.detail ?? problem.title, ...mistakes].filter(Boolean).join("; ");
    return said || `The sidecar answered ${answer.status}.`;
  } catch {
    return `The sidecar answered ${answer.status}.`;
  }
}

function query(given: Record<string, string | number | undefined>): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(given)) {
    if (value !== undefined && value !== "") parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text ? `?${text}` : "";
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

interface LivePipeline {
  version: string;
  now_unix_nano: number;
  waiting_for: string[];
  policy: string;
  receivers: { items: Record<string, Record<string, number>> }[];
  log: { held_bytes: number; max_bytes: number; is_writable: boolean };
  queues: { destination: string; waiting_items: number | null; is_failing: boolean; last_error: string }[];
  quarantine_items: number | null;
  workers: { lag_s: number; warming_up_count: number }[];
  stream_count: number;
}

function pipelineOf(live: LivePipeline): Pipeline {
  const accepted = live.receivers.flatMap((receiver) =>
    Object.values(receiver.items).map((outcomes) => outcomes.accepted ?? 0),
  );
  return {
    version: live.version,
    policy: live.policy,
    waiting_for: live.waiting_for,
    accepted_items: sum(accepted),
    stream_count: live.stream_count,
    warming_up_count: sum(live.workers.map((worker) => worker.warming_up_count)),
    lag_s: Math.max(0, ...live.workers.map((worker) => worker.lag_s)),
    log_held_bytes: live.log.held_bytes,
    log_max_bytes: live.log.max_bytes,
    log_is_writable: live.log.is_writable,
    withheld_items: live.quarantine_items,
    at: new Date(live.now_unix_nano / 1e6).toISOString(),
    queues: live.queues,
  };
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
