import type { KeyboardEvent } from "react";
import { useEffect, useMemo, useRef, useState } from "react";
import type { Anomaly, AnomalyFilter, Status } from "../data/types";
import { LEVELS, SEVERITIES, SIGNALS, STATES, STATUSES } from "../data/types";
import { useAction } from "../lib/action";
import { useSource } from "../lib/context";
import { many, words } from "../lib/format";
import { usePages } from "../lib/pages";
import { Link, setSearch, useSearch } from "../lib/router";
import { AnomalyLine, incidentPath } from "../ui/anomalies";
import { Answer, Button, Choice, Empty, Failure, PageTitle, Panel, Select, TextField } from "../ui/parts";

const PAGE = 50;
const TYPING_MS = 250;
const SPANS: readonly (readonly [string, string, number])[] = [
  ["1h", "last hour", 3600],
  ["24h", "last day", 86_400],
  ["7d", "last week", 7 * 86_400],
  ["30d", "last 30 days", 30 * 86_400],
];

export function IncidentsPage() {
  const source = useSource();
  const search = useSearch();
  const filter = useMemo(() => filterOf(search), [search.toString()]);
  const isGrouped = search.get("group") !== "none";
  const list = usePages(`anomalies ${search.toString()}`, (cursor) => source.anomalies(filter, PAGE, cursor), PAGE);
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const toggle = (id: string) => setSelected((old) => (old.has(id) ? new Set([...old].filter((one) => one !== id)) : new Set([...old, id])));

  return (
    <>
      <PageTitle title="Incidents">
        <Choice
          label="Grouping"
          value={isGrouped ? "incident" : "none"}
          options={[
            ["incident", "By incident"],
            ["none", "Each anomaly"],
          ]}
          onChange={(value) => setSearch({ group: value === "none" ? "none" : "" })}
        />
      </PageTitle>
      <Filters />
      {selected.size > 0 && <Bulk ids={[...selected]} onDone={() => setSelected(new Set())} />}
      <Panel>
        <Answer query={list} what="anomalies">
          {({ rows, isMore }) =>
            rows.length ? (
              <>
                <List rows={rows} isGrouped={isGrouped} selected={selected} onToggle={toggle} />
                <More isMore={isMore} shown={rows.length} onMore={list.more} />
              </>
            ) : isMore ? (
              <>
                <Empty title="None so far">Older ones have not been looked at yet.</Empty>
                <More isMore shown={0} onMore={list.more} />
              </>
            ) : (
              <Empty title={search.size ? "No anomaly fits" : "Nothing odd was found yet"}>
                {search.size ? (
                  <Button onClick={() => setSearch(Object.fromEntries([...search.keys()].map((key) => [key, ""])))}>
                    Clear filters
                  </Button>
                ) : (
                  "A stream can alarm after 32 windows: it learns what is normal first."
                )}
              </Empty>
            )
          }
        </Answer>
      </Panel>
      <p className="mt-3 text-sm text-quiet">
        In the list: <Key>↑</Key> <Key>↓</Key> move, <Key>Enter</Key> opens, <Key>x</Key> selects. The address of this page holds the
        filters: share it as it is.
      </p>
    </>
  );
}

function Key({ children }: { children: string }) {
  return <kbd className="rounded border border-strong bg-panel px-1 font-mono text-xs text-text">{children}</kbd>;
}

function Filters() {
  const search = useSearch();
  const inAddress = search.get("text") ?? "";
  const [text, setText] = useState(inAddress);
  useEffect(() => setText(inAddress), [inAddress]);
  useEffect(() => {
    if (text === inAddress) return;
    const timer = setTimeout(() => setSearch({ text }), TYPING_MS);
    return () => clearTimeout(timer);
  }, [text, inAddress]);
  const select = (label: string, name: string, options: readonly string[]) => (
    <Select label={label} value={search.get(name) ?? ""} options={options} onChange={(value) => setSearch({ [name]: value })} />
  );
  return (
    <search className="mb-4 grid grid-cols-2 gap-2 sm:grid-cols-4 xl:grid-cols-[minmax(12rem,1.6fr)_repeat(7,minmax(0,1fr))]">
      <TextField className="col-span-2 xl:col-span-1" label="Search explanations and templates" type="search" value={text} onChange={setText} />
      {select("State", "state", STATES)}
      {select("Status", "status", STATUSES)}
      {select("Severity", "severity", SEVERITIES)}
      {select("Level", "level", LEVELS)}
      {select("Signal", "signal", SIGNALS)}
      <TextField label="Service, exactly" value={search.get("service") ?? ""} onChange={(value) => setSearch({ service: value })} />
      <label className="flex min-w-0 flex-col gap-0.5 text-xs text-quiet">
        Found
        <select
          className="min-h-8 rounded-md border border-strong bg-panel px-2 py-1 text-sm text-text"
          value={search.get("within") ?? ""}
          onChange={(event) => setSearch({ within: event.target.value })}
        >
          <option value="">any time</option>
          {SPANS.map(([name, label]) => (
            <option key={name} value={name}>
              {label}
            </option>
          ))}
        </select>
      </label>
    </search>
  );
}

