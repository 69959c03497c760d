package headrace.client;

import java.io.IOException;

/** An upload was begun, or finished, with other content. */
public final class DifferentContentException extends IOException {
  DifferentContentException(String why) {
    super("This is not the content that the upload was begun with: " + why);
  }
}
