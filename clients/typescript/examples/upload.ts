/**
 * Streams a CSV file of interactions with progress: `node examples/dist/upload.js FILE TENANT [UPLOAD_ID]`
 *
 * It goes on by itself while the server is restarted. If this program is the one that dies, run it again with the id it
 * printed. HEADRACE_ADDRESS is where the server is, 127.0.0.1:50051 by default; HEADRACE_WINDOW_BYTES how much may be on
 * its way to it.
 */
import { connect, Outcome, type Progress, uploadFile } from "headrace";

const [file, tenantId, uploadId] = process.argv.slice(2);
if (file === undefined || tenantId === undefined) {
  console.error("usage: upload FILE TENANT [UPLOAD_ID]");
  process.exit(2);
}

const address = process.env["HEADRACE_ADDRESS"] ?? "127.0.0.1:50051";
const client = connect(`http://${address}`);
try {
  const header = { tenantId, dataType: "interactions", uploadId };
  const windowBytes = Number(process.env["HEADRACE_WINDOW_BYTES"]) || undefined;
  const result = await uploadFile(client, header, file, { onProgress: show, windowBytes });

  // Bad rows are no error: the outcome, the counts and the report tell of them.
  console.log(
    `${Outcome[result.outcome]} version ${result.version}: ${result.rowsReceived} rows received, ` +
      `${result.rowsAccepted} accepted, ${result.rowsRejected} rejected, ${result.rowsDuplicate} of these duplicate`,
  );
  for (const check of result.report?.checks ?? []) {
    console.log(`${check.column} ${check.code}: ${check.failingRows} rows, such as`);
    for (const reject of check.samples) {
      console.log(`  line ${reject.line}: ${reject.message}`);
    }
  }
} catch (error) {
  console.error(String(error));
  process.exitCode = 1;
}

function show({ uploadId, persistedOffset, rowsAccepted, rowsRejected, interruption }: Progress): void {
  if (interruption !== undefined) {
    console.log(`interrupted at byte ${persistedOffset}, going on: ${interruption}`);
    return;
  }
  console.log(
    `upload ${uploadId}: ${persistedOffset} bytes safe, ${rowsAccepted} rows accepted, ${rowsRejected} rejected`,
  );
}
