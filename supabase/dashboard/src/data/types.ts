/** What the pages show, in the words of the API: every time is RFC 3339 in UTC. */

export const SIGNALS = ["logs", "metrics", "traces", "gen_ai"] as const;
export const SEVERITIES = ["low", "medium", "high", "critical"] as const;
export const LEVELS = ["notice", "page", "fleet"] as const;
export const STATES = ["open", "ongoing", "resolved"] as const;
export const STATUSES = ["new", "acknowledged", "investigating", "dismissed"] as const;

export type Signal = (typeof SIGNALS)[number];
export type Severity = (typeof SEVERITIES)[number];
export type Level = (typeof LEVELS)[number];
export type State = (typeof STATES)[number];
export type Status = (typeof STATUSES)[number];
export type Verdict = "false_alarm" | "confirmed" | "withdrawn";
export type Outcome = "clean" | "flagged" | "anomalous" | "warming_up";

/** Which stream: records that are compared with one another. */
export interface StreamRef {
  id: string;
  signal: Signal;
  service: string;
  /** Metric, or model of an LLM operation; empty for logs and traces. */
  name: string;
  organization: string;
}

export interface Anomaly {
  id: string;
  stream: StreamRef;
  state: State;
  status: Status;
  severity: Severity;
  level: Level;
  incident_id: string | null;
  is_suppressed: boolean;
  detected_at: string;
  /** End of the last window that belongs to it. */
  last_at: string;
  resolved_at: string | null;
  /** recovered or adopted; null while it goes on. */
  resolution: string | null;
  /** Records in the window that raised it. */
  record_count: number;
  window_count: number;
  /** 0 to 1; 0.5 is the bar of an immediate alarm. */
  score: number;
  p_value: number;
  /** Calibrated surprise of the window. */
  bits: number;
  explanation: string;
  /** Log template with the strongest evidence; empty if none. */
  template: string;
}

/** What one column of an anomalous window says. */
export interface Evidence {
  column: string;
  /** pattern (which), volume (how many), value (how large) or sequence (in what order). */
  kind: string;
  bits: number;
  text: string;
  observed: string;
  expected: string;
}

/** The anomalous part of a request that is held, as OTLP/JSON. */
export interface Quoted {
  signal: "logs" | "metrics" | "traces";
  /** withheld, or released and not sent yet. */
  state: string;
  items: number;
  request: unknown;
}

export interface AnomalyDetail extends Anomaly {
  window_start: string;
  window_end: string;
  ncd: number;
  compression_ratio: number;
  baseline_compression_ratio: number;
  entropy_bits: number;
  baseline_entropy_bits: number;
  baseline_windows: number;
  baseline_records: number;
  /** Strongest first. */
  evidence: Evidence[];
  trace_id: string;
  span_id: string;
  related_trace_ids: string[];
  /** Identity of the detector. */
  fingerprint: string;
  compressor: string;
  /** What people last said of it; null if nothing. */
  feedback: "false_alarm" | "confirmed" | null;
  withheld_items: number;
  released_items: number;
  /** Some of what is held; null where quoting is off, or nothing can be held. */
  records: Quoted[] | null;
  has_evidence_bundle: boolean;
  /** Newest first. */
  history: HistoryEntry[];
}

export interface HistoryEntry {
  /** Counts entries. */
  seq: number;
  at: string;
  /** driftlock, key:<id> of an API key, user:<id>, or local. */
  actor: string;
  action: string;
  subject: string;
  detail: Record<string, unknown>;
}

/** Anomalies of several streams that belong together. */
export interface Incident {
  id: string;
  level: Level;
  state: State;
  title: string;
  origin_anomaly_id: string;
  started_at: string;
  last_at: string;
  resolved_at: string | null;
}

export interface IncidentDetail extends Incident {
  /** Newest first. */
  anomalies: Anomaly[];
}

export interface Window {
  start: string;
  end: string;
  record_count: number;
  outcome: Outcome;
  score: number;
  p_value: number;
  bits: number;
  ncd: number;
  compression_ratio: number;
  baseline_compression_ratio: number;
  entropy_bits: number;
  baseline_entropy_bits: number;
}

export interface Live {
  is_warm: boolean;
  windows_to_warm: number;
  baseline_windows: number;
  baseline_records: number;
  open_records: number;
  window_size: number;
  anomaly_id: string | null;
}

export interface Stream extends StreamRef {
  /** null if nobody follows it now. */
  live: Live | null;
}

export interface StreamDetail extends Stream {
  baseline_since: string | null;
  /** Newest first. */
  windows: Window[];
}

export interface UsageRow {
  /** null for the total. */
  start: string | null;
  organization: string;
  signal: "logs" | "metrics" | "traces";
  items: number;
  bytes: number;
  requests: number;
}

/** How data flow at this moment; only a sidecar can say. */
export interface Pipeline {
  version: string;
  policy: string;
  waiting_for: string[];
  accepted_items: number;
  stream_count: number;
  warming_up_count: number;
  lag_s: number;
  log_held_bytes: number;
  log_max_bytes: number;
  log_is_writable: boolean;
  withheld_items: number | null;
  at: string;
  queues: { destination: string; waiting_items: number | null; is_failing: boolean; last_error: string }[];
}

export interface Page<T> {
  rows: T[];
  next: string | null;
}

/** Which anomalies; what is absent takes all. */
export interface AnomalyFilter {
  since?: string;
  until?: string;
  signal?: Signal;
  service?: string;
  state?: State;
  status?: Status;
  severity?: Severity;
  level?: Level;
  incident_id?: string;
  text?: string;
}

/** What is not to be heard of: known already, or planned work. Empty parts take in everything. */
export interface Suppression {
  id: string;
  purpose: "pattern" | "maintenance";
  signal: Signal | null;
  service: string;
  name: string;
  template: string;
  begins: string | null;
  /** null: for good. */
  ends: string | null;
  note: string;
  created_by: string;
}

export interface NewSuppression {
  purpose: Suppression["purpose"];
  signal?: Signal;
  service?: string;
  name?: string;
  template?: string;
  /** Without it, for good; maintenance ends. */
  ends?: string;
  note?: string;
}

/** What another sensitivity would have made of a stream's last windows. */
export interface WhatIf {
  /** p-value at or below which a window is flagged: smaller is less sensitive. */
  significance: number;
  supposed_significance: number;
  fired: number;
  would_have_fired: number;
  /** Oldest first. */
  windows: { start: string; end: string; outcome: Outcome; bits: number; fires: boolean; would_fire: boolean }[];
}
