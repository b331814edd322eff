// What a person does with the dashboard, in a real browser against a real sidecar: node walk.mjs BASE
// Prints one line for each thing that holds; the first that does not ends it with status 1.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { violationsOn } from "./axe.mjs";
import { openBrowser, openPage } from "./chromium.mjs";

const [base] = process.argv.slice(2);
const PATIENCE_MS = 20_000;

async function api(path) {
  const answer = await fetch(base + path);
  assert.equal(answer.status, 200, `${path} answers ${answer.status}`);
  return answer.json();
}

async function until(what, condition) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await condition();
    if (found) return found;
    assert.ok(Date.now() < end, `waited ${PATIENCE_MS} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function holds(claim, check) {
  await check();
  console.log(`ok ${claim}`);
}

const { anomalies } = await api("/v1/anomalies?limit=100");
const odd = anomalies.find((anomaly) => anomaly.stream.signal === "logs");
const pages = {
  overview: "/",
  incidents: "/incidents",
  anomaly: `/anomalies/${odd.id}`,
  incident: `/incidents/${odd.incident_id}`,
  streams: "/streams",
  stream: `/streams/${encodeURIComponent(odd.stream.id)}`,
  live: "/live",
  usage: "/usage",
  audit: "/audit",
  settings: "/settings",
};

const browser = await openBrowser();
try {
  const { page, wrong } = await openPage(browser, base, { viewport: { width: 1280, height: 900 }, acceptDownloads: true });
  page.setDefaultTimeout(PATIENCE_MS);

  await holds("the overview tells at once what goes on", async () => {
    await page.goto("/");
    await page.getByRole("heading", { name: "Going on now" }).waitFor();
    await page.getByRole("link", { name: /payment gateway timeout/ }).first().waitFor();
    assert.match(await page.getByRole("img", { name: /logs · checkout/ }).getAttribute("aria-label"), /\d+ windows, .* anomalous/);
  });

  await holds("the incident is found by searching, and the address can be shared", async () => {
    await page.getByRole("link", { name: "Incidents", exact: true }).click();
    await page.getByLabel("Search explanations and templates").fill("PAYMENT gateway");
    await page.waitForURL(/text=PAYMENT/);
    const shared = page.url();
    await page.goto("/");
    await page.goto(shared);
    const list = page.getByRole("list", { name: "Anomalies" });
    await list.getByRole("link").first().waitFor();
    assert.equal(await list.locator("a[data-anomaly]").count(), 1);
    assert.equal(await page.getByLabel("Search explanations and templates").inputValue(), "PAYMENT gateway");
  });

  await holds("what fits nothing says so, and filters can be cleared", async () => {
    await page.goto("/incidents?text=no+such+thing&severity=low");
    await page.getByText("No anomaly fits").waitFor();
    await page.getByRole("button", { name: "Clear filters" }).click();
    await page.locator(`a[data-anomaly="${odd.id}"]`).waitFor();
    assert.equal(new URL(page.url()).search, "");
  });

  await holds("the list is walked by keyboard alone", async () => {
    await page.locator("a[data-anomaly]").first().focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("x");
    await page.getByText("1 anomaly selected").waitFor();
    await page.keyboard.press("x");
    await page.getByText("1 anomaly selected").waitFor({ state: "detached" });
    await page.locator(`a[data-anomaly="${odd.id}"]`).focus();
    await page.keyboard.press("Enter");
    await page.waitForURL(`**/anomalies/${odd.id}`);
  });

  await holds("the explanation is read: what, where, how odd, and why", async () => {
    await page.getByRole("heading", { level: 1, name: /payment gateway timeout/ }).waitFor();
    await page.getByText("Expected", { exact: true }).first().waitFor();
    await page.getByRole("img", { name: /Score of \d+ windows of logs · checkout/ }).waitFor();
    assert.ok((await page.locator("mark").count()) > 0, "no record has its surprising words marked");
    assert.match(await page.locator("time").first().getAttribute("title"), /UTC$/);
  });

  await holds("every chart has its numbers as a table", async () => {
    const timeline = page.getByRole("region", { name: "Timeline" });
    await timeline.getByText("Numbers as a table").click();
    assert.ok((await timeline.getByRole("row").count()) > 10);
  });

  await holds("it is acknowledged with a note, and the history says so", async () => {
    await page.getByLabel(/Note, kept in the history/).fill("on it");
    await page.getByRole("button", { name: "Acknowledge" }).click();
    await page.getByText("Status: acknowledged.").waitFor();
    await page.getByRole("region", { name: "History" }).getByText("on it").waitFor();
    assert.equal((await api(`/v1/anomalies/${odd.id}`)).status, "acknowledged");
  });

  await holds("another window hears of it without a reload", async () => {
    const other = await openPage(browser, base);
    await other.page.goto("/incidents");
    await other.page.locator(`a[data-anomaly="${odd.id}"]`).getByText("acknowledged").waitFor();
    await page.getByRole("button", { name: "Investigate" }).click();
    await other.page.locator(`a[data-anomaly="${odd.id}"]`).getByText("investigating").waitFor();
    assert.deepEqual(other.wrong, []);
    await other.context.close();
  });

  await holds("it is marked as a false alarm, and that can be taken back", async () => {
    await page.getByRole("button", { name: "False alarm" }).click();
    await page.getByText("Taken: this pattern becomes part of the baseline.").waitFor();
    await until("the feedback", async () => (await api(`/v1/anomalies/${odd.id}`)).feedback === "false_alarm");
    await page.getByRole("button", { name: "Take back what was said" }).click();
    await until("the withdrawal", async () => (await api(`/v1/anomalies/${odd.id}`)).feedback === null);
  });

  await holds("its evidence is saved, as a bundle and on paper", async () => {
    for (const [name, start] of [["Bundle", "PK"], ["PDF", "%PDF"]]) {
      const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name, exact: true }).click()]);
      assert.ok(readFileSync(await download.path(), "latin1").startsWith(start), `${name} is none`);
    }
  });

  await holds("what was withheld is released, after a question deletes nothing", async () => {
    const before = (await api(`/v1/anomalies/${odd.id}`)).withheld_items;
    assert.ok(before > 0, "nothing is withheld");
    await page.getByRole("button", { name: "Delete…" }).click();
    await page.getByRole("button", { name: "Keep" }).click();
    assert.equal((await api(`/v1/anomalies/${odd.id}`)).withheld_items, before);
    await page.getByRole("button", { name: "Release" }).click();
    await page.getByText(/items? released\./).waitFor();
    await until("the release", async () => (await api(`/v1/anomalies/${odd.id}`)).withheld_items === 0);
  });

  await holds("a pattern is suppressed, listed, and heard again", async () => {
    await page.getByRole("button", { name: "1 hour" }).click();
    await page.getByText("Suppressed. The settings list it").waitFor();
    await page.goto("/settings");
    await page.getByRole("cell", { name: /payment gateway timeout/ }).waitFor();
    await page.getByRole("button", { name: "End now" }).click();
    await page.getByText("Nothing is suppressed").waitFor();
  });

  await holds("another sensitivity is tried on stored windows before it is put in force", async () => {
    await page.goto(pages.stream);
    const panel = page.getByRole("region", { name: "Sensitivity" });
    await panel.getByText(/In force:/).waitFor();
    await panel.getByLabel("Flag windows with a p-value up to").selectOption("0.4");
    await panel.getByText(/would have fired/).waitFor();
    await panel.getByRole("button", { name: "Put in force" }).click();
    await panel.getByText("it holds from the stream's next window on").waitFor();
    await panel.getByRole("button", { name: "As configured" }).click();
  });

  await holds("usage is what was sent, and rises with it", async () => {
    await page.goto("/usage");
    const figure = page.locator("dl div").filter({ hasText: "Log records" }).locator("dd").first();
    const shown = async () => Number((await figure.textContent()).replace(/[^\d.]/g, ""));
    await figure.waitFor();
    const before = await shown();
    const total = (await api("/v1/usage?by=total")).usage.find((row) => row.signal === "logs").items;
    assert.equal(before, total);
    const events = Array.from({ length: 5 }, (_, index) => ({ event_type: "log", timestamp: new Date().toISOString(), data: { message: `usage rises ${index}` } }));
    const sent = await fetch(`${base}/v1/events`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(events) });
    assert.ok(sent.ok, `/v1/events answers ${sent.status}: ${await sent.text()}`);
    await until("usage to rise", async () => (await shown()) === before + 5);
  });

  await holds("the audit trail names everything that was done", async () => {
    await page.goto("/audit");
    for (const done of ["set the status to acknowledged", "said: false alarm", "released"]) {
      await page.getByText(new RegExp(done)).first().waitFor();
    }
  });

  await holds("pages say so when nobody answers, and come back by themselves", async () => {
    await page.goto("/streams");
    await page.getByRole("table").waitFor();
    const expected = wrong.length;
    await page.context().setOffline(true);
    await page.getByRole("alert").filter({ hasText: "Not reachable" }).waitFor();
    assert.ok(await page.getByRole("table").isVisible(), "what was shown is gone");
    await page.context().setOffline(false);
    await page.getByRole("alert").waitFor({ state: "detached" });
    wrong.length = expected; // The browser itself noted that the network was gone.
  });

  await holds("what does not exist says so", async () => {
    await page.goto(`/anomalies/${"f".repeat(32)}`);
    await page.getByText("Not found.").waitFor();
    const last = wrong.pop(); // The browser notes the 404.
    assert.match(last ?? "", /404/);
  });

  await holds("nothing is kept in the browser but the choice of colours", async () => {
    await page.goto("/settings");
    await page.getByRole("button", { name: "Dark" }).click();
    assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
    const kept = await page.evaluate(() => [Object.keys(localStorage), Object.keys(sessionStorage), document.cookie]);
    assert.deepEqual(kept, [["driftlock-theme"], [], ""]);
    await page.getByRole("button", { name: "As the system" }).click();
  });

  await holds("the first page paints within a second", async () => {
    await page.goto("/");
    await page.getByRole("link", { name: /payment gateway timeout/ }).first().waitFor();
    const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
    assert.ok(paint < 1000, `first contentful paint after ${paint} ms`);
    console.log(`   first contentful paint after ${Math.round(paint)} ms`);
  });

  assert.deepEqual(wrong, [], "requests to elsewhere, errors or violations of the security policy");
  console.log("ok no request left the host, nothing broke the security policy");

  const violated = [];
  for (const theme of ["light", "dark"]) {
    for (const [view, options] of [["wide", { viewport: { width: 1280, height: 900 } }], ["phone", { viewport: { width: 360, height: 740 } }]]) {
      const looked = await openPage(browser, base, { ...options, colorScheme: theme, bypassCSP: true });
      for (const [name, path] of Object.entries(pages)) {
        await looked.page.goto(path);
        await looked.page.getByRole("heading", { level: 1 }).waitFor();
        await looked.page.waitForLoadState("load");
        await until("what it shows", async () => (await looked.page.getByRole("status", { name: /^Loading/ }).count()) === 0);
        for (const summary of await looked.page.locator("summary").all()) await summary.click();
        const width = await looked.page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        if (width[0] > width[1]) violated.push(`${name} is wider than a ${view} screen: ${width}`);
        const told = await violationsOn(looked.page);
        violated.push(...told.map((text) => `${name}, ${theme}, ${view}: ${text}`));
      }
      await looked.context.close();
      assert.deepEqual(violated, []);
      console.log(`ok axe finds nothing on ${Object.keys(pages).length} pages, ${theme}, ${view}`);
    }
  }
} finally {
  await browser.close();
}
