package headrace.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import headrace.v1.ErrorReason;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class HeadraceExceptionTest {
  private static HeadraceException failed(Status.Code code, String domain, String reason) {
    var info = ErrorInfo.newBuilder().setDomain(domain).setReason(reason).putMetadata("limit", "64").build();
    var delay = Duration.newBuilder().setSeconds(1).setNanos(500_000_000);
    var status =
        com.google.rpc.Status.newBuilder()
            .setCode(code.value())
            .setMessage("too much")
            .addDetails(Any.pack(info))
            .addDetails(Any.pack(RetryInfo.newBuilder().setRetryDelay(delay).build()))
            .build();
    return HeadraceException.from(StatusProto.toStatusRuntimeException(status));
  }

  @Test
  void hasWhatTheServerTold() {
    var error = failed(Status.Code.RESOURCE_EXHAUSTED, "headrace", "OVERLOADED");
    assertEquals(Status.Code.RESOURCE_EXHAUSTED, error.code());
    assertEquals(ErrorReason.ERROR_REASON_OVERLOADED, error.reason());
    assertEquals(Map.of("limit", "64"), error.metadata());
    assertEquals(java.time.Duration.ofMillis(1500), error.retryDelay());
    assertTrue(error.isRetryable());
    assertEquals("HeadraceException: OVERLOADED (RESOURCE_EXHAUSTED): too much", error.toString());
  }

  @Test
  void isRetryableByItsReasonBeforeItsCode() {
    assertFalse(failed(Status.Code.INTERNAL, "headrace", "POISON_BLOCK").isRetryable());
    assertTrue(failed(Status.Code.INTERNAL, "headrace", "INTERNAL").isRetryable());
  }

  @Test
  void hasNoReasonOfOthersOrOfNewerServers() {
    for (var error :
        List.of(
            failed(Status.Code.UNAVAILABLE, "other.example", "OVERLOADED"),
            failed(Status.Code.UNAVAILABLE, "headrace", "OF_THE_FUTURE"))) {
      assertEquals(ErrorReason.ERROR_REASON_UNSPECIFIED, error.reason());
      assertTrue(error.isRetryable());
    }
  }
}
