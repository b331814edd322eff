// With API keys: one signs in, and may do what the key may: node sign_in.mjs BASE VIEWER_KEY OPERATOR_KEY
import assert from "node:assert/strict";
import { violationsOn } from "./axe.mjs";
import { openBrowser, openPage } from "./chromium.mjs";

const [base, viewer, operator] = process.argv.slice(2);
const browser = await openBrowser();

async function signIn(page, key) {
  await page.getByLabel("API key").fill(key);
  await page.getByRole("button", { name: "Sign in" }).click();
}

try {
  const { page, wrong } = await openPage(browser, base, { bypassCSP: true });
  page.setDefaultTimeout(20_000);
  await page.goto("/");
  await page.getByLabel("API key").waitFor();
  assert.deepEqual(await violationsOn(page), []);
  console.log("ok one signs in first; axe finds nothing");

  await signIn(page, "dl_000000000000_wrong");
  await page.getByRole("alert").waitFor();
  console.log("ok a wrong key is refused");

  await signIn(page, viewer);
  await page.getByRole("link", { name: /payment gateway timeout/ }).first().click();
  await page.getByRole("button", { name: "Acknowledge" }).click();
  await page.getByRole("alert").filter({ hasText: /viewer may not act/ }).waitFor();
  console.log("ok a viewer sees everything, and is told what they may not do");

  const kept = await page.evaluate(() => [Object.keys(localStorage), Object.keys(sessionStorage), document.cookie, location.href]);
  assert.deepEqual(kept.slice(0, 3), [[], [], ""]);
  assert.ok(!kept[3].includes("dl_"));
  await page.reload();
  await signIn(page, operator);
  console.log("ok the key is kept nowhere: after a reload one signs in again");

  await page.getByRole("button", { name: "Acknowledge" }).click();
  await page.getByText("Status: acknowledged.").waitFor();
  await page.getByRole("region", { name: "History" }).getByText(`Key ${operator.slice(3, 15)}`).waitFor();
  console.log("ok an operator acts, and the history says which key it was");

  await page.getByRole("link", { name: "Settings" }).click();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("API key").waitFor();
  console.log("ok signing out forgets the key");

  // The browser notes each 401 and 403.
  assert.deepEqual(wrong.filter((text) => !/40[13]/.test(text)), []);
} finally {
  await browser.close();
}
