import { expect, test } from "vitest";
import { calmBand, MEASURES } from "../src/charts/measures";
import { eventReader, type ServerEvent } from "../src/data/sse";
import type { Quoted, Window } from "../src/data/types";
import { bytes, count, duration, many, probability } from "../src/lib/format";
import { markTemplate, readRecords } from "../src/lib/records";

function read(...chunks: string[]): ServerEvent[] {
  const events: ServerEvent[] = [];
  const take = eventReader((event) => events.push(event));
  for (const chunk of chunks) take(chunk);
  return events;
}

test("events are whole however the bytes are cut", () => {
  const text = "id: 7\nevent: opened\ndata: {\ndata: }\n\n: still here\n\nid: 8\r\ndata:x\r\n\r\n";
  const whole = [
    { id: "7", event: "opened", data: "{\n}" },
    { id: "8", event: "message", data: "x" },
  ];
  expect(read(text)).toEqual(whole);
  expect(read(...text)).toEqual(whole);
});

test("a comment is no event", () => {
  expect(read(": nothing\n\n")).toEqual([]);
});

test("numbers have units", () => {
  expect([bytes(999), bytes(2048), bytes(5 * 1024 ** 3)]).toEqual(["999 B", "2.0 KiB", "5.0 GiB"]);
  expect([count(9999), count(12_345)]).toEqual(["9,999", "12.3K"]);
  expect([many(1, "window"), many(2, "anomaly")]).toEqual(["1 window", "2 anomalies"]);
  expect([duration(0.25), duration(75), duration(7260)]).toEqual(["250 ms", "1 min 15 s", "2 h 1 min"]);
  expect([probability(0.01754), probability(0.00001)]).toEqual(["0.018", "1.0e-5"]);
});

test("what a template fixes is marked, and nothing where it does not fit", () => {
  const marked = markTemplate("timeout after 35 ms", "timeout after <*> ms");
  expect(marked.filter((piece) => piece.isMarked).map((piece) => piece.text)).toEqual(["timeout after", "ms"]);
  expect(marked.map((piece) => piece.text).join("")).toBe("timeout after 35 ms");
  expect(markTemplate("all is well", "timeout after <*> ms")).toEqual([{ text: "all is well", isMarked: false }]);
});

test("quoted telemetry of every signal is read, and no more than asked for", () => {
  const scoped = (resources: string, scopes: string, content: object) => ({ [resources]: [{ [scopes]: [content] }] });
  const log = { timeUnixNano: "1700000000000000000", severityText: "ERROR", body: { stringValue: "no" }, attributes: [{ key: "a", value: { intValue: "1" } }] };
  const quoted: Quoted[] = [
    { signal: "logs", state: "withheld", items: 2, request: scoped("resourceLogs", "scopeLogs", { logRecords: [log, log] }) },
    { signal: "traces", state: "withheld", items: 1, request: scoped("resourceSpans", "scopeSpans", { spans: [{ name: "GET /", startTimeUnixNano: "0", endTimeUnixNano: "1500000", status: { code: 2 } }] }) },
    { signal: "metrics", state: "withheld", items: 1, request: scoped("resourceMetrics", "scopeMetrics", { metrics: [{ name: "depth", unit: "1", gauge: { dataPoints: [{ asDouble: 3.5 }] } }] }) },
  ];
  const found = readRecords(quoted, 10);
  expect(found.map((record) => [record.label, record.text])).toEqual([["ERROR", "no"], ["ERROR", "no"], ["ERROR", "GET / – 1.50 ms"], ["1", "depth = 3.5"]]);
  expect(found[0]?.attributes).toEqual([["a", "1"]]);
  expect(readRecords(quoted, 1)).toHaveLength(1);
  expect(readRecords([{ signal: "logs", state: "withheld", items: 1, request: null }], 5)).toEqual([]);
});

test("the calm band leaves out what is not calm, and is not told of few windows", () => {
  const window = (score: number, outcome: Window["outcome"]) => ({ score, outcome }) as Window;
  const calm = Array.from({ length: 21 }, (_, index) => window(index / 100, "clean"));
  expect(calmBand([...calm, window(1, "anomalous")], MEASURES.score)).toEqual({ low: 0.01, high: 0.19, count: 21 });
  expect(calmBand(calm.slice(0, 5), MEASURES.score)).toBeNull();
});
