// The stream of what is new. It connects again by itself, and then begins with everything.

import { type Update, url } from "./api";
import type { Route } from "./route";

export type Connection = "connecting" | "live" | "lost";

const RETRY_FIRST_MS = 500;
const RETRY_LAST_MS = 5000;

export class Live {
  private source: EventSource | null = null;
  private retry: number | undefined;
  private pause = RETRY_FIRST_MS;

  constructor(
    private readonly onUpdate: (update: Update) => void,
    private readonly onState: (state: Connection) => void,
  ) {}

  /** Listens to this selection from now on. */
  listen(monitor: string | null, { scope, partition, segment }: Pick<Route, "scope" | "partition" | "segment">): void {
    this.close();
    this.onState("connecting");
    this.open(url("events", { monitor, scope, partition, segment }));
  }

  private open(address: string): void {
    const source = new EventSource(address);
    this.source = source;
    source.addEventListener("update", (message) => {
      this.pause = RETRY_FIRST_MS;
      this.onState("live");
      this.onUpdate(JSON.parse((message as MessageEvent<string>).data) as Update);
    });
    source.addEventListener("error", () => {
      // The browser would try again too, but not for ever, and not soon.
      source.close();
      if (this.source !== source) return;
      this.onState("lost");
      this.retry = window.setTimeout(() => this.open(address), this.pause);
      this.pause = Math.min(this.pause * 2, RETRY_LAST_MS);
    });
  }

  close(): void {
    window.clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
    this.pause = RETRY_FIRST_MS;
  }
}
