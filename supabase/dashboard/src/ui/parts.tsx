/** The few building blocks of all pages. */

import type { ButtonHTMLAttributes, ReactNode } from "react";
import { useId } from "react";
import type { SourceError } from "../data/source";
import type { Level, Severity, State, Status } from "../data/types";
import { SEVERITIES } from "../data/types";
import { localTime, utcTime, words } from "../lib/format";

export function cx(...names: (string | false | undefined)[]): string {
  return names.filter(Boolean).join(" ");
}

const BUTTONS = {
  primary: "border-transparent bg-accent text-on-accent hover:opacity-90",
  plain: "border-line bg-panel text-text hover:border-strong hover:bg-sunken",
  danger: "border-alarm bg-panel text-alarm hover:bg-alarm-soft",
} as const;

export function Button({
  look = "plain",
  className,
  ...rest
}: ButtonHTMLAttributes<HTMLButtonElement> & { look?: keyof typeof BUTTONS }) {
  return (
    <button
      type="button"
      {...rest}
      className={cx(
        "inline-flex min-h-8 items-center justify-center gap-1.5 rounded-md border px-3 py-1 text-sm font-medium whitespace-nowrap",
        "aria-pressed:border-accent aria-pressed:bg-accent-soft disabled:opacity-60",
        BUTTONS[look],
        className,
      )}
    />
  );
}

export function Panel({
  title,
  hint,
  aside,
  children,
  className,
}: {
  title?: string;
  hint?: ReactNode;
  aside?: ReactNode;
  children: ReactNode;
  className?: string;
}) {
  const id = useId();
  return (
    <section
      aria-labelledby={title ? id : undefined}
      className={cx("min-w-0 rounded-xl border border-line bg-panel p-4 sm:p-5", className)}
    >
      {title && (
        <header className="mb-3 flex flex-wrap items-baseline justify-between gap-x-4 gap-y-1">
          <div>
            <h2 id={id} className="text-base font-semibold">
              {title}
            </h2>
            {hint && <p className="text-sm text-quiet">{hint}</p>}
          </div>
          {aside}
        </header>
      )}
      {children}
    </section>
  );
}

export function Figure({ label, value, note }: { label: string; value: ReactNode; note?: ReactNode }) {
  return (
    <div className="min-w-0 rounded-xl border border-line bg-panel px-4 py-3">
      <dt className="text-sm text-quiet">{label}</dt>
      <dd className="tabular mt-0.5 text-2xl leading-tight font-semibold">{value}</dd>
      {note && <dd className="mt-0.5 text-sm text-quiet">{note}</dd>}
    </div>
  );
}

export function Time({ at, className }: { at: string; className?: string }) {
  return (
    <time dateTime={at} title={utcTime(at)} className={cx("tabular whitespace-nowrap", className)}>
      {localTime(at)}
    </time>
  );
}

const SEVERITY_COLORS: Record<Severity, string> = {
  low: "text-low",
  medium: "text-medium",
  high: "text-high",
  critical: "text-critical",
};

/** One to four bars, and the word. */
export function SeverityMark({ severity, isShort = false }: { severity: Severity; isShort?: boolean }) {
  const rank = SEVERITIES.indexOf(severity);
  return (
    <span className="inline-flex items-center gap-1.5 whitespace-nowrap">
      <svg viewBox="0 0 16 12" className={cx("h-3 w-4 shrink-0", SEVERITY_COLORS[severity])} aria-hidden="true">
        {[0, 1, 2, 3].map((bar) => (
          <rect
            key={bar}
            x={bar * 4}
            y={9 - bar * 3}
            width="3"
            height={3 + bar * 3}
            rx="0.8"
            fill="currentColor"
            opacity={bar <= rank ? 1 : 0.22}
          />
        ))}
      </svg>
      <span className={isShort ? "sr-only sm:not-sr-only" : undefined}>{words(severity)}</span>
    </span>
  );
}

export function StateMark({ state, resolution }: { state: State; resolution?: string | null }) {
  const isOver = state === "resolved";
  return (
    <span className={cx("inline-flex items-center gap-1.5 whitespace-nowrap", isOver ? "text-quiet" : "text-alarm")}>
      <svg viewBox="0 0 10 10" className={cx("size-2.5", !isOver && "breathe")} aria-hidden="true">
        {isOver ? (
          <path d="M1.5 5.5 4 8l4.5-6" fill="none" stroke="currentColor" strokeWidth="1.8" strokeLinecap="round" />
        ) : (
          <circle cx="5" cy="5" r="4" fill="currentColor" />
        )}
      </svg>
      {words(isOver && resolution ? resolution : state)}
    </span>
  );
}

export function Chip({ children, title }: { children: ReactNode; title?: string }) {
  return (
    <span
      title={title}
      className="inline-flex items-center rounded-full border border-line bg-sunken px-2 text-xs leading-5 whitespace-nowrap text-text"
    >
      {children}
    </span>
  );
}

export function StatusChip({ status }: { status: Status }) {
  return <Chip title="What people do about it">{words(status)}</Chip>;
}

const LEVEL_HINTS: Record<Level, string> = {
  notice: "The stream's own alarm",
  page: "Worth waking somebody",
  fleet: "Several related streams",
};

export function LevelChip({ level }: { level: Level }) {
  return <Chip title={LEVEL_HINTS[level]}>{level}</Chip>;
}

