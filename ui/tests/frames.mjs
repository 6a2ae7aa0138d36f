// What updates cost the page's main thread, by Chromium's own trace.

/** Where the time of a task is, by the events in it; what is in none of them is the browser's own. */
const KINDS = {
  script: /^(FunctionCall|EventDispatch|TimerFire|FireAnimationFrame|EvaluateScript|RunMicrotasks|UserTiming|v8\.|V8\.|(Minor|Major)GC)/,
  style: /^(UpdateLayoutTree|ParseAuthorStyleSheet)$/,
  layout: /^(Layout|IntersectionObserverController::|HitTest)/,
  paint: /^(PrePaint|Paint|Layerize|Commit|Canvas)/,
};
/** As long as requests that an update leads to may take here. */
const SETTLED_US = 300_000;
const CATEGORIES = ["toplevel", "devtools.timeline", "blink.user_timing"];

/**
 * Records a trace while `act` runs; gives, in milliseconds, what each update with points took the main thread: `frame`, all of its tasks from the one in
 * which the message arrives to the end of the next frame; of that `cpu`, the processor's time, in which nothing is that other processes took from it, and
 * its kinds; `settled`, the processor's time with all that follows, such as what the page asks the server for and draws.
 */
export async function updates(page, act) {
  const session = await page.context().browser().newBrowserCDPSession();
  const events = [];
  session.on("Tracing.dataCollected", ({ value }) => events.push(...value));
  await session.send("Tracing.start", { transferMode: "ReportEvents", traceConfig: { includedCategories: CATEGORIES, excludedCategories: ["*"] } });
  await act();
  const complete = new Promise((resolve) => session.once("Tracing.tracingComplete", resolve));
  await session.send("Tracing.end");
  await complete;
  await session.detach();
  return taken(events);
}

function taken(events) {
  const begun = events.filter(({ name, ph, args }) => name === "update" && ph === "b" && points(args) > 0);
  const main = events.find(({ name, pid, args }) => name === "thread_name" && pid === begun[0]?.pid && args.name === "CrRendererMain");
  const own = events.filter(({ ph, pid, tid, dur }) => ph === "X" && dur !== undefined && pid === main?.pid && tid === main?.tid);
  own.sort((a, b) => a.ts - b.ts || b.dur - a.dur);
  // What an event took without those in it.
  const tasks = [];
  const open = [];
  for (const event of own) {
    while (open.length > 0 && open.at(-1).ts + open.at(-1).dur <= event.ts) open.pop();
    // Some systems do not tell the processor's time.
    event.cpu = event.tdur ?? event.dur;
    event.self = event.cpu;
    if (open.length > 0) open.at(-1).self -= event.cpu;
    else tasks.push(event);
    open.push(event);
  }
  const ms = (all, key) => all.reduce((sum, event) => sum + event[key], 0) / 1000;
  return begun.flatMap(({ ts }) => {
    const first = tasks.find((task) => task.ts <= ts && ts < task.ts + task.dur);
    // Layers are made at the end of a frame that has something to draw.
    const drawn = own.find((event) => event.name === "Layerize" && event.ts > ts);
    const last = drawn && tasks.find((task) => task.ts <= drawn.ts && drawn.ts < task.ts + task.dur);
    if (!first || !last) return [];
    const within = (all, end) => all.filter((event) => event.ts >= first.ts && event.ts < end);
    const frame = within(own, last.ts + last.dur);
    const of = (pattern) => ms(frame.filter(({ name }) => pattern.test(name)), "self");
    return [
      {
        frame: ms(within(tasks, last.ts + last.dur), "dur"),
        cpu: ms(within(tasks, last.ts + last.dur), "cpu"),
        ...Object.fromEntries(Object.entries(KINDS).map(([kind, pattern]) => [kind, of(pattern)])),
        settled: ms(within(tasks, first.ts + SETTLED_US), "cpu"),
      },
    ];
  });
}

const points = (args) => JSON.parse(args?.detail ?? args?.data?.detail ?? "{}").points ?? 0;
