// What the page does, in a real browser, against the real server.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { updates } from "./frames.mjs";
import { control, launch } from "./harness.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 390, height: 844 };

let browser;
let servers;
const figures = {};

before(async () => {
  servers = control();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  servers?.close();
  console.log(`figures: ${JSON.stringify(figures, null, 1)}`);
});

/** A page of which every console message, error and foreign request fails the test at its end. */
async function open(t, url, options = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, colorScheme: "light", reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  const told = [];
  page.on("console", (message) => told.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => told.push(`error: ${error.stack}`));
  page.on("request", (request) => {
    const { protocol, host } = new URL(request.url());
    if (protocol !== "blob:" && protocol !== "data:" && host !== new URL(url).host) told.push(`request to ${request.url()}`);
  });
  t.after(() => context.close());
  await page.goto(url);
  return { page, told, quiet: () => assert.deepEqual(told, []) };
}

/** The pages, and what is there when they are drawn. */
const PLACES = { "#/": ".features tbody tr", "#/m/churn/f/income": ".bins svg", "#/m/churn/incidents": ".incidents tbody tr", "#/m/churn/stream": "tbody tr" };

const rows = (page) => page.locator("table.features tbody tr");
const row = (page, feature) => rows(page).filter({ has: page.getByRole("link", { name: feature, exact: true }) });

