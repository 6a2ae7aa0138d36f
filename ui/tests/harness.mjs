// A browser, and the process that serves what a test asks for.

import { existsSync } from "node:fs";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

/** Debian's, and where others have it. */
const PLACES = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"];

export async function launch() {
  const executablePath = PLACES.find((place) => place && existsSync(place));
  if (!executablePath) throw new Error("Chromium is not installed; set CHROMIUM to where it is");
  // Root, as in a container, has no sandbox.
  const args = ["--disable-dev-shm-usage", "--font-render-hinting=none", ...(process.getuid?.() === 0 ? ["--no-sandbox"] : [])];
  return chromium.launch({ executablePath, args });
}

/** Asks the process that started this one: `ask({ do: "start", features: 12 })`. One question at a time. */
export function control() {
  const address = process.env.LEEWAY_CONTROL;
  if (!address) throw new Error("run by `make ui-test`: LEEWAY_CONTROL says where the servers are started");
  const [host, port] = address.split(":");
  const socket = connect(Number(port), host);
  const answers = createInterface({ input: socket })[Symbol.asyncIterator]();
  return {
    async ask(question) {
      socket.write(`${JSON.stringify(question)}\n`);
      const { value, done } = await answers.next();
      if (done) throw new Error("the process that serves is gone");
      return JSON.parse(value);
    },
    close: () => socket.destroy(),
  };
}
