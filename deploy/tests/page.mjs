// The dashboard's page in a browser: one line of JSON each time what it says of the features changes, until it is ended: node page.mjs ADDRESS
//
// Beside what a reader sees: what the page complains of, and whom else it asks.

import { launch } from "../../ui/tests/harness.mjs";

const address = process.argv[2];
const browser = await launch();
const page = await browser.newPage({ colorScheme: "light", reducedMotion: "reduce" });
const complaints = [];
page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("request", (request) => {
  if (!request.url().startsWith(address)) complaints.push(`request to ${request.url()}`);
});
await page.goto(address);

/** Of each row its word, and the colour of the shape before it. */
const read = () =>
  Object.fromEntries(
    [...document.querySelectorAll("table.features tbody tr")].map((row) => {
      const verdict = row.querySelector(".verdict");
      const colour = getComputedStyle(verdict.querySelector(".mark")).color;
      return [row.querySelector("th").innerText, { word: verdict.innerText.trim(), colour: colour.match(/\d+/g).map(Number) }];
    }),
  );

let isEnding = false;
process.once("SIGTERM", () => (isEnding = true));
for (let told = ""; !isEnding; await new Promise((resolve) => setTimeout(resolve, 100))) {
  // Playwright closes the browser by the same signal.
  const features = await page.evaluate(read).catch((error) => {
    if (!isEnding) throw error;
  });
  const now = JSON.stringify({ features, complaints });
  if (!isEnding && now !== told) console.log(now);
  told = now;
}