/** Reads the filters of an address; what is no filter of ours is left out. */
export function filterOf(search: URLSearchParams): AnomalyFilter {
  const among = <T extends string>(name: string, known: readonly T[]) => known.find((value) => value === search.get(name));
  const given: Record<string, string | undefined> = {
    state: among("state", STATES),
    status: among("status", STATUSES),
    severity: among("severity", SEVERITIES),
    level: among("level", LEVELS),
    signal: among("signal", SIGNALS),
    service: search.get("service")?.trim() || undefined,
    text: search.get("text")?.trim() || undefined,
  };
  const span = SPANS.find(([name]) => name === search.get("within"));
  if (span) given.since = new Date(Math.floor(Date.now() / 60_000) * 60_000 - span[2] * 1000).toISOString();
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

interface Group {
  /** Empty if it is no group but one anomaly. */
  incident: string;
  rows: Anomaly[];
}

/** Puts anomalies of the same incident together, where the newest of them stands. */
export function grouped(rows: Anomaly[]): Group[] {
  const groups: Group[] = [];
  const known = new Map<string, Group>();
  for (const row of rows) {
    const group = row.incident_id ? known.get(row.incident_id) : undefined;
    if (group) group.rows.push(row);
    else {
      const made = { incident: row.incident_id ?? "", rows: [row] };
      groups.push(made);
      if (row.incident_id) known.set(row.incident_id, made);
    }
  }
  return groups;
}

function List({
  rows,
  isGrouped,
  selected,
  onToggle,
}: {
  rows: Anomaly[];
  isGrouped: boolean;
  selected: ReadonlySet<string>;
  onToggle: (id: string) => void;
}) {
  const source = useSource();
  const list = useRef<HTMLUListElement>(null);
  const groups = useMemo(() => (isGrouped ? grouped(rows) : rows.map((row) => ({ incident: "", rows: [row] }))), [rows, isGrouped]);

  // Keys count only while a row has the focus, so they take none away from anybody else.
  const onKeyDown = (event: KeyboardEvent) => {
    const links = [...(list.current?.querySelectorAll<HTMLAnchorElement>("a[data-anomaly]") ?? [])];
    const at = links.indexOf(document.activeElement as HTMLAnchorElement);
    if (at < 0 || event.metaKey || event.ctrlKey || event.altKey) return;
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    const id = links[at]?.dataset.anomaly;
    if (step) links[at + step]?.focus();
    else if (event.key === "x" && id) onToggle(id);
    else return;
    event.preventDefault();
  };

  const row = (anomaly: Anomaly) => (
    <div key={anomaly.id} className="row-lazy flex items-start gap-1">
      <label className="flex min-h-11 min-w-8 items-center justify-center">
        <input
          type="checkbox"
          className="size-4 accent-accent"
          aria-label={`Select: ${anomaly.explanation}`}
          checked={selected.has(anomaly.id)}
          onChange={() => onToggle(anomaly.id)}
        />
      </label>
      <AnomalyLine anomaly={anomaly} />
    </div>
  );

  return (
    <ul ref={list} onKeyDown={onKeyDown} className="-mx-2 divide-y divide-line" aria-label="Anomalies">
      {groups.map((group) =>
        group.rows.length > 1 ? (
          <li key={group.incident} className="py-2">
            <div className="flex flex-wrap items-baseline justify-between gap-x-3 px-2 text-sm">
              <p className="font-medium">
                One incident: {many(group.rows.length, "anomaly")} in{" "}
                {many(new Set(group.rows.map((anomaly) => anomaly.stream.id)).size, "stream")}
              </p>
              {source.abilities.has("incidents") && (
                <Link href={incidentPath(group.incident)} className="text-accent underline">
                  How it went
                </Link>
              )}
            </div>
            <div className="mt-1 ml-2 border-l-2 border-line">{group.rows.map(row)}</div>
          </li>
        ) : (
          <li key={group.rows[0]?.id}>{group.rows.map(row)}</li>
        ),
      )}
    </ul>
  );
}

function More({ isMore, shown, onMore }: { isMore: boolean; shown: number; onMore: () => void }) {
  const end = useRef<HTMLDivElement>(null);
  const latest = useRef(onMore);
  latest.current = onMore;
  useEffect(() => {
    if (!isMore || !end.current || !shown) return;
    const seen = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && latest.current(), {
      rootMargin: "600px",
    });
    seen.observe(end.current);
    return () => seen.disconnect();
  }, [isMore, shown]);
  return (
    <div ref={end} className="mt-3 flex items-center gap-3 text-sm text-quiet">
      <span>
        {many(shown, "anomaly")}
        {isMore ? " so far" : ""}
      </span>
      {isMore && <Button onClick={onMore}>Load more</Button>}
    </div>
  );
}

function Bulk({ ids, onDone }: { ids: string[]; onDone: () => void }) {
  const source = useSource();
  const { isBusy, error, run } = useAction();
  const set = (status: Status) =>
    run(async () => {
      for (const id of ids) await source.setStatus(id, status, "");
      onDone();
      return "";
    });
  return (
    <div className="sticky top-24 z-10 mb-3 rounded-xl border border-strong bg-panel px-4 py-2 shadow-lg lg:top-3">
      <fieldset disabled={isBusy} className="flex flex-wrap items-center gap-2">
        <legend className="sr-only">What to do with the selected anomalies</legend>
        <span role="status" className="mr-2 text-sm font-medium">
          {many(ids.length, "anomaly")} selected
        </span>
        {(["acknowledged", "investigating", "dismissed"] as const).map((status) => (
          <Button key={status} onClick={() => set(status)}>
            Mark {words(status)}
          </Button>
        ))}
        <Button onClick={onDone}>Clear selection</Button>
      </fieldset>
      {error && <Failure error={error} />}
    </div>
  );
}
