package headrace.client;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import headrace.v1.PipelineServiceGrpc;
import headrace.v1.UploadChunk;
import headrace.v1.UploadFinish;
import headrace.v1.UploadFlush;
import headrace.v1.UploadRequest;
import headrace.v1.UploadResponse;
import headrace.v1.UploadResult;
import headrace.v1.UploadStarted;
import io.grpc.Channel;
import io.grpc.Status;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.function.BooleanSupplier;
import java.util.zip.CRC32C;

/**
 * One stream of an upload: the caller's thread writes, the channel's read. The writer waits for the header's answer and
 * for room, in the window and in gRPC. An error in band stops it, the stream is half-closed, and the writer waits for
 * the end: that way a status is never lost among what is still being written.
 */
final class UploadStream implements ClientResponseObserver<UploadRequest, UploadResponse> {
  private static final int CHUNK_BYTES = 512 << 10;

  /** How long a full window is waited on before the server is asked to flush. */
  private static final Duration FLUSH_AFTER = Duration.ofSeconds(1);

  private static final Duration FOR_EVER = Duration.ofNanos(Long.MAX_VALUE);

  private final Channel channel;
  private final Upload upload;
  private final UploadSource source;

  // What follows is guarded by this.
  private ClientCallStreamObserver<UploadRequest> requests;
  private UploadStarted started;
  private long safe; // Where the server stands.
  private boolean isAcked;
  private boolean isDraining; // The server is shutting down.
  private boolean isFinished; // Finish was sent: after that draining is no reason to stop.
  private boolean isOver; // Nothing more is to be written.
  private boolean isClosed; // The call has ended, or its result is there.
  private UploadResult result;
  private HeadraceException broken; // An error in band, or else what the call ended with.
  private RuntimeException thrown; // By the caller's own function.

  UploadStream(Channel channel, Upload upload, UploadSource source) {
    this.channel = channel;
    this.upload = upload;
    this.source = source;
  }

  /** Runs it and returns the result. */
  UploadResult run() throws IOException, InterruptedException {
    PipelineServiceGrpc.newStub(channel).upload(this);
    boolean isWhole = false;
    try {
      write();
      requests.onCompleted();
      awaitEnd();
      isWhole = thrown == null;
    } finally {
      if (!isWhole) {
        requests.cancel("The upload is given up.", null);
      }
    }
    synchronized (this) {
      if (thrown != null) {
        throw thrown;
      }
      if (result == null) {
        throw broken;
      }
      if (!isAcked) {
        // A server acknowledges a finish before it tells the result; of an upload that had been finished before it tells
        // the result at once.
        checkWhole();
      }
      return result;
    }
  }

  @Override
  public synchronized void beforeStart(ClientCallStreamObserver<UploadRequest> requests) {
    this.requests = requests;
    requests.setOnReadyHandler(this::wake);
  }

  @Override
  public synchronized void onNext(UploadResponse response) {
    try {
      receive(response);
    } catch (RuntimeException error) {
      thrown = error;
      isOver = true;
      isClosed = true;
    }
    notifyAll();
  }

  private void receive(UploadResponse response) {
    switch (response.getResponseCase()) {
      case STARTED -> {
        started = response.getStarted();
        safe = started.getPersistedOffset();
        upload.started(safe);
      }
      case ACK -> {
        isAcked = true;
        safe = response.getAck().getPersistedOffset();
        upload.acked(response.getAck());
      }
      case DRAINING -> {
        isDraining = true;
        isOver |= !isFinished;
      }
      case ERROR -> {
        // Also one that leaves the stream usable: another stream mends it as well.
        isOver = true;
        broken = broken == null ? HeadraceException.of(response.getError()) : broken;
      }
      case RESULT -> {
        result = response.getResult();
        isOver = true;
        isClosed = true;
      }
      default -> {} // row_errors: the report has them.
    }
  }

  @Override
  public synchronized void onError(Throwable error) {
    end(HeadraceException.from(error));
  }

  @Override
  public synchronized void onCompleted() {
    String why = isDraining ? "The server is shutting down." : "The server ended the stream without a result.";
    end(HeadraceException.from(Status.UNAVAILABLE.withDescription(why).asException()));
  }

  private void end(HeadraceException why) {
    broken = broken == null ? why : broken;
    if (started == null && !broken.hasReason()) {
      upload.brokeUnanswered();
    }
    isOver = true;
    isClosed = true;
    notifyAll();
  }