export function Loading({ what, rows = 3 }: { what: string; rows?: number }) {
  return (
    <div role="status" aria-label={`Loading ${what}`} className="space-y-2 py-1">
      {Array.from({ length: rows }, (_, row) => (
        <div key={row} className="breathe h-9 rounded-md bg-sunken" />
      ))}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="flex flex-col items-center gap-1 px-4 py-10 text-center">
      <svg viewBox="0 0 64 24" className="mb-2 h-6 w-16 text-quiet" aria-hidden="true">
        <path d="M2 14h14l4-4 5 7 6-10 4 7h27" fill="none" stroke="currentColor" strokeWidth="1.6" strokeLinecap="round" strokeLinejoin="round" />
      </svg>
      <p className="font-medium">{title}</p>
      {children && <div className="max-w-prose text-sm text-quiet">{children}</div>}
    </div>
  );
}

const ERROR_TITLES: Record<SourceError["kind"], string> = {
  offline: "Not reachable",
  unauthenticated: "Sign in first",
  forbidden: "Not permitted",
  missing: "Not found",
  refused: "Refused",
  failed: "Something went wrong",
};

export function Failure({ error, onRetry }: { error: SourceError; onRetry?: () => void }) {
  return (
    <div role="alert" className="flex flex-wrap items-center gap-3 rounded-lg border border-alarm bg-alarm-soft px-4 py-3 text-sm">
      <p className="min-w-0 flex-1 basis-64">
        <strong className="font-semibold">{ERROR_TITLES[error.kind]}.</strong> {error.message}
      </p>
      {onRetry && <Button onClick={onRetry}>Try again</Button>}
    </div>
  );
}

/** What a query shows: its data, or why there are none. */
export function Answer<T>({
  query,
  what,
  children,
}: {
  query: { data: T | undefined; error: SourceError | undefined; reload: () => void };
  what: string;
  children: (data: T) => ReactNode;
}) {
  return (
    <>
      {query.error && (
        <div className="mb-3">
          <Failure error={query.error} onRetry={query.reload} />
        </div>
      )}
      {query.data !== undefined ? children(query.data) : !query.error && <Loading what={what} />}
    </>
  );
}

const FIELD = "min-h-8 rounded-md border border-strong bg-panel px-2 py-1 text-sm text-text";

export function Select({
  label,
  value,
  options,
  onChange,
  any = "any",
}: {
  label: string;
  value: string;
  options: readonly string[];
  onChange: (value: string) => void;
  any?: string;
}) {
  return (
    <label className="flex min-w-0 flex-col gap-0.5 text-xs text-quiet">
      {label}
      <select className={FIELD} value={value} onChange={(event) => onChange(event.target.value)}>
        <option value="">{any}</option>
        {options.map((option) => (
          <option key={option} value={option}>
            {words(option)}
          </option>
        ))}
      </select>
    </label>
  );
}

export function TextField({
  label,
  value,
  onChange,
  type = "text",
  placeholder,
  autoComplete = "off",
  className,
}: {
  label: string;
  value: string;
  onChange: (value: string) => void;
  type?: string;
  placeholder?: string;
  autoComplete?: string;
  className?: string;
}) {
  return (
    <label className={cx("flex min-w-0 flex-col gap-0.5 text-xs text-quiet", className)}>
      {label}
      <input
        className={cx(FIELD, "w-full placeholder:text-quiet")}
        type={type}
        value={value}
        placeholder={placeholder}
        autoComplete={autoComplete}
        spellCheck={false}
        onChange={(event) => onChange(event.target.value)}
      />
    </label>
  );
}

/** One of a few, all visible. */
export function Choice<T extends string>({
  label,
  value,
  options,
  onChange,
}: {
  label: string;
  value: T;
  options: readonly (readonly [T, string])[];
  onChange: (value: T) => void;
}) {
  return (
    <fieldset className="inline-flex flex-wrap gap-0.5 rounded-lg border border-line bg-sunken p-0.5">
      <legend className="sr-only">{label}</legend>
      {options.map(([option, text]) => (
        <button
          key={option}
          type="button"
          aria-pressed={option === value}
          onClick={() => onChange(option)}
          className="min-h-7 rounded-md px-2.5 text-sm text-quiet hover:text-text aria-pressed:bg-panel aria-pressed:font-medium aria-pressed:text-text aria-pressed:shadow-sm"
        >
          {text}
        </button>
      ))}
    </fieldset>
  );
}

export interface Column<T> {
  title: string;
  cell: (row: T) => ReactNode;
  isNumber?: boolean;
}

/** A table that scrolls by itself where it is too wide; reachable by keyboard. */
export function Table<T>({
  caption,
  columns,
  rows,
  rowKey,
}: {
  caption: string;
  columns: Column<T>[];
  rows: T[];
  rowKey: (row: T) => string;
}) {
  return (
    <div className="max-h-[28rem] overflow-auto rounded-lg border border-line" tabIndex={0} role="region" aria-label={caption}>
      <table className="tabular w-full border-collapse text-sm">
        <caption className="sr-only">{caption}</caption>
        <thead className="sticky top-0 bg-sunken text-left text-xs text-quiet">
          <tr>
            {columns.map((column) => (
              <th key={column.title} scope="col" className={cx("px-3 py-1.5 font-medium whitespace-nowrap", column.isNumber && "text-right")}>
                {column.title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={rowKey(row)} className="border-t border-line">
              {columns.map((column) => (
                <td key={column.title} className={cx("px-3 py-1.5 align-top", column.isNumber && "text-right whitespace-nowrap")}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Numbers({ children, label = "Numbers as a table" }: { children: ReactNode; label?: string }) {
  return (
    <details className="group mt-3">
      <summary className="inline-block rounded text-sm font-medium text-accent hover:underline">{label}</summary>
      <div className="mt-2">{children}</div>
    </details>
  );
}

export function PageTitle({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <header className="mb-4 flex flex-wrap items-end justify-between gap-x-6 gap-y-2">
      <h1 id="page-title" tabIndex={-1} className="text-2xl font-semibold tracking-tight outline-none">
        {title}
      </h1>
      {children}
    </header>
  );
}
