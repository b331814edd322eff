import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Window } from "../data/types";
import type { Band, Measure } from "./measures";

/** uPlot: the only part that is not in the first bundle. */

const HEIGHT_PX = 260;

export interface WindowPlotProps {
  /** Oldest first. */
  windows: Window[];
  measure: Measure;
  band: Band | null;
  /** Start of the window that raised the alarm. */
  focus?: string | undefined;
  onPoint: (index: number | null) => void;
  label: string;
}

export default function WindowPlot({ windows, measure, band, focus, onPoint, label }: WindowPlotProps) {
  const host = useRef<HTMLDivElement>(null);
  const tell = useRef(onPoint);
  tell.current = onPoint;

  useEffect(() => {
    const element = host.current;
    if (!element) return;
    let plot: uPlot | undefined;
    const draw = () => {
      plot?.destroy();
      plot = new uPlot(options(element.clientWidth, windows, measure, band, focus, (index) => tell.current(index)), data(windows, measure), element);
    };
    draw();
    const resized = new ResizeObserver(() => plot?.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    resized.observe(element);
    window.addEventListener("themechange", draw);
    return () => {
      window.removeEventListener("themechange", draw);
      resized.disconnect();
      plot?.destroy();
    };
  }, [windows, measure, band, focus]);

  return <div ref={host} role="img" aria-label={label} className="h-[260px] w-full" />;
}

function data(windows: Window[], measure: Measure): uPlot.AlignedData {
  const columns: uPlot.AlignedData = [
    windows.map((window) => Date.parse(window.end) / 1000),
    windows.map(measure.value),
  ];
  if (measure.baseline) columns.push(windows.map(measure.baseline));
  return columns;
}

function options(
  width: number,
  windows: Window[],
  measure: Measure,
  band: Band | null,
  focus: string | undefined,
  onPoint: (index: number | null) => void,
): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const color = (name: string) => style.getPropertyValue(name).trim();
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const axis = { stroke: color("--quiet"), font, grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 } };
  const marks = { alarm: color("--alarm"), medium: color("--medium"), accent: color("--accent"), panel: color("--panel"), quiet: color("--quiet") };
  return {
    width,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { y: false, points: { size: 9 }, drag: { x: false, y: false } },
    scales: { y: { range: (_, low, high) => scale(measure, low, high) } },
    axes: [
      { ...axis, space: 90, size: 32, values: (_, splits) => splits.map((at) => moment(at, splits)) },
      { ...axis, size: 52, ...(measure.unit ? { label: measure.unit, labelFont: font, labelSize: 18 } : {}) },
    ],
    series: [
      {},
      { stroke: marks.accent, width: 1.75, points: { show: false } },
      ...(measure.baseline ? [{ stroke: marks.quiet, width: 1.25, dash: [4, 4], points: { show: false } }] : []),
    ],
    hooks: {
      setCursor: [(plot) => onPoint(plot.cursor.idx ?? null)],
      drawClear: [
        (plot) => {
          const { ctx, bbox } = plot;
          const y = (value: number) => Math.min(Math.max(plot.valToPos(value, "y", true), bbox.top), bbox.top + bbox.height);
          ctx.save();
          if (band) {
            ctx.fillStyle = color("--band");
            ctx.fillRect(bbox.left, y(band.high), bbox.width, Math.max(y(band.low) - y(band.high), 1));
          }
          if (measure.bar) {
            ctx.strokeStyle = marks.alarm;
            ctx.lineWidth = 1.25 * devicePixelRatio;
            ctx.setLineDash([6 * devicePixelRatio, 5 * devicePixelRatio]);
            ctx.beginPath();
            ctx.moveTo(bbox.left, y(measure.bar.value));
            ctx.lineTo(bbox.left + bbox.width, y(measure.bar.value));
            ctx.stroke();
            ctx.setLineDash([]);
            ctx.fillStyle = marks.alarm;
            ctx.font = `${12 * devicePixelRatio}px ${getComputedStyle(document.body).fontFamily}`;
            ctx.fillText(measure.bar.text, bbox.left + 6 * devicePixelRatio, y(measure.bar.value) - 5 * devicePixelRatio);
          }
          ctx.restore();
        },
      ],
      draw: [
        (plot) => {
          const { ctx } = plot;
          const size = 5 * devicePixelRatio;
          ctx.save();
          for (const [index, window] of windows.entries()) {
            const at = Date.parse(window.end) / 1000;
            const x = plot.valToPos(at, "x", true);
            const y = plot.valToPos(measure.value(windows[index] ?? window), "y", true);
            if (window.start === focus) {
              ctx.strokeStyle = marks.alarm;
              ctx.lineWidth = devicePixelRatio;
              ctx.beginPath();
              ctx.moveTo(x, plot.bbox.top);
              ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
              ctx.stroke();
            }
            mark(ctx, window.outcome, x, y, size, marks);
          }
          ctx.restore();
        },
      ],
    },
  };
}

const second = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minute = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** The clock as fine as the marks of the axis need it; the day where one begins. */
function moment(at: number, splits: number[]): string {
  const date = new Date(at * 1000);
  const step = (splits[1] ?? at) - (splits[0] ?? at);
  if (step >= 86_400) return day.format(date);
  if (step < 60) return second.format(date);
  return date.getHours() === 0 && date.getMinutes() === 0 ? day.format(date) : minute.format(date);
}

function scale(measure: Measure, low: number, high: number): [number, number] {
  if (measure.range) return measure.range;
  const least = Math.min(0, low);
  const most = Math.max(high, measure.bar?.value ?? Number.NEGATIVE_INFINITY);
  return [least, most > least ? most * 1.08 : least + 1];
}

/** Clean: a dot. Flagged: a triangle. Anomalous: a diamond. Warming up: a ring. */
function mark(
  ctx: CanvasRenderingContext2D,
  outcome: Window["outcome"],
  x: number,
  y: number,
  size: number,
  colors: { alarm: string; medium: string; accent: string; panel: string; quiet: string },
) {
  ctx.beginPath();
  ctx.lineWidth = 1.5 * devicePixelRatio;
  if (outcome === "anomalous") {
    ctx.moveTo(x, y - size * 1.3);
    ctx.lineTo(x + size, y);
    ctx.lineTo(x, y + size * 1.3);
    ctx.lineTo(x - size, y);
    ctx.closePath();
    ctx.fillStyle = colors.alarm;
    ctx.strokeStyle = colors.panel;
  } else if (outcome === "flagged") {
    ctx.moveTo(x, y - size);
    ctx.lineTo(x + size, y + size * 0.8);
    ctx.lineTo(x - size, y + size * 0.8);
    ctx.closePath();
    ctx.fillStyle = colors.medium;
    ctx.strokeStyle = colors.panel;
  } else if (outcome === "warming_up") {
    ctx.arc(x, y, size * 0.5, 0, 2 * Math.PI);
    ctx.fillStyle = colors.panel;
    ctx.strokeStyle = colors.quiet;
  } else {
    ctx.arc(x, y, size * 0.5, 0, 2 * Math.PI);
    ctx.fillStyle = colors.accent;
    ctx.strokeStyle = colors.accent;
  }
  ctx.fill();
  ctx.stroke();
}