  /** Sends the upload, as far as the answers let it. */
  private void write() throws IOException, InterruptedException {
    send(UploadRequest.newBuilder().setHeader(upload.header).build());
    await(() -> started != null, FOR_EVER);
    if (started == null) {
      return;
    }
    long offset = started.getPersistedOffset();
    CRC32C sum = checkBeginning();
    long most = started.getMaxChunkBytes();
    int limit = most > 0 && most < CHUNK_BYTES ? (int) most : CHUNK_BYTES;
    while (hasRoom(offset)) {
      ByteBuffer chunk = ByteBuffer.allocate(limit);
      if (source.read(chunk, offset) < 0) {
        finish(offset, sum);
        return;
      }
      chunk.flip();
      sum.update(chunk.duplicate());
      send(UploadRequest.newBuilder().setChunk(chunkOf(chunk, offset)).build());
      offset += chunk.limit();
    }
  }

  private static UploadChunk chunkOf(ByteBuffer content, long offset) {
    CRC32C sum = new CRC32C();
    sum.update(content.duplicate());
    // Nobody writes into it any more.
    ByteString data = UnsafeByteOperations.unsafeWrap(content);
    return UploadChunk.newBuilder().setOffset(offset).setData(data).setCrc32C((int) sum.getValue()).build();
  }

  private void finish(long totalSize, CRC32C sum) throws InterruptedException {
    UploadFinish.Builder finish = UploadFinish.newBuilder().setTotalSize(totalSize);
    if (started.hasPersistedCrc32C()) {
      finish.setCrc32C((int) sum.getValue());
    }
    synchronized (this) {
      isFinished = true;
    }
    send(UploadRequest.newBuilder().setFinish(finish).build());
  }

  /** Waits until less than the window is on its way; whether to go on writing. */
  private boolean hasRoom(long offset) throws InterruptedException {
    BooleanSupplier room = () -> offset - safe < upload.windowBytes;
    if (!await(room, FLUSH_AFTER)) {
      send(UploadRequest.newBuilder().setFlush(UploadFlush.getDefaultInstance()).build());
      await(room, FOR_EVER);
    }
    synchronized (this) {
      return !isOver;
    }
  }

  /** Compares what the server has with the source; the checksum of that. */
  private CRC32C checkBeginning() throws IOException {
    long size = started.getPersistedOffset();
    CRC32C sum = new CRC32C();
    ByteBuffer buffer = ByteBuffer.allocate(CHUNK_BYTES);
    for (long at = 0; at < size; at += buffer.limit()) {
      buffer.clear().limit((int) Math.min(size - at, CHUNK_BYTES));
      if (source.read(buffer, at) < 0) {
        throw new DifferentContentException("there are only " + at + " bytes, but " + size + " were stored.");
      }
      buffer.flip();
      sum.update(buffer.duplicate());
    }
    if (started.hasPersistedCrc32C() && (int) sum.getValue() != started.getPersistedCrc32C()) {
      throw new DifferentContentException("the first " + size + " bytes differ from those stored.");
    }
    return sum;
  }

  /** Compares the source with an upload that had been finished before. */
  private void checkWhole() throws IOException {
    checkBeginning();
    long size = started.getPersistedOffset();
    if (source.read(ByteBuffer.allocate(1), size) > 0) {
      throw new DifferentContentException(
          "there are more bytes than the " + size + " that it was finished with.");
    }
  }

  /** Sends a message as soon as gRPC has room for it; not at all if nothing more is to be written. */
  private void send(UploadRequest message) throws InterruptedException {
    await(() -> requests.isReady(), FOR_EVER);
    synchronized (this) {
      if (!isOver) {
        requests.onNext(message);
      }
    }
  }

  private synchronized void wake() {
    notifyAll();
  }

  /** Waits until the call has ended: what it ended with may still be on its way when there is nothing more to write. */
  private synchronized void awaitEnd() throws InterruptedException {
    while (!isClosed) {
      wait();
    }
  }

  /** Waits until something holds or nothing more is to be written; false if neither came to be in time. */
  private synchronized boolean await(BooleanSupplier until, Duration atMost) throws InterruptedException {
    long begun = System.nanoTime();
    while (!isOver && !until.getAsBoolean()) {
      long left = atMost.toNanos() - (System.nanoTime() - begun);
      if (left <= 0) {
        return false;
      }
      wait(left / 1_000_000 + 1);
    }
    return true;
  }
}
