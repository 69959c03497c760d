package headrace.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import headrace.v1.ErrorReason;
import headrace.v1.ErrorTraits;
import headrace.v1.ErrorTraitsProto;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.Collections;
import java.util.EnumSet;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * A failed call, as the server tells of it. {@link Uploader} throws it; {@link #from} makes it of the
 * {@link io.grpc.StatusRuntimeException} that the generated client throws.
 */
public final class HeadraceException extends RuntimeException {
  private static final String DOMAIN = "headrace";
  private static final String PREFIX = "ERROR_REASON_";
  private static final Set<Status.Code> RETRYABLE_CODES =
      EnumSet.of(Status.Code.UNAVAILABLE, Status.Code.DEADLINE_EXCEEDED, Status.Code.ABORTED);

  private final Status.Code code;
  private final ErrorReason reason;
  private final TreeMap<String, String> metadata = new TreeMap<>();
  private final Duration retryDelay;

  private HeadraceException(com.google.rpc.Status status, Throwable cause) {
    super(status.getMessage(), cause);
    this.code = Status.fromCodeValue(status.getCode()).getCode();
    ErrorInfo info = find(status, ErrorInfo.class, ErrorInfo.getDefaultInstance());
    boolean isOurs = info.getDomain().equals(DOMAIN);
    this.reason = isOurs ? reasonOf(info.getReason()) : ErrorReason.ERROR_REASON_UNSPECIFIED;
    if (isOurs) {
      metadata.putAll(info.getMetadataMap());
    }
    var delay = find(status, RetryInfo.class, RetryInfo.getDefaultInstance()).getRetryDelay();
    this.retryDelay = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
  }

  /** The error of whatever a call threw. */
  public static HeadraceException from(Throwable thrown) {
    if (thrown instanceof HeadraceException already) {
      return already;
    }
    com.google.rpc.Status told = StatusProto.fromThrowable(thrown);
    if (told != null && told.getDetailsCount() > 0) {
      return new HeadraceException(told, thrown);
    }
    Status status = Status.fromThrowable(thrown);
    if (status.getCause() != null) {
      // gRPC says no more than "io exception".
      status = status.augmentDescription(status.getCause().toString());
    }
    return new HeadraceException(StatusProto.fromStatusAndTrailers(status, null), thrown);
  }

  static HeadraceException of(com.google.rpc.Status status) {
    return new HeadraceException(status, null);
  }

  /** The gRPC status code. */
  public Status.Code code() {
    return code;
  }

  /**
   * What went wrong; ERROR_REASON_UNSPECIFIED when the failure did not come from a server of Headrace, such as a lost
   * connection, or from a newer one.
   */
  public ErrorReason reason() {
    return reason;
  }

  /**
   * Machine-readable facts, as error_reason.proto lists them for each reason. {@link Uploader} adds upload_id and
   * persisted_offset.
   */
  public Map<String, String> metadata() {
    return Collections.unmodifiableMap(metadata);
  }

  /** How long the server asks to wait before another try; zero if it does not say. */
  public Duration retryDelay() {
    return retryDelay;
  }

  /** Whether the same call may succeed later: by the reason's traits in the contract, else by the code. */
  public boolean isRetryable() {
    var options = reason.getValueDescriptor().getOptions();
    if (!options.hasExtension(ErrorTraitsProto.errorTraits)) {
      return RETRYABLE_CODES.contains(code);
    }
    ErrorTraits traits = options.getExtension(ErrorTraitsProto.errorTraits);
    return traits.getRetryable();
  }

  boolean hasReason() {
    return reason != ErrorReason.ERROR_REASON_UNSPECIFIED;
  }

  void nameUpload(String uploadId, long persistedOffset) {
    metadata.put("upload_id", uploadId);
    metadata.put("persisted_offset", Long.toString(persistedOffset));
  }

  /** The message with the reason, if the server told one, and the code. */
  @Override
  public String toString() {
    String name = hasReason() ? reason.name().substring(PREFIX.length()) + " " : "";
    return getClass().getSimpleName() + ": " + name + "(" + code() + "): " + getMessage();
  }

  private static ErrorReason reasonOf(String name) {
    try {
      return ErrorReason.valueOf(PREFIX + name);
    } catch (IllegalArgumentException newer) {
      return ErrorReason.ERROR_REASON_UNSPECIFIED;
    }
  }

  private static <T extends com.google.protobuf.Message> T find(
      com.google.rpc.Status status, Class<T> kind, T otherwise) {
    for (Any detail : status.getDetailsList()) {
      if (detail.is(kind)) {
        try {
          return detail.unpack(kind);
        } catch (InvalidProtocolBufferException damaged) {
          return otherwise;
        }
      }
    }
    return otherwise;
  }
}
