package headrace.examples;

import headrace.client.HeadraceException;
import headrace.v1.PipelineServiceGrpc;
import headrace.v1.ReadTableRequest;
import headrace.v1.ReadTableResponse;
import headrace.v1.ReadTableStarted;
import headrace.v1.RowEncoding;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.util.Iterator;
import java.util.concurrent.TimeUnit;
import org.apache.arrow.memory.BufferAllocator;
import org.apache.arrow.memory.RootAllocator;
import org.apache.arrow.vector.ipc.ArrowStreamReader;

/**
 * Prints the schema of a table and counts its rows, which come as Arrow: {@code headrace.examples.Read TENANT TABLE}
 *
 * <p>Arrow wants {@code --add-opens=java.base/java.nio=ALL-UNNAMED}. HEADRACE_ADDRESS is where the server is,
 * 127.0.0.1:50051 by default.
 */
public final class Read {
  private Read() {}

  public static void main(String[] arguments) throws IOException {
    if (arguments.length != 2) {
      System.err.println("usage: Read TENANT TABLE");
      System.exit(2);
    }
    ReadTableRequest request =
        ReadTableRequest.newBuilder()
            .setTenantId(arguments[0])
            .setTable(arguments[1])
            .setEncoding(RowEncoding.ROW_ENCODING_ARROW_IPC)
            .build();
    String address = System.getenv().getOrDefault("HEADRACE_ADDRESS", "127.0.0.1:50051");
    ManagedChannel channel =
        Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).keepAliveTime(20, TimeUnit.SECONDS).build();
    try (BufferAllocator memory = new RootAllocator()) {
      System.out.printf("%d rows read%n", read(PipelineServiceGrpc.newBlockingStub(channel).readTable(request), memory));
    } catch (StatusRuntimeException failed) {
      System.err.println(HeadraceException.from(failed));
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }

  private static long read(Iterator<ReadTableResponse> responses, BufferAllocator memory) throws IOException {
    long rows = 0;
    while (responses.hasNext()) {
      ReadTableResponse response = responses.next();
      if (response.hasStarted()) {
        ReadTableStarted started = response.getStarted();
        System.out.printf("version %d of %s: %d rows%n", started.getVersion(), started.getTableUri(), started.getRows());
        continue;
      }
      // Each message is an Arrow IPC stream, complete in itself.
      try (var batches = new ArrowStreamReader(response.getArrowIpc().newInput(), memory)) {
        if (rows == 0) {
          System.out.println(batches.getVectorSchemaRoot().getSchema());
        }
        while (batches.loadNextBatch()) {
          rows += batches.getVectorSchemaRoot().getRowCount();
        }
      }
    }
    return rows;
  }
}
