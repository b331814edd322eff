import type { ReactNode } from "react";
import { useState } from "react";
import { WindowChart } from "../charts/WindowChart";
import type { AnomalyDetail, Evidence } from "../data/types";
import { useSource } from "../lib/context";
import { bits, many, number, probability, streamName, words } from "../lib/format";
import { useQuery } from "../lib/query";
import { markTemplate, readRecords } from "../lib/records";
import { Link } from "../lib/router";
import { lasted } from "../ui/anomalies";
import { actionText, actorText, noteOf } from "../ui/history";
import { Answer, Button, Chip, Figure, LevelChip, Numbers, Panel, SeverityMark, StateMark, StatusChip, Table, Time, cx } from "../ui/parts";
import { Actions } from "./Actions";

const SHOWN_WINDOWS = 120;
const WINDOWS_AFTER = 20;
const MOST_RECORDS = 50;
const SHOWN_RECORDS = 8;
const MOST_TRACES = 10;

export function AnomalyPage({ id }: { id: string }) {
  const source = useSource();
  const query = useQuery(`anomaly-${id}`, () => source.anomaly(id));
  return (
    <>
      <nav aria-label="Breadcrumb" className="mb-2 text-sm">
        <Link href="/incidents" className="text-accent hover:underline">
          Incidents
        </Link>
      </nav>
      <Answer query={query} what="the anomaly">
        {(anomaly) => <Detail anomaly={anomaly} />}
      </Answer>
    </>
  );
}

function Detail({ anomaly }: { anomaly: AnomalyDetail }) {
  const source = useSource();
  return (
    <article>
      <header className="mb-4">
        <p className="flex flex-wrap items-center gap-x-3 gap-y-1 text-sm">
          <SeverityMark severity={anomaly.severity} />
          <StateMark state={anomaly.state} resolution={anomaly.resolution} />
          <StreamLink anomaly={anomaly} />
          <StatusChip status={anomaly.status} />
          <LevelChip level={anomaly.level} />
          {anomaly.is_suppressed && <Chip>suppressed</Chip>}
        </p>
        <h1 id="page-title" tabIndex={-1} className="mt-2 text-xl leading-snug font-semibold text-pretty break-words outline-none sm:text-2xl">
          {anomaly.explanation}
        </h1>
        <p className="mt-1.5 text-sm text-quiet">
          Since <Time at={anomaly.detected_at} />
          {anomaly.resolved_at ? (
            <>
              , over at <Time at={anomaly.resolved_at} /> after {lasted(anomaly)}
            </>
          ) : (
            anomaly.window_count > 1 && <>, for {lasted(anomaly)} so far</>
          )}
          {anomaly.incident_id && source.abilities.has("incidents") && (
            <>
              {" · "}
              <Link href={`/incidents/${anomaly.incident_id}`} className="text-accent underline">
                What belongs to the same incident
              </Link>
            </>
          )}
          <a href="#what-to-do" className="ml-3 text-accent underline xl:hidden">
            What to do
          </a>
        </p>
      </header>

      <div className="grid gap-5 xl:grid-cols-[minmax(0,1fr)_20rem]">
        <div className="min-w-0 space-y-5">
          <dl className="grid grid-cols-2 gap-3 md:grid-cols-4">
            <Figure label="Surprise" value={bits(anomaly.bits)} note="each bit halves the chance" />
            <Figure label="p-value" value={`≤ ${probability(anomaly.p_value)}`} note="among calm windows" />
            <Figure label="Score" value={number(anomaly.score, 3)} note="0.5 alarms at once" />
            <Figure label="Size" value={many(anomaly.window_count, "window")} note={`${many(anomaly.record_count, "record")} in the first`} />
          </dl>
          <Why evidence={anomaly.evidence} />
          {source.abilities.has("streams") && <Timeline anomaly={anomaly} />}
          <Records anomaly={anomaly} />
        </div>
        <aside id="what-to-do" className="min-w-0 space-y-5" aria-label="What to do, and what was done">
          <Actions anomaly={anomaly} />
          <History anomaly={anomaly} />
          <Facts anomaly={anomaly} />
        </aside>
      </div>
    </article>
  );
}