/** Waits until something is so. */
async function until(what, condition, ms = 8000) {
  const deadline = Date.now() + ms;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) assert.fail(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

/** What axe finds. Colours of drawings on a canvas it cannot see. */
async function violations(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join(" | ")}`);
}

describe("a stream in which something happens", () => {
  let url;
  before(async () => {
    ({ url } = await servers.ask({ do: "start", features: 12, partitions: 6, checks: 120, monitors: 3, scene: true }));
    await until("events are read", async () => (await fetch(`${url}health/ready`)).ok);
  });

  test("loads with monitors, heat map and table, and a chart", async (t) => {
    const { page, quiet } = await open(t, url);
    await page.getByText("Live", { exact: true }).waitFor();
    assert.equal(await page.locator(".card").count(), 3);
    await until("12 rows", async () => (await rows(page).count()) === 12);
    const first = await until("a chart", () => page.evaluate(() => performance.getEntriesByName("first-chart")[0]?.startTime));
    figures.first_chart_ms = Math.round(first);
    assert.match(await rows(page).first().innerText(), /income/, "the worst first");
    quiet();
  });

  test("goes from a cell to the feature, and from a point to its window", async (t) => {
    const { page, quiet } = await open(t, url);
    const heat = page.locator(".heat-scroll");
    await until("a chart", () => page.evaluate(() => performance.getEntriesByName("first-chart").length));
    const box = await heat.boundingBox();
    await heat.click({ position: { x: box.width - 20, y: 10 } });
    await page.getByRole("heading", { level: 1, name: "income" }).waitFor();
    assert.match(page.url(), /#\/m\/churn\/f\/income\?.*at=0_\d+/);
    await page.locator(".bins svg .bin").first().waitFor();
    assert.ok((await page.locator(".bins svg .bin").count()) >= 10);
    const over = page.locator(".u-over");
    const plot = await over.boundingBox();
    await over.click({ position: { x: plot.width * 0.2, y: plot.height / 2 } });
    await page.waitForURL(/at=[1-9]\d*_\d+/);
    const chip = page.locator(".window .chip");
    await until("the early window", async () => (await chip.innerText()) === "No drift");
    await page.getByRole("button", { name: "Later →" }).click();
    const before = page.url();
    await page.locator(".chart-holder").focus();
    await page.keyboard.press("ArrowRight");
    await until("the next window", async () => page.url() !== before);
    await page.getByText("Numbers", { exact: true }).click();
    const bins = await page.locator(".bins svg .bin").count();
    await until("the same bins", async () => (await page.locator(".numbers tbody tr").count()) === bins);
    quiet();
  });

  test("shows each partition, and takes the one that is chosen to the front", async (t) => {
    const { page, quiet } = await open(t, `${url}#/m/churn/f/device`);
    await until("six partitions", async () => (await page.locator(".multiple").count()) === 6);
    await page.locator(".multiple", { hasText: "partition 3" }).click();
    await page.waitForURL(/of=partition_3/);
    await until("it is in front", async () => (await page.locator(".multiple[aria-pressed=true]").innerText()).includes("partition 3"));
    await page.locator(".incidents tbody tr").first().waitFor();
    assert.match(await page.locator(".incidents tbody").innerText(), /partition 3/);
    quiet();
  });

  test("searches and sorts the table, by keyboard too", async (t) => {
    const { page, quiet } = await open(t, url);
    await until("rows", async () => (await rows(page).count()) === 12);
    await page.keyboard.press("/");
    await page.keyboard.type("in");
    await until("some rows", async () => (await rows(page).count()) < 12);
    for (const text of await rows(page).locator("th").allInnerTexts()) assert.match(text, /in/);
    assert.match(page.url(), /q=in/);
    await page.keyboard.press("Control+a");
    await page.keyboard.press("Backspace");
    await page.getByRole("button", { name: "Feature" }).click();
    await page.waitForURL(/sort=feature/);
    const names = await rows(page).locator("th").allInnerTexts();
    assert.deepEqual(names, [...names].sort());
    assert.equal(await page.locator("th[aria-sort=ascending]").innerText(), "Feature↑");
    quiet();
  });

  test("moves in the heat map by arrow keys and opens a feature by Enter", async (t) => {
    const { page, quiet } = await open(t, url);
    await until("a chart", () => page.evaluate(() => performance.getEntriesByName("first-chart").length));
    await page.locator(".heat-scroll").focus();
    await page.keyboard.press("ArrowDown");
    const readout = page.locator("#heat-readout");
    await until("a cell is told", async () => /^income, .*PSI [\d.]+, drift$/.test(await readout.innerText()));
    await page.keyboard.press("ArrowDown");
    await until("the next row", async () => !(await readout.innerText()).startsWith("income"));
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { level: 1, name: "income" }).waitFor();
    quiet();
  });

  test("restores a view from its link", async (t) => {
    const { page } = await open(t, url);
    await until("rows", async () => (await rows(page).count()) === 12);
    await page.getByLabel("Partition").selectOption("3");
    await page.getByRole("button", { name: "5m", exact: true }).click();
    await page.getByPlaceholder(/Search/).fill("device");
    await page.waitForURL(/partition=3&range=5m&q=device/);
    const other = await open(t, page.url());
    await until("one row", async () => (await rows(other.page).count()) === 1);
    assert.equal(await other.page.getByLabel("Partition").inputValue(), "3");
    assert.equal(await other.page.getByRole("button", { name: "5m", exact: true }).getAttribute("aria-pressed"), "true");
    await rows(other.page).first().getByRole("link").click();
    await other.page.locator(".bins svg").waitFor();
    const said = () => other.page.locator(".window .facts").innerText();
    const latest = await said();
    await other.page.getByRole("button", { name: "← Earlier" }).click();
    await other.page.waitForURL(/at=/);
    await until("an earlier window", async () => (await said()) !== latest);
    const facts = await said();
    const third = await open(t, other.page.url());
    await until("the same window", async () => (await third.page.locator(".window .facts").innerText().catch(() => "")) === facts);
    other.quiet();
    third.quiet();
  });

  test("shows incidents over time and as a list that leads to their windows", async (t) => {
    const { page, quiet } = await open(t, `${url}#/m/churn/incidents`);
    await page.locator(".timeline li").first().waitFor();
    const lanes = await page.locator(".lane-name").allInnerTexts();
    assert.ok(lanes.includes("income") && lanes.includes("device") && lanes.includes("country"), lanes.join());
    await page.locator(".incidents tbody tr", { hasText: "income" }).first().getByRole("link").click();
    await page.getByRole("heading", { level: 1, name: "income" }).waitFor();
    await until("a window in drift", async () => /drift/i.test(await page.locator(".window .chip").innerText().catch(() => "")));
    quiet();
  });

  test("tells lag, dead letters and how full windows are", async (t) => {
    const { page, quiet } = await open(t, `${url}#/m/churn/stream`);
    const figure = page.locator(".figure", { hasText: "Lag" });
    // Partitions 0 to 5 are behind by 0, 3, 6, 9, 0 and 3.
    await until("the lag", async () => /\b21\b/.test(await figure.innerText()));
    await until("dead letters", async () => (await page.locator(".figure", { hasText: "Dead letters" }).innerText()).includes("≤ 2"));
    assert.match(await page.locator("tbody tr").first().innerText(), /100/);
    quiet();
  });

  test("exports what it shows as CSV", async (t) => {
    const { page, quiet } = await open(t, `${url}#/?q=income`);
    await until("one row", async () => (await rows(page).count()) === 1);
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "CSV" }).click()]);
    const lines = readFileSync(await download.path(), "utf8").trim().split("\r\n");
    assert.equal(lines.length, 2);
    assert.match(lines[0], /^feature,status,psi,p_value/);
    assert.match(lines[1], /^income,drift,\d/);
    quiet();
  });

  for (const colorScheme of ["light", "dark"]) {
    test(`is accessible, as far as axe sees, in ${colorScheme}`, async (t) => {
      for (const [place, drawn] of Object.entries(PLACES)) {
        const { page, quiet } = await open(t, `${url}${place}`, { colorScheme });
        await page.getByText("Live", { exact: true }).waitFor();
        await page.locator(drawn).first().waitFor();
        assert.deepEqual(await violations(page), [], place);
        quiet();
      }
    });
  }

  test("fits a phone", async (t) => {
    for (const [place, drawn] of Object.entries(PLACES)) {
      const { page, quiet } = await open(t, `${url}${place}`, { viewport: PHONE, hasTouch: true, isMobile: true });
      await page.locator(drawn).first().waitFor();
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(width <= PHONE.width, `${place} is ${width} wide`);
      assert.deepEqual(await violations(page), [], place);
      quiet();
    }
  });

  test("keeps the colours that the reader chose", async (t) => {
    const { page, quiet } = await open(t, url);
    const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
    assert.equal(await theme(), "light");
    await page.getByRole("button", { name: /^Colours/ }).click();
    await page.getByRole("button", { name: /^Colours/ }).click();
    assert.equal(await theme(), "dark");
    await page.reload();
    assert.equal(await theme(), "dark");
    quiet();
  });

  test("says so when there is no such feature or monitor", async (t) => {
    const { page, told } = await open(t, `${url}#/m/churn/f/nothing`);
    await page.getByText("has no events of a feature").waitFor();
    await page.goto(`${url}#/m/nobody`);
    await page.getByText("There is no such monitor").waitFor();
    // The browser itself tells of the answer 404.
    assert.ok(told.every((line) => line.includes("404")), told.join("\n"));
  });
});

