import { Suspense, lazy, useMemo, useState } from "react";
import type { Outcome, Window } from "../data/types";
import { bits, many, number, probability, secondsBetween, duration, words } from "../lib/format";
import { Choice, Numbers, Table, Time, cx } from "../ui/parts";
import { MEASURES, type Measure, type MeasureName, calmBand } from "./measures";

const WindowPlot = lazy(() => import("./WindowPlot"));

const CHOICES = Object.entries(MEASURES).map(([name, measure]) => [name as MeasureName, measure.title] as const);

/** A stream's windows over time by one measure, what it means, and the same as a table. `windows` are newest first. */
export function WindowChart({ windows, focus, title }: { windows: Window[]; focus?: string | undefined; title: string }) {
  const [name, setName] = useState<MeasureName>("score");
  const [index, setIndex] = useState<number | null>(null);
  const measure: Measure = MEASURES[name];
  const shown = useMemo(() => [...windows].reverse(), [windows]);
  const band = useMemo(() => calmBand(windows, measure), [windows, measure]);
  const focused = focus ? shown.findIndex((window) => window.start === focus) : -1;
  const pointed = shown[index ?? (focused >= 0 ? focused : shown.length - 1)];
  const odd = windows.filter((window) => window.outcome === "anomalous").length;

  return (
    <div>
      <div className="mb-2 flex flex-wrap items-center justify-between gap-2">
        <Choice label="What is drawn" value={name} options={CHOICES} onChange={setName} />
        <Legend hasBaseline={Boolean(measure.baseline)} />
      </div>
      <Suspense fallback={<div className="h-[260px] w-full rounded-lg bg-sunken breathe" />}>
        <WindowPlot
          windows={shown}
          measure={measure}
          band={band}
          focus={focus}
          onPoint={setIndex}
          label={`${measure.title} of ${many(shown.length, "window")} of ${title}; ${odd} anomalous. The table below has the numbers.`}
        />
      </Suspense>
      {pointed && (
        <p className="tabular mt-1 min-h-6 text-sm">
          <Time at={pointed.end} className="font-medium" /> · {measure.title.toLowerCase()} {measure.show(measure.value(pointed))}
          {measure.baseline && ` (baseline ${measure.show(measure.baseline(pointed))})`} · {words(pointed.outcome)} ·{" "}
          {many(pointed.record_count, "record")}
        </p>
      )}
      <p className="text-sm text-quiet">
        {measure.hint}
        {band && ` Shaded: nine tenths of the ${band.count} calm windows shown, ${measure.show(band.low)} to ${measure.show(band.high)}.`}
      </p>
      <Numbers>
        <WindowTable windows={windows} title={title} />
      </Numbers>
    </div>
  );
}

function Legend({ hasBaseline }: { hasBaseline: boolean }) {
  const items: [Outcome, string][] = [
    ["clean", "clean"],
    ["flagged", "flagged"],
    ["anomalous", "anomalous"],
    ["warming_up", "warming up"],
  ];
  return (
    <ul className="flex flex-wrap gap-x-3 text-xs text-quiet" aria-label="Marks">
      {items.map(([outcome, text]) => (
        <li key={outcome} className="inline-flex items-center gap-1">
          <OutcomeMark outcome={outcome} />
          {text}
        </li>
      ))}
      {hasBaseline && <li>┄ baseline</li>}
    </ul>
  );
}

export function OutcomeMark({ outcome }: { outcome: Outcome }) {
  const looks: Record<Outcome, [string, string]> = {
    clean: ["text-accent", "M6 3a3 3 0 1 1 0 6 3 3 0 0 1 0-6Z"],
    flagged: ["text-medium", "M6 1.5 11 10.5H1Z"],
    anomalous: ["text-alarm", "M6 0 10.5 6 6 12 1.5 6Z"],
    warming_up: ["text-quiet", "M6 3a3 3 0 1 1 0 6 3 3 0 0 1 0-6Z"],
  };
  const [look, path] = looks[outcome];
  return (
    <svg viewBox="0 0 12 12" className={cx("size-3", look)} aria-hidden="true">
      <path d={path} fill={outcome === "warming_up" ? "none" : "currentColor"} stroke="currentColor" strokeWidth="1" />
    </svg>
  );
}

export function WindowTable({ windows, title }: { windows: Window[]; title: string }) {
  return (
    <Table
      caption={`Windows of ${title}, newest first`}
      rows={windows}
      rowKey={(window) => `${window.start} ${window.end}`}
      columns={[
        { title: "End", cell: (window) => <Time at={window.end} /> },
        { title: "Length", cell: (window) => duration(secondsBetween(window.start, window.end)), isNumber: true },
        { title: "Records", cell: (window) => number(window.record_count), isNumber: true },
        {
          title: "Outcome",
          cell: (window) => (
            <span className="inline-flex items-center gap-1 whitespace-nowrap">
              <OutcomeMark outcome={window.outcome} />
              {words(window.outcome)}
            </span>
          ),
        },
        { title: "Score", cell: (window) => number(window.score, 3), isNumber: true },
        { title: "Surprise", cell: (window) => bits(window.bits), isNumber: true },
        { title: "p-value", cell: (window) => probability(window.p_value), isNumber: true },
        { title: "NCD", cell: (window) => number(window.ncd, 3), isNumber: true },
        { title: "Compression", cell: (window) => `${number(window.compression_ratio)}×`, isNumber: true },
        { title: "Baseline", cell: (window) => `${number(window.baseline_compression_ratio)}×`, isNumber: true },
        { title: "Entropy", cell: (window) => number(window.entropy_bits), isNumber: true },
        { title: "Baseline", cell: (window) => number(window.baseline_entropy_bits), isNumber: true },
      ]}
    />
  );
}