function StreamLink({ anomaly: { stream } }: { anomaly: AnomalyDetail }) {
  const source = useSource();
  if (!source.abilities.has("streams")) return <span className="font-medium">{streamName(stream)}</span>;
  return (
    <Link href={`/streams/${encodeURIComponent(stream.id)}`} className="min-w-0 font-medium break-words text-accent hover:underline">
      {streamName(stream)}
    </Link>
  );
}

function Why({ evidence }: { evidence: Evidence[] }) {
  const most = Math.max(...evidence.map((item) => item.bits), 1);
  return (
    <Panel title="Why" hint="What each column says, strongest first, in bits: ten more are a thousand times rarer.">
      <ol className="space-y-4">
        {evidence.map((item) => (
          <li key={`${item.column} ${item.kind}`}>
            <div className="flex flex-wrap items-baseline justify-between gap-x-3">
              <p className="min-w-0">
                <code className="font-mono text-sm font-semibold break-all">{item.column}</code>{" "}
                <span className="text-sm text-quiet">{item.kind}</span>
              </p>
              {item.bits > 0 && <p className="tabular text-sm font-semibold">{bits(item.bits)}</p>}
            </div>
            <svg viewBox="0 0 100 2" preserveAspectRatio="none" className={cx("mt-1 h-2 w-full overflow-hidden rounded-full", item.bits <= 0 && "hidden")} aria-hidden="true">
              <rect width="100" height="2" className="fill-sunken" />
              <rect width={(100 * Math.max(item.bits, 0)) / most} height="2" className="fill-accent" />
            </svg>
            <p className="mt-1.5 break-words">{item.text}</p>
            {(item.expected || item.observed) && (
              <dl className="mt-1 grid gap-x-6 gap-y-1 text-sm sm:grid-cols-2">
                <Compared term="Expected" text={item.expected} />
                <Compared term="Observed" text={item.observed} isOdd />
              </dl>
            )}
          </li>
        ))}
      </ol>
      <Numbers>
        <Table
          caption="Evidence by column"
          rows={evidence}
          rowKey={(item) => `${item.column} ${item.kind}`}
          columns={[
            { title: "Column", cell: (item) => item.column },
            { title: "Kind", cell: (item) => item.kind },
            { title: "Surprise", cell: (item) => (item.bits > 0 ? bits(item.bits) : "–"), isNumber: true },
            { title: "Expected", cell: (item) => item.expected || "–" },
            { title: "Observed", cell: (item) => item.observed || "–" },
          ]}
        />
      </Numbers>
    </Panel>
  );
}

function Compared({ term, text, isOdd = false }: { term: string; text: string; isOdd?: boolean }) {
  return (
    <div className={`min-w-0 border-l-2 pl-2 ${isOdd ? "border-alarm" : "border-strong"}`}>
      <dt className="text-xs text-quiet">{term}</dt>
      <dd className="break-words">{text || "nothing of the kind"}</dd>
    </div>
  );
}

/** Windows before, during and after: as far as the chart needs to go to show how it ended. */
function Timeline({ anomaly }: { anomaly: AnomalyDetail }) {
  const source = useSource();
  const { stream, resolved_at: resolvedAt, window_start: start, window_end: end } = anomaly;
  const query = useQuery(`timeline-${anomaly.id}-${resolvedAt}`, () => {
    if (!resolvedAt) return source.stream(stream.id, SHOWN_WINDOWS);
    const windowMs = Math.max(Date.parse(end) - Date.parse(start), 1000);
    const before = new Date(Date.parse(resolvedAt) + WINDOWS_AFTER * windowMs).toISOString();
    return source.stream(stream.id, SHOWN_WINDOWS, before);
  });
  return (
    <Panel title="Timeline" hint="The stream's windows; the upright line marks the one that raised the alarm.">
      <Answer query={query} what="the stream's windows">
        {(found) => <WindowChart windows={found.windows} focus={start} title={streamName(stream)} />}
      </Answer>
    </Panel>
  );
}

