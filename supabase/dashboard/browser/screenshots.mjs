// Takes a picture of each page in both themes, and of some on a phone: node screenshots.mjs BASE DIRECTORY
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { openBrowser, openPage } from "./chromium.mjs";

const [base, directory] = process.argv.slice(2);
const VIEWS = [
  { name: "wide", viewport: { width: 1440, height: 900 } },
  { name: "phone", viewport: { width: 390, height: 844 }, isMobile: true, only: ["overview", "incidents", "anomaly"] },
];

async function json(path) {
  return (await fetch(base + path)).json();
}

const { anomalies } = await json("/v1/anomalies?limit=100");
const shown = anomalies.find((anomaly) => anomaly.stream.signal === "logs") ?? anomalies[0];
const pages = {
  overview: "/",
  incidents: "/incidents",
  anomaly: `/anomalies/${shown.id}`,
  incident: `/incidents/${shown.incident_id}`,
  streams: "/streams",
  stream: `/streams/${encodeURIComponent(shown.stream.id)}`,
  live: "/live",
  usage: "/usage",
  audit: "/audit",
  settings: "/settings",
};

mkdirSync(directory, { recursive: true });
const browser = await openBrowser();
for (const { name: view, only, ...options } of VIEWS) {
  for (const theme of ["light", "dark"]) {
    const { page, context, wrong } = await openPage(browser, base, { ...options, colorScheme: theme });
    for (const [name, path] of Object.entries(pages)) {
      if (only && !only.includes(name)) continue;
      await page.goto(path);
      // Twice what a refresh takes: rates need two readings.
      await page.waitForTimeout(name === "overview" ? 6500 : 700);
      const file = `${name}-${view === "wide" ? "" : `${view}-`}${theme}.png`;
      await page.screenshot({ path: join(directory, file), fullPage: true });
    }
    if (wrong.length) console.error(view, theme, wrong);
    await context.close();
  }
}
await browser.close();
