import type {
  AnomalyDetail,
  AnomalyFilter,
  Anomaly,
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

/** What a home can do beyond anomalies; pages and buttons for the rest are left out. */
export type Ability = "incidents" | "streams" | "usage" | "pipeline" | "withheld" | "bundle" | "sensitivity" | "suppressions";

export type Connection = "connecting" | "live" | "lost";

/** Why something was not done, fit to be shown. */
export class SourceError extends Error {
  constructor(
    readonly kind: "offline" | "unauthenticated" | "forbidden" | "missing" | "refused" | "failed",
    message: string,
  ) {
    super(message);
    this.name = "SourceError";
  }
}

export interface Credentials {
  /** An API key, or the address of a user. */
  name?: string;
  secret: string;
}

/**
 * Where the pages get what they show, and say what people do. One contract, held by tests for every implementation.
 *
 * Every method rejects with a SourceError. Lists are newest first and bounded; `next` is null at the end.
 */
export interface Source {
  readonly home: "sidecar" | "supabase";
  readonly abilities: ReadonlySet<Ability>;
  readonly isSignedIn: boolean;
  /** Credentials are kept in memory alone. */
  signIn(credentials: Credentials): Promise<void>;
  signOut(): Promise<void>;
  anomalies(filter: AnomalyFilter, limit: number, cursor?: string): Promise<Page<Anomaly>>;
  anomaly(id: string): Promise<AnomalyDetail>;
  incidents(limit: number, cursor?: string): Promise<Page<Incident>>;
  incident(id: string): Promise<IncidentDetail>;
  /** Who did what. */
  audit(limit: number, cursor?: string): Promise<Page<HistoryEntry>>;
  setStatus(id: string, status: Status, note: string): Promise<void>;
  giveFeedback(id: string, verdict: Verdict, note: string): Promise<void>;
  /** Sends withheld records on after all; resolves with how many. */
  release(id: string, note: string): Promise<number>;
  /** Deletes withheld records for good; resolves with how many. */
  drop(id: string, note: string): Promise<number>;
  evidence(id: string, format: "bundle" | "pdf"): Promise<Blob>;
  streams(limit: number, cursor?: string): Promise<Page<Stream>>;
  stream(id: string, limit: number, before?: string): Promise<StreamDetail>;
  usage(by: "hour" | "day" | "total", since?: string): Promise<UsageRow[]>;
  pipeline(): Promise<Pipeline>;
  /** Judges stored windows again; changes nothing. */
  whatIf(streamId: string, significance: number): Promise<WhatIf>;
  /** null gives the configured one its place back. */
  setSensitivity(streamId: string, significance: number | null): Promise<void>;
  /** In force or to come, what ends first in front. */
  suppressions(): Promise<Suppression[]>;
  /** Resolves with how many anomalies that go on fall silent. */
  suppress(what: NewSuppression): Promise<number>;
  endSuppression(id: string): Promise<void>;
  /** Calls back when anomalies have changed, until the returned function is called. */
  watch(onChange: () => void, onConnection: (connection: Connection) => void): () => void;
}
