import assert from "node:assert/strict";
import { test } from "node:test";

import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";

import { crc32c } from "../src/crc32c.js";
import { ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../src/gen/google/rpc/status_pb.js";
import { bytesSource, connect, ErrorReason, Format, HeadraceError, upload } from "../src/index.js";

const nobody = connect("http://127.0.0.1:1");
const nothing = bytesSource(new Uint8Array());

function failed(code: Code, domain: string, reason: string): HeadraceError {
  const info = create(ErrorInfoSchema, { domain, reason, metadata: { limit: "64" } });
  const retry = create(RetryInfoSchema, { retryDelay: { seconds: 1n, nanos: 500_000_000 } });
  const error = new ConnectError("too much", code);
  error.details = [
    { type: ErrorInfoSchema.typeName, value: toBinary(ErrorInfoSchema, info) },
    { type: RetryInfoSchema.typeName, value: toBinary(RetryInfoSchema, retry) },
  ];
  const details = [anyPack(ErrorInfoSchema, info), anyPack(RetryInfoSchema, retry)];
  const inBand = HeadraceError.fromStatus(create(StatusSchema, { code, message: "too much", details }));
  const thrown = HeadraceError.from(error);
  for (const name of ["code", "reason", "metadata", "retryDelayMs", "message"] as const) {
    assert.deepEqual(inBand[name], thrown[name]);
  }
  return thrown;
}

test("an error has what the server told, in band and as a status", () => {
  const error = failed(Code.ResourceExhausted, "headrace", "OVERLOADED");
  assert.equal(error.reason, ErrorReason.OVERLOADED);
  assert.deepEqual(error.metadata, { limit: "64" });
  assert.equal(error.retryDelayMs, 1500);
  assert.equal(error.retryable, true);
  assert.equal(String(error), "HeadraceError: OVERLOADED (ResourceExhausted): too much");
});

test("retryability is that of the reason before that of the code", () => {
  assert.equal(failed(Code.Internal, "headrace", "POISON_BLOCK").retryable, false);
  assert.equal(failed(Code.Internal, "headrace", "INTERNAL").retryable, true);
});

test("reasons of others and of newer servers are none", () => {
  for (const error of [
    failed(Code.Unavailable, "other.example", "OVERLOADED"),
    failed(Code.Unavailable, "headrace", "OF_THE_FUTURE"),
  ]) {
    assert.equal(error.reason, ErrorReason.UNSPECIFIED);
    assert.equal(error.retryable, true);
  }
});

test("checksums are those of RFC 3720, however the bytes are cut", () => {
  assert.equal(crc32c(Buffer.from("123456789")), 0xe3069283);
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
  const counting = Uint8Array.from({ length: 32 }, (_, n) => n);
  assert.equal(crc32c(counting), 0x46dd794e);
  for (let cut = 0; cut <= 32; cut++) {
    assert.equal(crc32c(counting.subarray(cut), crc32c(counting.subarray(0, cut))), 0x46dd794e);
  }
});

test("an upload to nobody is tried again and then given up", async () => {
  let tries = 0;
  const header = { tenantId: "acme", dataType: "items", uploadId: "7c1e" };
  const error: unknown = await upload(nobody, header, nothing, {
    patienceMs: 1000,
    onProgress: ({ interruption }) => void (tries += interruption === undefined ? 0 : 1),
  }).catch((thrown: unknown) => thrown);
  assert(error instanceof HeadraceError);
  assert.equal(error.code, Code.Unavailable);
  assert.deepEqual(error.metadata, { upload_id: "7c1e", persisted_offset: "0" });
  assert(tries > 0);
});

test("an upload ends with its signal", async () => {
  const end = new AbortController();
  const enough = new Error("enough");
  const uploading = upload(nobody, {}, nothing, { signal: end.signal, onProgress: () => end.abort(enough) });
  await assert.rejects(uploading, enough);
});

test("rows are not bytes", async () => {
  await assert.rejects(upload(nobody, { format: Format.ROWS }, nothing), TypeError);
});
