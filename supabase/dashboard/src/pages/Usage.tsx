import { useMemo, useState } from "react";
import type { UsageRow } from "../data/types";
import { useSource } from "../lib/context";
import { bytes, count, localDay, localTime, utcTime } from "../lib/format";
import { useQuery } from "../lib/query";
import { Answer, Choice, Empty, Figure, Numbers, PageTitle, Panel, Table, cx } from "../ui/parts";

const REFRESH_MS = 10_000;
const HOUR_MS = 3_600_000;
const SPANS = { hour: 24, day: 31 } as const;
const SIGNALS = [
  ["logs", "fill-accent", "log records"],
  ["metrics", "fill-low", "data points"],
  ["traces", "fill-medium", "spans"],
] as const;

type By = keyof typeof SPANS;
type Unit = "items" | "bytes" | "requests";

export function UsagePage() {
  const source = useSource();
  const [by, setBy] = useState<By>("hour");
  const [unit, setUnit] = useState<Unit>("items");
  const [since] = useState(() => new Date());
  const first = new Date(Math.floor(since.getTime() / HOUR_MS) * HOUR_MS - (SPANS[by] - 1) * (by === "hour" ? 1 : 24) * HOUR_MS);
  const month = new Date(Date.UTC(since.getUTCFullYear(), since.getUTCMonth(), 1));
  const period = useQuery("usage-month", () => source.usage("total", month.toISOString()), REFRESH_MS);
  const course = useQuery(`usage-${by}`, () => source.usage(by, first.toISOString()), REFRESH_MS);

  return (
    <>
      <PageTitle title="Usage" />
      <div className="space-y-5">
        <section aria-label="This month">
          <h2 className="mb-2 text-base font-semibold">
            This month{" "}
            <span className="text-sm font-normal text-quiet">since {localDay(month.toISOString())}, 00:00 UTC; what was sent twice, or refused, does not count</span>
          </h2>
          <Answer query={period} what="usage">
            {(rows) => (
              <dl className="grid grid-cols-2 gap-3 lg:grid-cols-4">
                {SIGNALS.map(([signal, , noun]) => (
                  <Figure
                    key={signal}
                    label={`${noun[0]?.toUpperCase()}${noun.slice(1)}`}
                    value={count(total(rows, "items", signal))}
                    note={bytes(total(rows, "bytes", signal))}
                  />
                ))}
                <Figure
                  label="Together"
                  value={bytes(total(rows, "bytes"))}
                  note={`${count(total(rows, "items"))} items in ${count(total(rows, "requests"))} requests`}
                />
              </dl>
            )}
          </Answer>
        </section>
        <Panel
          title="Over time"
          hint={by === "hour" ? "The last 24 hours." : "The last 31 days (UTC)."}
          aside={
            <div className="flex flex-wrap gap-2">
              <Choice label="Unit" value={unit} options={[["items", "Items"], ["bytes", "Bytes"], ["requests", "Requests"]]} onChange={setUnit} />
              <Choice label="Period" value={by} options={[["hour", "By hour"], ["day", "By day"]]} onChange={setBy} />
            </div>
          }
        >
          <Answer query={course} what="usage over time">
            {(rows) => (rows.length ? <Course rows={rows} by={by} unit={unit} first={first} /> : <Empty title="Nothing was sent in this time" />)}
          </Answer>
        </Panel>
      </div>
    </>
  );
}

function total(rows: UsageRow[], unit: Unit, signal?: string): number {
  return rows.filter((row) => !signal || row.signal === signal).reduce((sum, row) => sum + row[unit], 0);
}

/** Stacked columns, one a period; periods in which nothing was sent are empty. */
function Course({ rows, by, unit, first }: { rows: UsageRow[]; by: By; unit: Unit; first: Date }) {
  const stepMs = (by === "hour" ? 1 : 24) * HOUR_MS;
  const start = Math.floor(first.getTime() / stepMs) * stepMs;
  const columns = useMemo(
    () =>
      Array.from({ length: SPANS[by] }, (_, index) => {
        const at = start + index * stepMs;
        const mine = rows.filter((row) => row.start && Date.parse(row.start) === at);
        return { at, parts: SIGNALS.map(([signal]) => total(mine, unit, signal)), all: total(mine, unit) };
      }),
    [rows, by, unit, start, stepMs],
  );
  const most = Math.max(...columns.map((column) => column.all), 1);
  const show = unit === "bytes" ? bytes : count;
  const name = (at: number) => (by === "hour" ? localTime(new Date(at).toISOString()).replace(/:\d\d$/, "") : localDay(new Date(at).toISOString()));
  return (
    <>
      <ul className="mb-2 flex flex-wrap gap-x-4 text-xs text-quiet">
        {SIGNALS.map(([signal, look, noun]) => (
          <li key={signal} className="inline-flex items-center gap-1.5">
            <svg viewBox="0 0 10 10" className="size-2.5" aria-hidden="true">
              <rect width="10" height="10" rx="2" className={look} />
            </svg>
            {noun}
          </li>
        ))}
        <li className="ml-auto tabular">highest: {show(most)}</li>
      </ul>
      <svg
        viewBox={`0 0 ${columns.length * 10} 100`}
        preserveAspectRatio="none"
        className="h-48 w-full border-b border-strong"
        role="img"
        aria-label={`Usage by ${by}: highest ${show(most)}. The table below has the numbers.`}
      >
        {columns.map((column, index) => {
          let below = 0;
          return (
            <g key={column.at}>
              <title>{`${name(column.at)}: ${show(column.all)}`}</title>
              <rect x={index * 10} width="10" height="100" fill="transparent" />
              {column.parts.map((part, place) => {
                const height = (part / most) * 100;
                below += height;
                const [signal, look] = SIGNALS[place] ?? SIGNALS[0];
                return height > 0 && <rect key={signal} x={index * 10 + 1} y={100 - below} width="8" height={height} className={cx(look)} />;
              })}
            </g>
          );
        })}
      </svg>
      <div className="tabular mt-1 flex justify-between text-xs text-quiet">
        <span>{name(columns[0]?.at ?? 0)}</span>
        <span>{name(columns.at(-1)?.at ?? 0)}</span>
      </div>
      <Numbers>
        <Table
          caption={`Usage by ${by}, newest first`}
          rows={[...rows].sort((one, other) => (other.start ?? "").localeCompare(one.start ?? ""))}
          rowKey={(row) => `${row.start} ${row.organization} ${row.signal}`}
          columns={[
            { title: by === "hour" ? "Hour" : "Day", cell: (row) => <time dateTime={row.start ?? ""} title={utcTime(row.start ?? "")}>{row.start && name(Date.parse(row.start))}</time> },
            ...(rows.some((row) => row.organization) ? [{ title: "Organisation", cell: (row: UsageRow) => row.organization }] : []),
            { title: "Signal", cell: (row) => row.signal },
            { title: "Items", cell: (row) => count(row.items), isNumber: true },
            { title: "Bytes", cell: (row) => bytes(row.bytes), isNumber: true },
            { title: "Requests", cell: (row) => count(row.requests), isNumber: true },
          ]}
        />
      </Numbers>
    </>
  );
}