test("shows what comes without a reload", async (t) => {
  const { url } = await servers.ask({ do: "start", features: 8, partitions: 2, checks: 20 });
  const { page, quiet } = await open(t, url);
  await until("no drift", async () => (await page.locator(".card-share").innerText()).startsWith("0 of 8"));
  const feature = await open(t, `${url}#/m/churn/f/age`);
  await feature.page.locator(".window .facts").waitFor();
  const record = () => feature.page.locator(".window .facts div", { has: feature.page.getByText("record", { exact: true }) }).innerText();
  await until("record 10,000", async () => (await record()).includes("10,000"));
  await servers.ask({ do: "push", drift: "age" });
  await until("age drifts", async () => (await row(page, "age").innerText()).includes("Drift"));
  await until("the card says so", async () => (await page.locator(".card-share").innerText()).startsWith("1 of 8"));
  await until("the window goes on", async () => (await record()).includes("10,500"));
  await until("it is in drift", async () => (await feature.page.locator(".window .chip").innerText()) === "Drift");
  quiet();
  feature.quiet();
});

test("shows the segment that is chosen", async (t) => {
  const { url } = await servers.ask({ do: "start", features: 5, partitions: 2, checks: 12, segments: 3 });
  await servers.ask({ do: "push", drift: "age", segment: "country=FR" });
  const { page, quiet } = await open(t, url);
  const age = () => row(page, "age").innerText();
  await until("age drifts in one of three segments", async () => /Drift.*2 of 6/s.test(await age()));
  assert.match(await row(page, "age").getAttribute("title"), /^Worst in country=FR, partition \d$/);
  assert.match(await page.locator(".card-facts").innerText(), /3 segments/);
  const segment = page.getByLabel("Segment");
  await segment.focus();
  const offered = () => page.locator("#segments option").evaluateAll((options) => options.map(({ value }) => value));
  await until("all are offered", async () => (await offered()).join() === "country=DE,country=FR,country=IT");
  await segment.fill("FR");
  await until("those with the text are offered", async () => (await offered()).join() === "country=FR");
  await segment.fill("country=DE");
  await segment.press("Enter");
  await page.waitForURL(/segment=country%3DDE/);
  await until("no drift in it", async () => /No drift.*0 of 2/s.test(await age()));
  await servers.ask({ do: "push", drift: "income", segment: "country=FR" });
  await servers.ask({ do: "push", drift: "plan", segment: "country=DE" });
  await until("what comes for it", async () => /Drift.*2 of 2/s.test(await row(page, "plan").innerText()));
  assert.match(await row(page, "income").innerText(), /No drift/, "what comes for another does not show");
  // Its link shows the same.
  const other = await open(t, page.url());
  await until("the same segment", async () => /Drift.*2 of 2/s.test(await row(other.page, "plan").innerText().catch(() => "")));
  assert.equal(await other.page.getByLabel("Segment").inputValue(), "country=DE");
  await segment.fill("");
  await segment.press("Enter");
  await until("all of them again", async () => /of 6/.test(await age()));
  assert.doesNotMatch(page.url(), /segment/);
  await row(page, "plan").getByRole("link").click();
  await until("a card of each segment and partition", async () => (await page.locator(".multiple").count()) === 6);
  await page.getByPlaceholder("Search segments").fill("IT");
  await until("those that are searched for", async () => (await page.locator(".multiple").count()) === 2);
  const card = page.locator(".multiple", { hasText: "country=IT, partition 1" });
  await card.click();
  await page.waitForURL(/of=partition_1_country%3DIT/);
  await until("its window", async () => (await page.locator(".window-head").innerText()).includes("country=IT, partition 1"));
  assert.equal(await page.locator(".window .chip").innerText(), "No drift");
  assert.deepEqual(await violations(page), []);
  quiet();
  other.quiet();
});

