import type { Anomaly } from "../data/types";
import { bits, duration, many, secondsBetween, streamName } from "../lib/format";
import { Link } from "../lib/router";
import { Chip, LevelChip, SeverityMark, StateMark, StatusChip, Time, cx } from "./parts";

export function anomalyPath(id: string): string {
  return `/anomalies/${id}`;
}

export function incidentPath(id: string): string {
  return `/incidents/${id}`;
}

export function lasted(anomaly: Anomaly): string {
  return duration(secondsBetween(anomaly.detected_at, anomaly.resolved_at ?? anomaly.last_at));
}

/** One anomaly in a list: what, where, since when, how odd, what is done about it. */
export function AnomalyLine({ anomaly, className }: { anomaly: Anomaly; className?: string }) {
  return (
    <Link
      href={anomalyPath(anomaly.id)}
      data-anomaly={anomaly.id}
      className={cx(
        "block min-w-0 flex-1 rounded-md px-2 py-2 hover:bg-sunken",
        (anomaly.status === "dismissed" || anomaly.is_suppressed) && "text-quiet",
        className,
      )}
    >
      <span className="flex flex-wrap items-center gap-x-3 gap-y-0.5 text-sm">
        <SeverityMark severity={anomaly.severity} />
        <span className="min-w-0 font-medium break-words">{streamName(anomaly.stream)}</span>
        <StateMark state={anomaly.state} resolution={anomaly.resolution} />
        <span className="ml-auto text-quiet">
          <Time at={anomaly.detected_at} />
        </span>
      </span>
      <span className="mt-0.5 line-clamp-2 break-words">{anomaly.explanation}</span>
      <span className="mt-1 flex flex-wrap items-center gap-x-2 gap-y-1 text-sm text-quiet">
        <StatusChip status={anomaly.status} />
        <LevelChip level={anomaly.level} />
        {anomaly.is_suppressed && <Chip title="Recorded, and nobody was told">suppressed</Chip>}
        <span className="tabular">
          {bits(anomaly.bits)} · {many(anomaly.window_count, "window")}
          {anomaly.window_count > 1 && ` · ${lasted(anomaly)}`}
        </span>
      </span>
    </Link>
  );
}
