package headrace.client;

import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.ThreadLocalRandom;

/**
 * Exponential backoff with full jitter: clients that failed together do not retry together.
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
 */
final class Backoff {
  private static final long BASE_NANOS = Duration.ofMillis(200).toNanos();
  private static final long CAP_NANOS = Duration.ofSeconds(10).toNanos();

  private final long patienceNanos;
  private int failures;
  private long since;

  Backoff(Duration patience) {
    this.patienceNanos = patience.toNanos();
  }

  /** Forgets the failures: what was tried works. */
  void progressed() {
    failures = 0;
  }

  /**
   * Notes a failure. Returns how long to wait before the next try, at least as long as the server asked, or nothing if
   * there was no progress for as long as patience lasts.
   */
  Optional<Duration> failed(Duration asked) {
    long now = System.nanoTime();
    if (failures == 0) {
      since = now;
    }
    long left = patienceNanos - (now - since);
    if (left <= 0) {
      return Optional.empty();
    }
    long ceiling = Math.min(CAP_NANOS, BASE_NANOS << Math.min(failures, 16));
    failures++;
    long delay = Math.max(ThreadLocalRandom.current().nextLong(ceiling), asked.toNanos());
    // The last try comes when patience ends, not before.
    return Optional.of(Duration.ofNanos(Math.min(delay, left)));
  }
}
