import type { HistoryEntry } from "../data/types";
import { bytes, many, words } from "../lib/format";

/** What each action of the history is called; others are told by their own name. */
const ACTIONS: Record<string, (detail: Record<string, unknown>) => string> = {
  status_changed: (detail) => `set the status to ${words(String(detail.to ?? ""))}`,
  feedback_given: (detail) => `said: ${words(String(detail.verdict ?? ""))}`,
  records_released: (detail) => `released ${many(Number(detail.items ?? 0), "item")}`,
  records_dropped: (detail) => `deleted ${many(Number(detail.items ?? 0), "item")}`,
  evidence_kept: (detail) => `kept evidence of ${bytes(Number(detail.size_bytes ?? 0))}`,
};

export function actionText({ action, detail }: HistoryEntry): string {
  return (Object.hasOwn(ACTIONS, action) ? ACTIONS[action]?.(detail) : undefined) ?? words(action);
}

export function actorText(actor: string): string {
  if (actor === "driftlock") return "Driftlock";
  if (actor === "local") return "Somebody on this machine";
  if (actor.startsWith("key:")) return `Key ${actor.slice(4)}`;
  if (actor.startsWith("user:")) return `User ${actor.slice(5, 13)}`;
  return actor;
}

export function noteOf(entry: HistoryEntry): string {
  const { note } = entry.detail;
  return typeof note === "string" ? note : "";
}
