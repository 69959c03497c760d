package headrace.examples;

import headrace.client.HeadraceException;
import headrace.v1.ErrorReason;
import headrace.v1.GetUploadRequest;
import headrace.v1.GetUploadResponse;
import headrace.v1.PipelineServiceGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.util.concurrent.TimeUnit;

/**
 * Tells how far an upload has come, and shows how to handle the typed errors of failed calls:
 * {@code headrace.examples.Status TENANT UPLOAD_ID}
 *
 * <p>HEADRACE_ADDRESS is where the server is, 127.0.0.1:50051 by default.
 */
public final class Status {
  private Status() {}

  public static void main(String[] arguments) {
    if (arguments.length != 2) {
      System.err.println("usage: Status TENANT UPLOAD_ID");
      System.exit(2);
    }
    GetUploadRequest request =
        GetUploadRequest.newBuilder().setTenantId(arguments[0]).setUploadId(arguments[1]).build();
    String address = System.getenv().getOrDefault("HEADRACE_ADDRESS", "127.0.0.1:50051");
    ManagedChannel channel =
        Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).keepAliveTime(20, TimeUnit.SECONDS).build();
    try {
      GetUploadResponse upload = PipelineServiceGrpc.newBlockingStub(channel).getUpload(request);
      System.out.printf("%s, %d bytes safe%n", upload.getState(), upload.getPersistedOffset());
    } catch (StatusRuntimeException thrown) {
      HeadraceException failed = HeadraceException.from(thrown);
      if (failed.reason() == ErrorReason.ERROR_REASON_UPLOAD_NOT_FOUND) {
        System.out.printf("there is no upload %s%n", failed.metadata().get("upload_id"));
      } else if (failed.isRetryable()) {
        System.out.printf("try again later: %s%n", failed);
      } else {
        System.out.printf("failed for good: %s%n", failed);
      }
    } finally {
      channel.shutdownNow();
    }
  }
}
