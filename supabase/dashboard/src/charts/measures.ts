import type { Window } from "../data/types";
import { number, probability } from "../lib/format";

/** What can be drawn of a stream's windows. */
export interface Measure {
  title: string;
  unit: string;
  value: (window: Window) => number;
  /** The same of the baseline, where there is one. */
  baseline?: (window: Window) => number;
  /** A line to compare with. */
  bar?: { value: number; text: string };
  /** Fixed ends of the scale. */
  range?: [number, number];
  /** What a reader should know. */
  hint: string;
  show: (value: number) => string;
}

export const MEASURES = {
  score: {
    title: "Score",
    unit: "",
    value: (window) => window.score,
    bar: { value: 0.5, text: "immediate alarm" },
    range: [0, 1],
    hint: "How odd each window is, 0 to 1. From 0.5 on it alarms at once; less can add up over several windows.",
    show: (value) => number(value, 3),
  },
  bits: {
    title: "Surprise",
    unit: "bits",
    value: (window) => window.bits,
    hint: "Bits that the window would save with a model of its own. Ten bits more are a thousand times rarer.",
    show: (value) => number(value, 1),
  },
  rarity: {
    title: "Rarity",
    unit: "−log₁₀ p",
    value: (window) => -Math.log10(Math.max(window.p_value, 1e-12)),
    hint: "How rare such a window is among calm ones: 1 is one in ten, 2 one in a hundred.",
    show: (value) => `${number(value, 2)} (p ≤ ${probability(10 ** -value)})`,
  },
  ncd: {
    title: "Distance",
    unit: "NCD",
    value: (window) => window.ncd,
    hint: "Normalised compression distance of window and baseline: 0 is the same, 1 has nothing in common.",
    show: (value) => number(value, 3),
  },
  compression: {
    title: "Compression",
    unit: "ratio",
    value: (window) => window.compression_ratio,
    baseline: (window) => window.baseline_compression_ratio,
    hint: "Raw bytes over compressed bytes. A window far from its baseline is told in other words than before.",
    show: (value) => `${number(value, 2)}×`,
  },
  entropy: {
    title: "Entropy",
    unit: "bits a record",
    value: (window) => window.entropy_bits,
    baseline: (window) => window.baseline_entropy_bits,
    hint: "How varied its symbols are. It falls when one thing repeats, and rises when new things appear.",
    show: (value) => number(value, 2),
  },
} satisfies Record<string, Measure>;

export type MeasureName = keyof typeof MEASURES;

export interface Band {
  low: number;
  high: number;
  count: number;
}

/** Returns the middle nine tenths of the calm windows; null if they are too few to say. */
export function calmBand(windows: Window[], measure: Measure): Band | null {
  const calm = windows
    .filter((window) => window.outcome === "clean")
    .map(measure.value)
    .sort((first, second) => first - second);
  if (calm.length < 10) return null;
  const at = (share: number) => calm[Math.round(share * (calm.length - 1))] ?? Number.NaN;
  return { low: at(0.05), high: at(0.95), count: calm.length };
}
