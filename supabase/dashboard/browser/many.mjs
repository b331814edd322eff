// With very many anomalies: node many.mjs BASE
import assert from "node:assert/strict";
import { availableParallelism, loadavg } from "node:os";
import { openBrowser, openPage } from "./chromium.mjs";

const [base] = process.argv.slice(2);
// A second where there is a core for it; where many share one, as much longer as they are.
const MOST_MS = 1000 * Math.max(loadavg()[0] / availableParallelism(), 1);
const ROWS = 500;
const VISITS = 3;

const browser = await openBrowser();

async function usefulAfterMs(path) {
  const { page, context } = await openPage(browser, base);
  await page.goto(path, { waitUntil: "commit" });
  await page.locator("a[data-anomaly]").first().waitFor({ timeout: 20_000 });
  const ms = await page.evaluate(() => performance.now());
  await context.close();
  return ms;
}

try {
  for (const path of ["/", "/incidents", "/incidents?text=timeout+7&severity=critical", "/live"]) {
    // The quickest of a few, each with an empty cache: what else runs on the machine is not the page's.
    const times = [];
    for (let visit = 0; visit < VISITS; visit += 1) times.push(await usefulAfterMs(path));
    const quickest = Math.min(...times);
    assert.ok(quickest < MOST_MS, `${path} shows anomalies after ${times} ms`);
    console.log(`ok ${path} shows anomalies after ${Math.round(quickest)} ms (at most ${Math.round(MOST_MS)})`);
  }

  const { page, wrong } = await openPage(browser, base, { viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(20_000);
  await page.goto("/incidents?group=none");
  const rows = page.locator("a[data-anomaly]");
  await rows.first().waitFor();
  while ((await rows.count()) < ROWS) {
    const before = await rows.count();
    await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
    await page.waitForFunction((count) => document.querySelectorAll("a[data-anomaly]").length > count, before);
  }
  const ids = await rows.evaluateAll((links) => links.map((link) => link.dataset.anomaly));
  assert.equal(new Set(ids).size, ids.length, "a row comes twice");
  console.log(`ok the list grows as one scrolls, to ${ids.length} and no row twice`);
  assert.deepEqual(wrong, []);
} finally {
  await browser.close();
}
