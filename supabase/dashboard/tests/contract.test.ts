/** The contract of a source, held against both homes. */

import { beforeEach, describe, expect, test } from "vitest";
import type { SourceError } from "../src/data/source";
import { type Home, KEY, sidecar, supabase } from "./fakes";

describe.each([
  ["sidecar", sidecar],
  ["Supabase", supabase],
] as const)("%s", (_, make) => {
  let home: Home;
  beforeEach(async () => {
    home = make();
  });
  const signedIn = async () => {
    await home.signIn();
    return home.source;
  };
  const kindOf = (promise: Promise<unknown>) => promise.then(() => "fine", (error: SourceError) => error.kind);

  test("nothing is shown to who has not signed in", async () => {
    expect(await kindOf(home.source.anomalies({}, 10))).toBe("unauthenticated");
    expect(home.source.isSignedIn).toBe(false);
  });

  test("wrong credentials are refused, and are not kept", async () => {
    expect(await kindOf(home.source.signIn({ name: "a@b", secret: "wrong" }))).toBe("unauthenticated");
    expect(home.source.isSignedIn).toBe(false);
    expect(await kindOf(home.source.anomalies({}, 10))).toBe("unauthenticated");
  });

  test("no address holds what was signed in with", async () => {
    const source = await signedIn();
    await source.anomalies({ text: "payment" }, 2);
    expect(home.asked.map(({ url }) => url.href).filter((href) => href.includes(KEY))).toEqual([]);
  });

  test("pages are newest first, and neither repeat nor leave out what has the same time", async () => {
    const source = await signedIn();
    const ids: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await source.anomalies({}, 2, cursor);
      expect(page.rows.length).toBeLessThanOrEqual(2);
      ids.push(...page.rows.map((row) => row.id));
      cursor = page.next ?? undefined;
    } while (cursor);
    expect(ids.map((id) => id[0])).toEqual(["0", "1", "2", "4", "3"]);
    expect(ids.every((id) => id.length === 32)).toBe(true);
  });

  test("filters narrow", async () => {
    const source = await signedIn();
    expect((await source.anomalies({ state: "resolved" }, 10)).rows.map((row) => row.state)).toEqual(["resolved", "resolved", "resolved"]);
    expect((await source.anomalies({ text: "payment" }, 10)).rows).toHaveLength(2);
    expect((await source.anomalies({ text: "payment", state: "open" }, 10)).rows).toHaveLength(1);
  });

  test("an anomaly has its evidence, strongest first", async () => {
    const source = await signedIn();
    const found = await source.anomaly("0".repeat(32));
    expect(found.evidence).toEqual([
      { column: "template", kind: "pattern", bits: 20, text: "a new template", observed: "35", expected: "0" },
      { column: "severity", kind: "pattern", bits: 12, text: "a new severity", observed: "35", expected: "0" },
    ]);
    expect([found.resolution, found.incident_id, found.feedback, found.withheld_items]).toEqual([null, null, null, 0]);
    expect((await source.anomaly("2".repeat(32))).resolution).toBe("recovered");
  });

  test("an anomaly that does not exist is missing", async () => {
    const source = await signedIn();
    expect(await kindOf(source.anomaly("f".repeat(32)))).toBe("missing");
  });

  test("what people do stands in the history, with their notes, newest first", async () => {
    const source = await signedIn();
    const id = "1".repeat(32);
    await source.setStatus(id, "acknowledged", "on it");
    await source.giveFeedback(id, "false_alarm", "a release");
    const found = await source.anomaly(id);
    expect([found.status, found.feedback]).toEqual(["acknowledged", "false_alarm"]);
    expect(found.history.map((entry) => [entry.action, entry.detail])).toEqual([
      ["feedback_given", { verdict: "false_alarm", note: "a release" }],
      ["status_changed", { to: "acknowledged", note: "on it" }],
    ]);
    await source.giveFeedback(id, "withdrawn", "");
    expect((await source.anomaly(id)).feedback).toBeNull();
  });

  test("usage is summed by signal", async () => {
    const source = await signedIn();
    const rows = await source.usage("total");
    expect(Object.fromEntries(rows.map((row) => [row.signal, row.items]))).toEqual({ logs: 15, traces: 7 });
    expect(await source.usage("hour")).toHaveLength(3);
  });

  test("a home that does not answer is offline, not broken", async () => {
    const source = await signedIn();
    home.cut();
    expect(await kindOf(source.anomalies({}, 10))).toBe("offline");
    expect(await kindOf(source.setStatus("0".repeat(32), "new", ""))).toBe("offline");
  });
});
