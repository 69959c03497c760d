package headrace.client;

import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * What an upload is made of: bytes that can be read again, from any offset. {@code fileChannel::read} is one.
 */
@FunctionalInterface
public interface UploadSource {
  /**
   * Reads bytes from an offset on.
   *
   * @param into takes as many as it has room for, or fewer
   * @param offset where they begin
   * @return how many there were; -1 at the end
   * @throws IOException if they cannot be read
   */
  int read(ByteBuffer into, long offset) throws IOException;
}
