/**
 * Tells how far an upload has come, and shows how to handle the typed errors of failed calls:
 * `node examples/dist/status.js TENANT UPLOAD_ID`
 *
 * HEADRACE_ADDRESS is where the server is, 127.0.0.1:50051 by default.
 */
import { connect, ErrorReason, HeadraceError, UploadState } from "headrace";

const [tenantId, uploadId] = process.argv.slice(2);
if (tenantId === undefined || uploadId === undefined) {
  console.error("usage: status TENANT UPLOAD_ID");
  process.exit(2);
}

const address = process.env["HEADRACE_ADDRESS"] ?? "127.0.0.1:50051";
const client = connect(`http://${address}`);
try {
  const { state, persistedOffset } = await client.getUpload({ tenantId, uploadId });
  console.log(`${UploadState[state]}, ${persistedOffset} bytes safe`);
} catch (thrown) {
  const error = HeadraceError.from(thrown);
  if (error.reason === ErrorReason.UPLOAD_NOT_FOUND) {
    console.log(`there is no upload ${error.metadata["upload_id"]}`);
  } else if (error.retryable) {
    console.log(`try again later: ${error}`);
  } else {
    console.log(`failed for good: ${error}`);
  }
}