test("shows the whole topic beside its partitions", async (t) => {
  const { url } = await servers.ask({ do: "start", features: 5, partitions: 3, checks: 12, global: true });
  await servers.ask({ do: "push", drift: "balance", only: "global" });
  const { page, quiet } = await open(t, url);
  const balance = () => row(page, "balance").innerText();
  await until("all that is measured", async () => /Drift.*1 of 4/s.test(await balance()));
  assert.equal(await row(page, "balance").getAttribute("title"), "Worst in whole topic");
  await page.getByLabel("Scope").selectOption("Partitions");
  await page.waitForURL(/scope=partition/);
  await until("no partition drifts", async () => /No drift.*0 of 3/s.test(await balance()));
  await page.getByLabel("Scope").selectOption("Whole topic");
  await page.waitForURL(/scope=global/);
  await until("the whole topic drifts", async () => /Drift.*1 of 1/s.test(await balance()));
  assert.equal(await page.locator(".choice > span").getByText("Partition", { exact: true }).count(), 0, "the whole topic has none");
  await servers.ask({ do: "push", drift: "age" });
  await until("what comes", async () => /Drift.*1 of 1/s.test(await row(page, "age").innerText()));
  await row(page, "age").getByRole("link").click();
  await until("its window", async () => /^Drift\s+whole topic, /.test(await page.locator(".window-head").innerText()));
  const facts = await page.locator(".window .facts").innerText();
  // 14 checks, each 500 records, of three partitions.
  assert.match(facts, /record\s+21,000/);
  assert.doesNotMatch(facts, /offsets/);
  assert.deepEqual(await violations(page), []);
  await page.goto(`${url}#/m/churn/stream`);
  await page.getByRole("rowheader", { name: "whole topic" }).waitFor();
  quiet();
});

