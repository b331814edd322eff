import type { IncidentDetail } from "../data/types";
import { useSource } from "../lib/context";
import { duration, many, secondsBetween, streamName } from "../lib/format";
import { useQuery } from "../lib/query";
import { Link } from "../lib/router";
import { AnomalyLine, anomalyPath } from "../ui/anomalies";
import { Answer, Chip, LevelChip, Numbers, Panel, StateMark, Table, Time } from "../ui/parts";

export function IncidentPage({ id }: { id: string }) {
  const source = useSource();
  const query = useQuery(`incident-${id}`, () => source.incident(id));
  return (
    <>
      <nav aria-label="Breadcrumb" className="mb-2 text-sm">
        <Link href="/incidents" className="text-accent hover:underline">
          Incidents
        </Link>
      </nav>
      <Answer query={query} what="the incident">
        {(incident) => <Detail incident={incident} />}
      </Answer>
    </>
  );
}

function Detail({ incident }: { incident: IncidentDetail }) {
  const inOrder = [...incident.anomalies].sort((first, second) => Date.parse(first.detected_at) - Date.parse(second.detected_at));
  const streams = new Set(inOrder.map((anomaly) => anomaly.stream.id));
  return (
    <article>
      <header className="mb-4">
        <p className="flex flex-wrap items-center gap-x-3 gap-y-1 text-sm">
          <StateMark state={incident.state} />
          <LevelChip level={incident.level} />
          <span className="text-quiet">
            {many(inOrder.length, "anomaly")} in {many(streams.size, "stream")}
          </span>
        </p>
        <h1 id="page-title" tabIndex={-1} className="mt-2 text-xl leading-snug font-semibold text-pretty break-words outline-none sm:text-2xl">
          {incident.title}
        </h1>
        <p className="mt-1.5 text-sm text-quiet">
          Since <Time at={incident.started_at} />, {incident.resolved_at ? "over" : "last heard of"} after{" "}
          {duration(secondsBetween(incident.started_at, incident.resolved_at ?? incident.last_at))}
        </p>
      </header>
      <div className="space-y-5">
        <Course incident={incident} />
        <Panel title="Anomalies" hint="In the order in which they showed; the likely origin is marked.">
          <ol className="-mx-2 divide-y divide-line">
            {inOrder.map((anomaly) => (
              <li key={anomaly.id} className="row-lazy">
                {anomaly.id === incident.origin_anomaly_id && (
                  <p className="px-2 pt-2">
                    <Chip>likely origin</Chip>
                  </p>
                )}
                <AnomalyLine anomaly={anomaly} />
              </li>
            ))}
          </ol>
        </Panel>
      </div>
    </article>
  );
}

/** From when to when each anomaly went on. */
function Course({ incident }: { incident: IncidentDetail }) {
  const rows = [...incident.anomalies].sort((first, second) => Date.parse(first.detected_at) - Date.parse(second.detected_at));
  const start = Math.min(...rows.map((row) => Date.parse(row.detected_at)));
  const end = Math.max(...rows.map((row) => Date.parse(row.resolved_at ?? row.last_at)), start + 1);
  const share = (at: string) => (100 * (Date.parse(at) - start)) / (end - start);
  return (
    <Panel title="Course" hint="From when to when each anomaly went on.">
      <ol className="space-y-2">
        {rows.map((row) => {
          const from = share(row.detected_at);
          const length = Math.max(share(row.resolved_at ?? row.last_at) - from, 1);
          return (
            <li key={row.id} className="grid items-center gap-x-3 text-sm sm:grid-cols-[14rem_minmax(0,1fr)]">
              <Link href={anomalyPath(row.id)} className="truncate text-accent hover:underline">
                {streamName(row.stream)}
              </Link>
              <svg viewBox="0 0 100 6" preserveAspectRatio="none" className="h-4 w-full" aria-hidden="true">
                <rect width="100" height="6" className="fill-sunken" />
                <rect x={Math.min(from, 99)} width={length} height="6" className={row.resolved_at ? "fill-strong" : "fill-alarm"} />
              </svg>
            </li>
          );
        })}
      </ol>
      <Numbers>
        <Table
          caption="When each anomaly went on"
          rows={rows}
          rowKey={(row) => row.id}
          columns={[
            { title: "Stream", cell: (row) => streamName(row.stream) },
            { title: "Since", cell: (row) => <Time at={row.detected_at} /> },
            { title: "Until", cell: (row) => (row.resolved_at ? <Time at={row.resolved_at} /> : "goes on") },
          ]}
        />
      </Numbers>
    </Panel>
  );
}
