const BASE_MS = 200;
const CAP_MS = 10_000;

/**
 * Exponential backoff with full jitter: clients that failed together do not retry together.
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
 */
export class Backoff {
  #failures = 0;
  #sinceMs = 0;

  constructor(private readonly patienceMs: number) {}

  /** Forgets the failures: what was tried works. */
  progressed(): void {
    this.#failures = 0;
  }

  /**
   * Notes a failure. Returns how long to wait before the next try, at least as long as the server asked, or undefined
   * if there was no progress for as long as patience lasts.
   */
  failed(askedMs: number): number | undefined {
    const now = performance.now();
    if (this.#failures === 0) {
      this.#sinceMs = now;
    }
    const leftMs = this.#sinceMs + this.patienceMs - now;
    if (leftMs <= 0) {
      return undefined;
    }
    const ceilingMs = Math.min(CAP_MS, BASE_MS * 2 ** this.#failures);
    this.#failures++;
    // The last try comes when patience ends, not before.
    return Math.min(Math.max(Math.random() * ceilingMs, askedMs), leftMs);
  }
}
