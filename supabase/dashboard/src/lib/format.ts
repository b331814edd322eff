/** Numbers with units, and times in the viewer's zone. */

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function number(value: number, digits = 2): string {
  return Number.isFinite(value) ? plain.format(Number(value.toFixed(digits))) : "–";
}

/** 12345 becomes 12.3K; exact below ten thousand. */
export function count(value: number): string {
  return Math.abs(value) < 10_000 ? plain.format(value) : compact.format(value);
}

/** `many(2, "window")` is "2 windows". */
export function many(value: number, noun: string): string {
  const plural = noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : `${noun}s`;
  return `${count(value)} ${value === 1 ? noun : plural}`;
}

export function bytes(value: number): string {
  let amount = value;
  let unit = 0;
  while (amount >= 1024 && unit < BYTE_UNITS.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? amount : amount.toFixed(1)} ${BYTE_UNITS[unit]}`;
}

export function bits(value: number): string {
  return `${number(value, 1)} bits`;
}

/** Two significant digits: nobody can tell more of a p-value. */
export function probability(value: number): string {
  return value >= 0.001 ? String(Number(value.toPrecision(2))) : value.toExponential(1);
}

export function duration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${number(seconds, 1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}

export function secondsBetween(start: string, end: string): number {
  return (Date.parse(end) - Date.parse(start)) / 1000;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const dayOfYear = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** The time of today; of other days with the day. */
export function localTime(iso: string, now = new Date()): string {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return "–";
  if (at.toDateString() === now.toDateString()) return clock.format(at);
  const which = at.getFullYear() === now.getFullYear() ? day : dayOfYear;
  return `${which.format(at)}, ${clock.format(at)}`;
}

export function localDay(iso: string): string {
  return dayOfYear.format(new Date(iso));
}

export function utcTime(iso: string): string {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? "" : `${at.toISOString().replace("T", " ").replace("Z", "")} UTC`;
}

const WORDS: Record<string, string> = {
  gen_ai: "gen AI",
  warming_up: "warming up",
  false_alarm: "false alarm",
};

/** Words of the API as people say them. */
export function words(name: string): string {
  return WORDS[name] ?? name.replaceAll("_", " ");
}

export function streamName(stream: { signal: string; service: string; name: string }): string {
  return [words(stream.signal), stream.service || "(no service)", stream.name].filter(Boolean).join(" · ");
}
