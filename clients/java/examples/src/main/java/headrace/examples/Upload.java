package headrace.examples;

import headrace.client.HeadraceException;
import headrace.client.Progress;
import headrace.client.Uploader;
import headrace.v1.Check;
import headrace.v1.Reject;
import headrace.v1.UploadHeader;
import headrace.v1.UploadResult;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/**
 * Streams a CSV file of interactions with progress: {@code headrace.examples.Upload FILE TENANT [UPLOAD_ID]}
 *
 * <p>It goes on by itself while the server is restarted. If this program is the one that dies, run it again with the id
 * it printed. HEADRACE_ADDRESS is where the server is, 127.0.0.1:50051 by default; HEADRACE_WINDOW_BYTES how much may be
 * on its way to it.
 */
public final class Upload {
  private Upload() {}

  public static void main(String[] arguments) throws Exception {
    if (arguments.length < 2) {
      System.err.println("usage: Upload FILE TENANT [UPLOAD_ID]");
      System.exit(2);
    }
    UploadHeader header =
        UploadHeader.newBuilder()
            .setTenantId(arguments[1])
            .setDataType("interactions")
            .setUploadId(arguments.length > 2 ? arguments[2] : "")
            .build();
    String address = System.getenv().getOrDefault("HEADRACE_ADDRESS", "127.0.0.1:50051");
    ManagedChannel channel =
        Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).keepAliveTime(20, TimeUnit.SECONDS).build();
    Uploader uploader = new Uploader(channel).withProgress(Upload::show);
    String windowBytes = System.getenv("HEADRACE_WINDOW_BYTES");
    if (windowBytes != null) {
      uploader = uploader.withWindow(Long.parseLong(windowBytes));
    }
    try {
      show(uploader.upload(header, Path.of(arguments[0])));
    } catch (HeadraceException failed) {
      System.err.println(failed);
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }

  private static void show(Progress progress) {
    progress
        .interruption()
        .ifPresentOrElse(
            why -> System.out.printf("interrupted at byte %d, going on: %s%n", progress.persistedOffset(), why),
            () ->
                System.out.printf(
                    "upload %s: %d bytes safe, %d rows accepted, %d rejected%n",
                    progress.uploadId(),
                    progress.persistedOffset(),
                    progress.rowsAccepted(),
                    progress.rowsRejected()));
  }

  /** Bad rows are no error: the outcome, the counts and the report tell of them. */
  private static void show(UploadResult result) {
    System.out.printf(
        "%s version %d: %d rows received, %d accepted, %d rejected, %d of these duplicate%n",
        result.getOutcome(),
        result.getVersion(),
        result.getRowsReceived(),
        result.getRowsAccepted(),
        result.getRowsRejected(),
        result.getRowsDuplicate());
    for (Check check : result.getReport().getChecksList()) {
      System.out.printf("%s %s: %d rows, such as%n", check.getColumn(), check.getCode(), check.getFailingRows());
      for (Reject reject : check.getSamplesList()) {
        System.out.printf("  line %d: %s%n", reject.getLine(), reject.getMessage());
      }
    }
  }
}
