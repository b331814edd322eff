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
  /** recovered or adopted; empty while it goes on. */
  resolution: string;
  window_start: string;
  window_end: string;
  record_count: number;
  window_count: number;
  /** 0 to 1; 0.5 is the bar of an immediate alarm. */
  score: number;
  p_value: number;
  /** Calibrated surprise of the window. */
  bits: number;
  explanation: string;
  template: string;
}

/** What one field of an anomalous window says. */
export interface Evidence {
  field: string;
  kind: string;
  bits: number;
  sentence: string;
  observed: string;
  expected: string;
}

export interface AnomalyDetail extends Anomaly {
  ncd: number;
  compression_ratio: number;
  baseline_compression_ratio: number;
  entropy_bits: number;
  baseline_entropy_bits: number;
  baseline_windows: number;
  baseline_records: number;
  evidence: Evidence[];
  trace_id: string;
  span_id: string;
  related_trace_ids: string[];
  detector: string;
  compressor: string;
  /** What people last said of it; null if nothing. */
  feedback: Verdict | null;
  /** Records held back; null where nothing can be held back. */
  withheld: { item_count: number; bytes: number } | null;
  has_evidence_bundle: boolean;
}

export interface HistoryEntry {
  id: string;
  at: string;
  actor: string;
  action: string;
  subject: string;
  detail: Record<string, unknown>;
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
  incident?: string;
  text?: string;
}
