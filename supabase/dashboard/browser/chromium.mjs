// Debian's Chromium, as the tests and the screenshots drive it.
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

export const EXECUTABLE = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find(existsSync);

/** Starts a browser; whatever its pages ask of another host than `base` is refused and noted. */
export async function openBrowser() {
  return chromium.launch({ executablePath: EXECUTABLE, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
}

/** Returns a page, and what went wrong on it: requests to elsewhere, errors, violations of the security policy. */
export async function openPage(browser, base, options = {}) {
  const context = await browser.newContext({ baseURL: base, reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "blob:" && url.protocol !== "data:" && url.origin !== new URL(base).origin) {
      wrong.push(`asked ${url.origin}`);
    }
  });
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error") wrong.push(`console: ${message.text()}`);
  });
  return { page, context, wrong };
}
