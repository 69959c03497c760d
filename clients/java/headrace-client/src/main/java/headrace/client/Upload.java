package headrace.client;

import headrace.v1.ErrorReason;
import headrace.v1.UploadAck;
import headrace.v1.UploadHeader;
import java.time.Duration;
import java.util.Optional;
import java.util.function.Consumer;

/** An upload over all its streams. Its streams take turns, and each guards it with its lock. */
final class Upload {
  /** Retries, without progress in between, after errors that may be permanent. */
  private static final int DOUBTFUL_TRIES = 6;

  final UploadHeader header;
  final long windowBytes;
  private final Consumer<Progress> onProgress;
  private final Backoff backoff;
  private Progress progress;
  private int doubts;
  private boolean mayFenceItself;

  Upload(UploadHeader header, Consumer<Progress> onProgress, Backoff backoff, long windowBytes) {
    this.header = header;
    this.windowBytes = windowBytes;
    this.onProgress = onProgress;
    this.backoff = backoff;
    this.progress = new Progress(header.getUploadId(), 0, 0, 0, 0, Optional.empty());
  }

  /** Takes what the server has when a stream begins. */
  void started(long persistedOffset) {
    acked(
        UploadAck.newBuilder()
            .setPersistedOffset(persistedOffset)
            .setRowsAccepted(progress.rowsAccepted())
            .setRowsRejected(progress.rowsRejected())
            .setRowsDuplicate(progress.rowsDuplicate())
            .build());
  }

  /** Takes an ack. */
  void acked(UploadAck ack) {
    Progress before = progress;
    progress = before.after(ack);
    if (progress.isBeyond(before)) {
      backoff.progressed();
      doubts = 0;
    }
    onProgress.accept(progress);
  }

  /**
   * Notes that a stream broke before the server answered its header: the server may read it late, and fence with it the
   * stream that came after it. It can do so once.
   */
  void brokeUnanswered() {
    mayFenceItself = true;
  }

  /**
   * How long to wait before the next stream.
   *
   * @throws HeadraceException what the last one ended with, if that is not worth another one
   */
  Duration pause(HeadraceException broken) {
    broken.nameUpload(header.getUploadId(), progress.persistedOffset());
    if (broken.reason() == ErrorReason.ERROR_REASON_IDLE_TIMEOUT
        || broken.reason() == ErrorReason.ERROR_REASON_GAVE_WAY) {
      backoff.progressed(); // The source is slow, nothing is wrong.
    }
    if (!passes(broken)) {
      throw broken;
    }
    Duration delay = backoff.failed(broken.retryDelay()).orElseThrow(() -> broken);
    onProgress.accept(progress.interruptedBy(broken));
    return delay;
  }

  /** Whether another stream may do better. */
  private boolean passes(HeadraceException broken) {
    if (broken.reason() == ErrorReason.ERROR_REASON_FENCED) {
      // Another client has taken the upload over; answering in kind would let two fight for ever.
      boolean isOurs = mayFenceItself;
      mayFenceItself = false;
      return isOurs;
    }
    if (broken.hasReason() && !broken.isRetryable()) {
      return false;
    }
    return switch (broken.code()) {
      case UNAVAILABLE -> true;
      // Without a reason it is gRPC's own, about sizes of messages.
      case RESOURCE_EXHAUSTED -> broken.hasReason();
      // An accident or for good, who knows. Without a reason: what gRPC and proxies say of a connection that broke in
      // the middle.
      case INTERNAL, DATA_LOSS, OUT_OF_RANGE, ABORTED, CANCELLED, UNKNOWN -> ++doubts <= DOUBTFUL_TRIES;
      default -> false;
    };
  }
}
