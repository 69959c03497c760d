package headrace.client;

import headrace.v1.Format;
import headrace.v1.UploadHeader;
import headrace.v1.UploadResult;
import io.grpc.Channel;
import io.grpc.ManagedChannel;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.UUID;
import java.util.function.Consumer;

/**
 * Streams files into tables. When the connection breaks or the server is restarted, an upload goes on where the server
 * stands, with backoff. Immutable; one may run any number of uploads at a time.
 */
public final class Uploader {
  private static final long WINDOW_BYTES = 64 << 20;
  private static final long LEAST_WINDOW_BYTES = 2 << 20;
  private static final Duration PATIENCE = Duration.ofMinutes(2);

  private final Channel channel;
  private final Consumer<Progress> onProgress;
  private final Duration patience;
  private final long windowBytes;

  /** Uploads over a channel to the server. */
  public Uploader(Channel channel) {
    this(channel, progress -> {}, PATIENCE, WINDOW_BYTES);
  }

  private Uploader(Channel channel, Consumer<Progress> onProgress, Duration patience, long windowBytes) {
    this.channel = channel;
    this.onProgress = onProgress;
    this.patience = patience;
    this.windowBytes = windowBytes;
  }

  /**
   * Has a function called after every ack and every interruption, on a thread of the channel, which it must not block,
   * or of the caller.
   */
  public Uploader withProgress(Consumer<Progress> onProgress) {
    return new Uploader(channel, onProgress, patience, windowBytes);
  }

  /** Sets for how long an upload without progress is tried again: by default two minutes, zero = not at all. */
  public Uploader withPatience(Duration patience) {
    return new Uploader(channel, onProgress, patience, windowBytes);
  }

  /**
   * Sets how many bytes may be on their way without an ack: by default 64 MiB, at least 2 MiB, since a record that has
   * only begun, and may have 1 MiB, cannot be acknowledged.
   */
  public Uploader withWindow(long bytes) {
    return new Uploader(channel, onProgress, patience, Math.max(bytes, LEAST_WINDOW_BYTES));
  }

  /** Uploads a file; see {@link #upload(UploadHeader, UploadSource)}. */
  public UploadResult upload(UploadHeader header, Path file) throws IOException, InterruptedException {
    try (FileChannel opened = FileChannel.open(file)) {
      return upload(header, opened::read);
    }
  }

  /**
   * Streams a source, to its end, into a tenant's table. Rows that break the data contract are no error: the result's
   * outcome, counts and report tell of them.
   *
   * @param header what is uploaded, and where to. An empty upload_id is replaced by a random one. The format must be
   *     one of bytes: not FORMAT_ROWS
   * @param source its content
   * @return how the upload ended
   * @throws HeadraceException if the upload failed. Its metadata have upload_id and persisted_offset; a later upload
   *     with that upload_id, the same header otherwise and the same source goes on there, or returns the result if
   *     the upload had finished
   * @throws DifferentContentException if the upload was begun with other content
   * @throws IOException if the source cannot be read
   * @throws InterruptedException if the thread was interrupted; the upload can be resumed
   */
  public UploadResult upload(UploadHeader header, UploadSource source) throws IOException, InterruptedException {
    if (header.getFormat() == Format.FORMAT_ROWS) {
      throw new IllegalArgumentException(
          "An Uploader sends bytes, not FORMAT_ROWS; use IngestInteractions, IngestItems or the generated Upload.");
    }
    if (header.getUploadId().isEmpty()) {
      header = header.toBuilder().setUploadId(UUID.randomUUID().toString()).build();
    }
    var upload = new Upload(header, onProgress, new Backoff(patience), windowBytes);
    while (true) {
      try {
        return new UploadStream(channel, upload, source).run();
      } catch (HeadraceException broken) {
        Thread.sleep(upload.pause(broken).toMillis());
        if (channel instanceof ManagedChannel managed) {
          // By default gRPC does not look for a server that was away for long until up to two minutes after it is back.
          managed.resetConnectBackoff();
        }
      }
    }
  }
}
