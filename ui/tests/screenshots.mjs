// The pictures in README.md, and with ALL=folder one of every view in every form, to look at.

import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { control, launch } from "./harness.mjs";

const IMAGES = fileURLToPath(new URL("../../docs/images/", import.meta.url));
const DESKTOP = { width: 1280, height: 960 };
const PHONE = { width: 390, height: 844 };
/** Where, and what is there when it is drawn. */
const PLACES = {
  overview: ["#/", ".features tbody tr"],
  feature: ["#/m/churn/f/income", ".bins svg"],
  incidents: ["#/m/churn/incidents", ".incidents tbody tr"],
  stream: ["#/m/churn/stream", "tbody tr"],
};

const servers = control();
const browser = await launch();
const { url } = await servers.ask({ do: "start", features: 14, partitions: 6, checks: 240, monitors: 3, scene: true });
while (!(await fetch(`${url}health/ready`)).ok) await new Promise((resolve) => setTimeout(resolve, 50));

async function shoot(path, [place, drawn], { phone = false, dark = false, whole = false, height = DESKTOP.height } = {}) {
  const context = await browser.newContext({
    viewport: phone ? PHONE : { ...DESKTOP, height },
    deviceScaleFactor: phone ? 2 : 1.5,
    colorScheme: dark ? "dark" : "light",
    reducedMotion: "reduce",
    locale: "en-GB",
    isMobile: phone,
  });
  const page = await context.newPage();
  await page.goto(`${url}${place}`);
  await page.locator(drawn).first().waitFor();
  await page.waitForTimeout(700);
  await page.screenshot({ path, fullPage: whole });
  await context.close();
}

const all = process.env.ALL;
if (all) {
  mkdirSync(all, { recursive: true });
  for (const [name, place] of Object.entries(PLACES)) {
    for (const phone of [false, true]) {
      for (const dark of [false, true]) await shoot(`${all}/${name}-${phone ? "phone" : "desktop"}-${dark ? "dark" : "light"}.png`, place, { phone, dark, whole: true });
    }
  }
} else {
  mkdirSync(IMAGES, { recursive: true });
  await shoot(`${IMAGES}dashboard-overview.png`, PLACES.overview);
  await shoot(`${IMAGES}dashboard-feature.png`, PLACES.feature, { dark: true, height: 1140 });
}
await browser.close();
servers.close();