test("shows time windows by their bounds, of partitions and of the whole topic, by segment", async (t) => {
  const { url } = await servers.ask({ do: "start", features: 4, partitions: 2, checks: 10, segments: 2, global: true, window: "time" });
  const series = `${url}api/v1/monitors/churn/features/age/series?scope=global&segment=country%3DDE&full=1`;
  await until("events are read", async () => (await fetch(`${url}health/ready`)).ok);
  const known = async () => (await (await fetch(series)).json()).series[0];
  assert.equal((await known()).time_ms.length, 10);
  const { page, quiet } = await open(t, `${url}#/m/churn/f/age?scope=global&segment=country%3DDE`);
  const head = () => page.locator(".window-head").innerText();
  /** As the browser's own words have it. */
  const clock = (ms) => page.evaluate((ms) => new Date(ms).toTimeString().slice(0, 8), ms);
  /** The window that is shown is of a minute, and this one. */
  const shows = async (end) => {
    const bounds = [await clock(end - 60_000), await clock(end)];
    await until(`the window ${bounds.join(" to ")}`, async () => {
      const [, from, to] = /country=DE, whole topic, (?:.* )?([\d:]{8}) to (?:.* )?([\d:]{8})/.exec(await head()) ?? [];
      return from === bounds[0] && to === bounds[1];
    });
  };
  const first = (await known()).time_ms;
  assert.equal(first.at(-1) % 20_000, 0);
  await shows(first.at(-1));
  await page.getByRole("button", { name: "← Earlier" }).click();
  await page.waitForURL(new RegExp(`at=\\d+_${first.at(-2)}`));
  await shows(first.at(-2));
  assert.equal(first.at(-1) - first.at(-2), 20_000);
  await page.getByRole("button", { name: "Latest" }).click();
  await servers.ask({ do: "push", drift: "age", segment: "country=DE", only: "global" });
  await shows(first.at(-1) + 20_000);
  assert.match(await head(), /^Drift/);
  // The heat map has it in the stretch in which it ends.
  await page.goto(`${url}#/m/churn?scope=global&segment=country%3DDE`);
  await until("the table", async () => /Drift.*1 of 1/s.test(await row(page, "age").innerText().catch(() => "")));
  await page.locator(".heat-scroll").focus();
  const readout = page.locator("#heat-readout");
  await until("the last window among the cells", async () => {
    await page.keyboard.press("End");
    await page.keyboard.press("Home");
    await page.keyboard.press("End");
    return /^age, .*PSI [\d.]+, drift$/.test(await readout.innerText());
  });
  await page.goto(`${url}#/m/churn/stream`);
  await until("the settings", async () => /1 min, one each 20 s/.test(await page.locator(".facts").last().innerText()));
  assert.match(await page.getByRole("region", { name: "Table of partitions" }).innerText(), /records/, "a time window has no size to be full of");
  quiet();
});

test("waits for the first event of an empty topic", async (t) => {
  const { url } = await servers.ask({ do: "start", features: 3, partitions: 1, checks: 0 });
  const { page, quiet } = await open(t, url);
  await page.getByText("has no events of this application").waitFor();
  assert.deepEqual(await violations(page), []);
  await servers.ask({ do: "push" });
  await until("three rows", async () => (await rows(page).count()) === 3);
  quiet();
});

test("connects again when the server was away, and shows what came meanwhile", async (t) => {
  const { url } = await servers.ask({ do: "start", features: 4, partitions: 2, checks: 10 });
  const { page, told } = await open(t, url);
  await until("rows", async () => (await rows(page).count()) === 4);
  await servers.ask({ do: "stop" });
  await page.getByText("Reconnecting", { exact: true }).waitFor();
  await page.getByText("does not answer").waitFor();
  await servers.ask({ do: "push", drift: "balance" });
  await servers.ask({ do: "restart" });
  await page.getByText("Live", { exact: true }).waitFor();
  await until("what came meanwhile", async () => (await row(page, "balance").innerText()).includes("Drift"));
  await until("the notice is gone", async () => (await page.locator(".notices p").count()) === 0);
  // The browser itself tells of connections that were refused.
  assert.ok(told.every((line) => line.includes("ERR_CONNECTION_REFUSED") || line.includes("ERR_INCOMPLETE_CHUNKED_ENCODING")), told.join("\n"));
});