function Records({ anomaly }: { anomaly: AnomalyDetail }) {
  const [isWhole, setWhole] = useState(false);
  const records = anomaly.records ? readRecords(anomaly.records, MOST_RECORDS) : [];
  if (!records.length) return null;
  const shown = isWhole ? records : records.slice(0, SHOWN_RECORDS);
  return (
    <Panel title="Withheld records" hint="Some of them. What the strongest template fixes is marked.">
      <ol className="divide-y divide-line">
        {shown.map((record, index) => (
          <li key={index} className="grid gap-x-4 py-1.5 text-sm sm:grid-cols-[5.5rem_3.5rem_minmax(0,1fr)]">
            <span className="text-quiet">{record.at && <Time at={record.at} />}</span>
            <span className="font-semibold">{record.label}</span>
            <span className="font-mono text-[13px] break-words">
              {markTemplate(record.text, anomaly.template).map((piece, place) =>
                piece.isMarked ? (
                  <mark key={place} className="rounded-sm bg-alarm-soft text-text underline decoration-alarm decoration-2 underline-offset-2">
                    {piece.text}
                  </mark>
                ) : (
                  <span key={place}>{piece.text}</span>
                ),
              )}
              {record.attributes.length > 0 && (
                <span className="block text-xs break-all text-quiet">
                  {record.attributes.map(([key, value]) => `${key}=${value}`).join("  ")}
                </span>
              )}
            </span>
          </li>
        ))}
      </ol>
      {records.length > SHOWN_RECORDS && (
        <Button className="mt-3" aria-expanded={isWhole} onClick={() => setWhole(!isWhole)}>
          {isWhole ? "Show fewer" : `Show ${records.length}`}
        </Button>
      )}
    </Panel>
  );
}

function History({ anomaly }: { anomaly: AnomalyDetail }) {
  return (
    <Panel title="History" hint="Append-only, newest first.">
      <ol className="space-y-2.5 text-sm">
        {anomaly.history.map((entry) => (
          <li key={entry.seq} className="border-l-2 border-line pl-3">
            <span className="font-medium">{actorText(entry.actor)}</span> {actionText(entry)}
            {noteOf(entry) && <q className="mt-0.5 block break-words">{noteOf(entry)}</q>}
            <Time at={entry.at} className="block text-quiet" />
          </li>
        ))}
        {!anomaly.history.length && <li className="text-quiet">Nothing was done about it yet.</li>}
      </ol>
    </Panel>
  );
}

function Facts({ anomaly }: { anomaly: AnomalyDetail }) {
  const traces = [anomaly.trace_id, ...anomaly.related_trace_ids].filter(Boolean).slice(0, MOST_TRACES);
  const facts: [string, ReactNode][] = [
    ["Window", <><Time at={anomaly.window_start} /> to <Time at={anomaly.window_end} /></>],
    ["Distance (NCD)", number(anomaly.ncd, 3)],
    ["Compression", `${number(anomaly.compression_ratio)}×, baseline ${number(anomaly.baseline_compression_ratio)}×`],
    ["Entropy", `${number(anomaly.entropy_bits)} bits a record, baseline ${number(anomaly.baseline_entropy_bits)}`],
    ["Baseline", `${many(anomaly.baseline_windows, "window")}, ${many(anomaly.baseline_records, "record")}`],
    ...(anomaly.template ? [["Template", <Code key="template">{anomaly.template}</Code>] as [string, ReactNode]] : []),
    ...(traces.length ? [[traces.length > 1 ? "Traces" : "Trace", traces.map((trace) => <Code key={trace}>{trace}</Code>)] as [string, ReactNode]] : []),
    ["Said of it", anomaly.feedback ? words(anomaly.feedback) : "nothing yet"],
    ["Detector", <Code key="detector">{`${anomaly.fingerprint} ${anomaly.compressor}`}</Code>],
    ["Id", <Code key="id">{anomaly.id}</Code>],
  ];
  return (
    <Panel title="Facts">
      <dl className="space-y-2 text-sm">
        {facts.map(([term, value]) => (
          <div key={term}>
            <dt className="text-xs text-quiet">{term}</dt>
            <dd className="tabular break-words">{value}</dd>
          </div>
        ))}
      </dl>
    </Panel>
  );
}

function Code({ children }: { children: string }) {
  return <code className="block font-mono text-xs break-all">{children}</code>;
}
