package headrace.client;

import headrace.v1.UploadAck;
import java.util.Optional;

/**
 * How far an upload has come, by the server's word.
 *
 * @param uploadId the upload
 * @param persistedOffset how many bytes of the stream survive any crash; never less than before
 * @param rowsAccepted rows accepted so far, provisional
 * @param rowsRejected rows kept out so far, duplicates included, provisional
 * @param rowsDuplicate of these, duplicates, provisional
 * @param interruption what broke the upload, which is about to go on by itself; empty while it runs
 */
public record Progress(
    String uploadId,
    long persistedOffset,
    long rowsAccepted,
    long rowsRejected,
    long rowsDuplicate,
    Optional<HeadraceException> interruption) {

  Progress after(UploadAck ack) {
    return new Progress(
        uploadId,
        Math.max(persistedOffset, ack.getPersistedOffset()),
        ack.getRowsAccepted(),
        ack.getRowsRejected(),
        ack.getRowsDuplicate(),
        Optional.empty());
  }

  Progress interruptedBy(HeadraceException broken) {
    return new Progress(
        uploadId, persistedOffset, rowsAccepted, rowsRejected, rowsDuplicate, Optional.of(broken));
  }

  /** Counts grow without the offset while the server decodes a stream after its finish. */
  boolean isBeyond(Progress before) {
    return persistedOffset > before.persistedOffset
        || rowsAccepted + rowsRejected > before.rowsAccepted + before.rowsRejected;
  }
}
