/**
 * Prints the schema of a table and counts its rows, which come as Arrow: `node examples/dist/read.js TENANT TABLE`
 *
 * HEADRACE_ADDRESS is where the server is, 127.0.0.1:50051 by default.
 */
import { tableFromIPC } from "apache-arrow";
import { connect, HeadraceError, RowEncoding } from "headrace";

const [tenantId, table] = process.argv.slice(2);
if (tenantId === undefined || table === undefined) {
  console.error("usage: read TENANT TABLE");
  process.exit(2);
}

const address = process.env["HEADRACE_ADDRESS"] ?? "127.0.0.1:50051";
const client = connect(`http://${address}`);
let rows = 0;
try {
  for await (const { response } of client.readTable({ tenantId, table, encoding: RowEncoding.ARROW_IPC })) {
    if (response.case === "started") {
      console.log(`version ${response.value.version} of ${response.value.tableUri}: ${response.value.rows} rows`);
    } else if (response.case === "arrowIpc") {
      // Each message is an Arrow IPC stream, complete in itself.
      const part = tableFromIPC(response.value);
      if (rows === 0) {
        console.log(String(part.schema));
      }
      rows += part.numRows;
    }
  }
  console.log(`${rows} rows read`);
} catch (error) {
  console.error(String(HeadraceError.from(error)));
  process.exitCode = 1;
}
