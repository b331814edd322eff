import type { Window } from "../data/types";
import { number } from "../lib/format";

const WIDTH = 240;
const HEIGHT = 56;
/** 0.5 is the bar of an immediate alarm. */
const BAR = 0.5;

/** The scores of a stream's windows, oldest to the left; odd windows are diamonds above the line. */
export function Sparkline({ windows, label }: { windows: Window[]; label: string }) {
  const shown = [...windows].reverse();
  const x = (index: number) => 4 + (index / Math.max(shown.length - 1, 1)) * (WIDTH - 8);
  const y = (score: number) => HEIGHT - 5 - score * (HEIGHT - 10);
  const line = shown.map((window, index) => `${index ? "L" : "M"}${x(index).toFixed(1)} ${y(window.score).toFixed(1)}`).join("");
  const odd = shown.filter((window) => window.outcome === "anomalous").length;
  const last = shown.at(-1);
  const said = last
    ? `${label}: ${shown.length} windows, last score ${number(last.score)}, ${odd} anomalous`
    : `${label}: no windows`;
  return (
    <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" className="h-14 w-full" role="img" aria-label={said}>
      <line x1="0" x2={WIDTH} y1={y(BAR)} y2={y(BAR)} className="stroke-strong" strokeWidth="1" strokeDasharray="2 4" vectorEffect="non-scaling-stroke" />
      {shown.length > 1 && (
        <path d={`${line}L${x(shown.length - 1)} ${HEIGHT}L${x(0)} ${HEIGHT}Z`} className="fill-band" />
      )}
      <path d={line} fill="none" className="stroke-accent" strokeWidth="1.5" strokeLinejoin="round" vectorEffect="non-scaling-stroke" />
      {shown.map(
        (window, index) =>
          window.outcome === "anomalous" && (
            <path
              key={window.start}
              d={`M${x(index)} ${y(window.score) - 5}l3.4 5-3.4 5-3.4-5Z`}
              className="fill-alarm stroke-panel"
              strokeWidth="1"
            />
          ),
      )}
    </svg>
  );
}
