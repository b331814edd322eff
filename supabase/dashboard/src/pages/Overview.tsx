import { useEffect, useRef, useState } from "react";
import { Sparkline } from "../charts/Sparkline";
import { useSource } from "../lib/context";
import type { Anomaly, Pipeline, Stream, StreamDetail, Window } from "../data/types";
import { bytes, count, duration, many, number, probability, streamName } from "../lib/format";
import { useQuery } from "../lib/query";
import { Link } from "../lib/router";
import { AnomalyLine } from "../ui/anomalies";
import { Answer, Chip, Empty, Failure, Figure, Numbers, PageTitle, Panel, Table } from "../ui/parts";

const REFRESH_MS = 5_000;
const SHOWN_OPEN = 6;
const SHOWN_OVER = 3;
const SHOWN_STREAMS = 24;
const SHOWN_WINDOWS = 60;

export function OverviewPage() {
  const source = useSource();
  const found = useQuery("overview-open", async () => {
    const [open, ongoing, over] = await Promise.all([
      source.anomalies({ state: "open" }, 50),
      source.anomalies({ state: "ongoing" }, 50),
      source.anomalies({ state: "resolved" }, SHOWN_OVER),
    ]);
    const rows = [...open.rows, ...ongoing.rows];
    return { rows: rows.sort(byImportance), isMore: Boolean(open.next ?? ongoing.next), over: over.rows };
  });
  return (
    <>
      <PageTitle title="Overview" />
      <div className="space-y-5">
        <Panel
          title="Going on now"
          hint="Anomalies that have not ended, most serious first."
          aside={
            <Link href="/incidents" className="text-sm font-medium text-accent hover:underline">
              All incidents
            </Link>
          }
        >
          <Answer query={found} what="open anomalies">
            {(shown) => <GoingOn {...shown} />}
          </Answer>
        </Panel>
        {source.abilities.has("pipeline") && <PipelineFigures />}
        {source.abilities.has("streams") && <StreamMultiples />}
      </div>
    </>
  );
}

const SEVERITY_RANK = { critical: 3, high: 2, medium: 1, low: 0 };

function byImportance(first: Anomaly, second: Anomaly): number {
  return (
    Number(first.status === "dismissed") - Number(second.status === "dismissed") ||
    SEVERITY_RANK[second.severity] - SEVERITY_RANK[first.severity] ||
    second.bits - first.bits
  );
}

function GoingOn({ rows, isMore, over }: { rows: Anomaly[]; isMore: boolean; over: Anomaly[] }) {
  const rest = rows.length - SHOWN_OPEN;
  const lately = over.slice(0, Math.max(SHOWN_OVER - rows.length, 0));
  return (
    <>
      {rows.length ? (
        <Lines rows={rows.slice(0, SHOWN_OPEN)} />
      ) : (
        <Empty title="Nothing odd is going on">Every stream that is watched looks like itself.</Empty>
      )}
      {(rest > 0 || isMore) && (
        <p className="mt-2 text-sm">
          <Link href="/incidents" className="text-accent underline">
            {isMore ? "and more" : `${rest} more`}
          </Link>
        </p>
      )}
      {lately.length > 0 && (
        <>
          <h3 className="mt-4 border-t border-line pt-4 text-sm font-semibold">Lately over</h3>
          <Lines rows={lately} />
        </>
      )}
    </>
  );
}

function Lines({ rows }: { rows: Anomaly[] }) {
  return (
    <ul className="-mx-2 divide-y divide-line">
      {rows.map((anomaly) => (
        <li key={anomaly.id}>
          <AnomalyLine anomaly={anomaly} />
        </li>
      ))}
    </ul>
  );
}

/** Readings of the pipeline, and the rate between the last two. */
function usePipeline() {
  const source = useSource();
  const query = useQuery("pipeline", () => source.pipeline(), REFRESH_MS);
  const before = useRef<Pipeline | undefined>(undefined);
  const [rate, setRate] = useState<number | null>(null);
  useEffect(() => {
    const now = query.data;
    if (!now) return;
    const seconds = before.current ? (Date.parse(now.at) - Date.parse(before.current.at)) / 1000 : 0;
    if (before.current && seconds >= 1) setRate(Math.max(0, now.accepted_items - before.current.accepted_items) / seconds);
    if (!before.current || seconds >= 1) before.current = now;
  }, [query.data]);
  return { query, rate };
}

function PipelineFigures() {
  const { query, rate } = usePipeline();
  const now = query.data;
  // A proxy may keep it from organisations that must not see one another.
  const isKept = query.error?.kind === "forbidden" || query.error?.kind === "missing";
  if (!now) return query.error && !isKept ? <Failure error={query.error} onRetry={query.reload} /> : null;
  const failing = now.queues.filter((queue) => queue.is_failing);
  return (
    <section aria-label="How data flow">
      {now.waiting_for.length > 0 && <Alarm text={`Not ready: waiting for ${now.waiting_for.join(", ")}.`} />}
      {!now.log_is_writable && <Alarm text="The disk takes no data; senders are told to come back." />}
      {failing.map((queue) => (
        <Alarm key={queue.destination} text={`${queue.destination} does not take data: ${queue.last_error}`} />
      ))}
      <dl className="grid grid-cols-2 gap-3 *:last:col-span-2 md:grid-cols-5 md:*:last:col-span-1">
        <Figure
          label="Coming in"
          value={rate === null ? count(now.accepted_items) : `${count(Math.round(rate))}/s`}
          note={rate === null ? "items since the start" : `${count(now.accepted_items)} items since the start`}
        />
        <Figure
          label="Streams"
          value={count(now.stream_count)}
          note={now.warming_up_count ? `${count(now.warming_up_count)} warming up` : "all may alarm"}
        />
        <Figure label="Detection lag" value={duration(now.lag_s)} note="oldest record without a verdict" />
        <Figure label="Durable log" value={bytes(now.log_held_bytes)} note={`of ${bytes(now.log_max_bytes)} at most`} />
        <Figure
          label="Withheld"
          value={now.withheld_items === null ? "–" : count(now.withheld_items)}
          note={`items; policy ${now.policy}`}
        />
      </dl>
    </section>
  );
}