describe("an update of 50 features by 16 partitions", () => {
  const ROUNDS = Number(process.env.ROUNDS ?? 7);
  let url;
  before(async () => {
    ({ url } = await servers.ask({ do: "start", features: 50, partitions: 16, checks: 40 }));
    await until("events are read", async () => (await fetch(`${url}health/ready`)).ok);
  });
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const place = (values, part) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))];
  const VIEWS = {
    overview: ["#/", ".features tbody tr"],
    table: ["#/", ".features tbody tr", (page) => page.locator(".features").evaluate((element) => element.scrollIntoView())],
    feature: ["#/m/churn/f/income", ".bins svg"],
    incidents: ["#/m/churn/incidents", ".panel"],
    stream: ["#/m/churn/stream", "tbody tr"],
  };
  for (const [name, [hash, drawn, arrive]] of Object.entries(VIEWS)) {
    test(`is taken: ${name}`, async (t) => {
      const { page, quiet } = await open(t, `${url}${hash}`);
      await page.locator(drawn).first().waitFor();
      await arrive?.(page);
      const sum = () =>
        page.evaluate(() =>
          performance
            .getEntriesByName("update")
            .filter(({ detail }) => !detail.reset && detail.points > 0)
            .reduce((sum, { duration, detail }) => ({ ms: sum.ms + duration, points: sum.points + detail.points }), { ms: 0, points: 0 }),
        );
      await pause(800);
      const before = await sum();
      const taken = await updates(page, async () => {
        for (let round = 0; round < ROUNDS; round++) {
          await servers.ask({ do: "push" });
          // Longer than the server gathers, so that each is a message of its own. Nothing is asked of the page meanwhile.
          await pause(900);
        }
      });
      const after = await sum();
      // 50 features and the summary, in 16 partitions.
      assert.equal(after.points - before.points, 816 * ROUNDS);
      const figure = (kind, part) => Number(place(taken.map((update) => update[kind]), part).toFixed(1));
      const kinds = Object.keys(taken[0] ?? {}).map((kind) => [`${kind}_ms`, figure(kind, 0.5)]);
      figures[`update_${name}`] = { updates: taken.length, ...Object.fromEntries(kinds), frame_p95_ms: figure("frame", 0.95), cpu_p95_ms: figure("cpu", 0.95) };
      quiet();
    });
  }
});

test("holds a thousand features", async (t) => {
  const { url } = await servers.ask({ do: "start", features: 1000, partitions: 2, checks: 30 });
  await until("events are read", async () => (await fetch(`${url}health/ready`)).ok, 30_000);
  const { page, quiet } = await open(t, url);
  await until("the first hundred", async () => (await rows(page).count()) === 100);
  const first = await until("a chart", () => page.evaluate(() => performance.getEntriesByName("first-chart")[0]?.startTime));
  figures.first_chart_1000_features_ms = Math.round(first);
  await page.getByRole("button", { name: "Show all 1,000" }).click();
  await until("all of them", async () => (await rows(page).count()) === 1000);
  await page.getByPlaceholder(/Search/).fill("feature_0777");
  await until("one row", async () => (await rows(page).count()) === 1);
  await servers.ask({ do: "push", drift: "feature_0777" });
  await until("it drifts", async () => (await rows(page).first().innerText()).includes("Drift"));
  await page.locator(".heat-scroll").evaluate((element) => (element.scrollTop = element.scrollHeight));
  quiet();
});

test("weighs less than 150 KB, compressed", () => {
  const dist = new URL("../dist/", import.meta.url);
  const files = readdirSync(dist, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile() && !entry.name.endsWith(".gz"));
  const bytes = files.reduce((sum, entry) => sum + gzipSync(readFileSync(`${entry.parentPath}/${entry.name}`)).length, 0);
  figures.gzipped_kb = Number((bytes / 1024).toFixed(1));
  assert.ok(bytes < 150 * 1024, `${bytes} bytes`);
});
