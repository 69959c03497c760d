package headrace.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import headrace.v1.Format;
import headrace.v1.UploadHeader;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** What needs no server. */
class UploaderTest {
  private static final UploadSource NOTHING = (into, offset) -> -1;
  private static final UploadHeader HEADER =
      UploadHeader.newBuilder().setTenantId("acme").setDataType("items").setUploadId("7c1e").build();

  private final ManagedChannel nobody =
      Grpc.newChannelBuilder("127.0.0.1:1", InsecureChannelCredentials.create()).build();

  @AfterEach
  void close() {
    nobody.shutdownNow();
  }

  @Test
  void triesAgainAndThenGivesUp() {
    List<Progress> heard = new ArrayList<>();
    var uploader = new Uploader(nobody).withPatience(Duration.ofSeconds(1)).withProgress(heard::add);
    var error = assertThrows(HeadraceException.class, () -> uploader.upload(HEADER, NOTHING));
    assertEquals(Status.Code.UNAVAILABLE, error.code());
    assertEquals(Map.of("upload_id", "7c1e", "persisted_offset", "0"), error.metadata());
    assertTrue(heard.stream().anyMatch(progress -> progress.interruption().isPresent()));
  }

  @Test
  void throwsWhatProgressThrows() {
    var mine = new IllegalStateException("mine");
    var uploader =
        new Uploader(nobody)
            .withProgress(
                progress -> {
                  throw mine;
                });
    assertSame(mine, assertThrows(IllegalStateException.class, () -> uploader.upload(HEADER, NOTHING)));
  }

  @Test
  void refusesRows() {
    var header = HEADER.toBuilder().setFormat(Format.FORMAT_ROWS).build();
    assertThrows(IllegalArgumentException.class, () -> new Uploader(nobody).upload(header, NOTHING));
  }
}