function Alarm({ text }: { text: string }) {
  return (
    <p role="alert" className="mb-3 rounded-lg border border-alarm bg-alarm-soft px-4 py-2 text-sm break-words">
      {text}
    </p>
  );
}

function StreamMultiples() {
  const source = useSource();
  const [windows, setWindows] = useState<Record<string, Window[]>>({});
  const streams = useQuery("overview-streams", () => source.streams(200), REFRESH_MS);
  const keep = (detail: StreamDetail) => setWindows((old) => ({ ...old, [detail.id]: detail.windows }));
  return (
    <Panel
      title="Streams"
      hint={`Score of each stream's last ${SHOWN_WINDOWS} windows; the dotted line is the bar of an immediate alarm.`}
      aside={
        <Link href="/streams" className="text-sm font-medium text-accent hover:underline">
          All streams
        </Link>
      }
    >
      <Answer query={streams} what="streams">
        {({ rows, next }) => {
          const shown = [...rows].sort(oddFirst).slice(0, SHOWN_STREAMS);
          if (!shown.length) {
            return (
              <Empty title="No streams yet">
                Point an SDK or a Collector at this sidecar: OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318
              </Empty>
            );
          }
          return (
            <>
              <ul className="grid gap-3 sm:grid-cols-2 xl:grid-cols-3 2xl:grid-cols-4">
                {shown.map((stream) => (
                  <StreamCard key={stream.id} stream={stream} onWindows={keep} />
                ))}
              </ul>
              {(rows.length > shown.length || next) && (
                <p className="mt-3 text-sm text-quiet">
                  {shown.length} of {next ? "more than " : ""}
                  {rows.length}, those with an anomaly first.
                </p>
              )}
              <Numbers>
                <Table
                  caption="Scores of the streams shown"
                  rows={shown}
                  rowKey={(stream) => stream.id}
                  columns={[
                    { title: "Stream", cell: (stream) => streamName(stream) },
                    { title: "Windows", cell: (stream) => count(windows[stream.id]?.length ?? 0), isNumber: true },
                    { title: "Anomalous", cell: (stream) => count(odd(windows[stream.id] ?? [])), isNumber: true },
                    { title: "Last score", cell: (stream) => number(windows[stream.id]?.[0]?.score ?? Number.NaN, 3), isNumber: true },
                    { title: "Last p-value", cell: (stream) => lastP(windows[stream.id]), isNumber: true },
                    {
                      title: "Highest score",
                      cell: (stream) => number(Math.max(...(windows[stream.id] ?? []).map((window) => window.score)), 3),
                      isNumber: true,
                    },
                  ]}
                />
              </Numbers>
            </>
          );
        }}
      </Answer>
    </Panel>
  );
}

function odd(windows: Window[]): number {
  return windows.filter((window) => window.outcome === "anomalous").length;
}

function lastP(windows: Window[] | undefined): string {
  const last = windows?.[0];
  return last ? probability(last.p_value) : "–";
}

function oddFirst(first: Stream, second: Stream): number {
  return Number(Boolean(second.live?.anomaly_id)) - Number(Boolean(first.live?.anomaly_id));
}

function StreamCard({ stream, onWindows }: { stream: Stream; onWindows: (detail: StreamDetail) => void }) {
  const source = useSource();
  const tell = useRef(onWindows);
  tell.current = onWindows;
  const query = useQuery(
    `card-${stream.id}`,
    async () => {
      const detail = await source.stream(stream.id, SHOWN_WINDOWS);
      tell.current(detail);
      return detail;
    },
    REFRESH_MS,
  );
  const { live } = stream;
  return (
    <li className="min-w-0">
      <Link href={`/streams/${encodeURIComponent(stream.id)}`} className="block rounded-lg border border-line p-3 hover:border-strong">
        <span className="flex items-baseline justify-between gap-2">
          <span className="min-w-0 truncate text-sm font-medium" title={streamName(stream)}>
            {streamName(stream)}
          </span>
          {live?.anomaly_id ? (
            <span className="text-xs font-medium text-alarm">odd</span>
          ) : live && !live.is_warm ? (
            <Chip>warming up, {many(live.windows_to_warm, "window")} to go</Chip>
          ) : null}
        </span>
        {query.data ? (
          <Sparkline windows={query.data.windows} label={streamName(stream)} />
        ) : (
          <span className="mt-1 block h-14 rounded bg-sunken" />
        )}
      </Link>
    </li>
  );
}
