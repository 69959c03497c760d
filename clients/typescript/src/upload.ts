import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code } from "@connectrpc/connect";

import { Backoff } from "./backoff.js";
import { HeadraceError } from "./error.js";
import { ErrorReason } from "./gen/headrace/v1/error_reason_pb.js";
import type { PipelineService } from "./gen/headrace/v1/pipeline_service_pb.js";
import { Format, type UploadHeader, UploadHeaderSchema, type UploadResult } from "./gen/headrace/v1/upload_pb.js";
import { type Source, withFile } from "./source.js";
import { UploadStream } from "./stream.js";

const WINDOW_BYTES = 64 << 20;
const LEAST_WINDOW_BYTES = 2 << 20;
const PATIENCE_MS = 120_000;
/** Retries, without progress in between, after errors that may be permanent. */
const DOUBTFUL_TRIES = 6;

/** What `upload` needs of a client: `createClient(PipelineService, transport)` has it. */
export type UploadClient = Pick<Client<typeof PipelineService>, "upload">;

/** How far an upload has come, by the server's word. */
export interface Progress {
  readonly uploadId: string;
  /** How many bytes of the stream survive any crash. Never less than before. */
  readonly persistedOffset: bigint;
  /** Counts so far, provisional; `rowsRejected` includes `rowsDuplicate`. */
  readonly rowsAccepted: bigint;
  readonly rowsRejected: bigint;
  readonly rowsDuplicate: bigint;
  /** What broke the upload, which is about to go on by itself; undefined while it runs. */
  readonly interruption?: HeadraceError;
}

export interface UploadOptions {
  /** Called after every ack and every interruption. */
  onProgress?: (progress: Progress) => void;
  /** For how long an upload without progress is tried again: by default two minutes, 0 = not at all. */
  patienceMs?: number;
  /**
   * How many bytes may be on their way without an ack: by default 64 MiB, at least 2 MiB, since a record that has only
   * begun, and may have 1 MiB, cannot be acknowledged.
   */
  windowBytes?: number;
  /** Ends the upload. What is persisted stays, and another `upload` with the same uploadId goes on there. */
  signal?: AbortSignal;
}

/** Uploads a file; see `upload`. */
export function uploadFile(
  client: UploadClient,
  header: MessageInitShape<typeof UploadHeaderSchema>,
  path: string,
  options: UploadOptions = {},
): Promise<UploadResult> {
  return withFile(path, (source) => upload(client, header, source, options));
}

/**
 * Streams a source, to its end, into a tenant's table and returns how that ended. Rows that break the data contract
 * are no error: the result's outcome, counts and report tell of them.
 *
 * When the connection breaks or the server is restarted, the upload goes on where the server stands, with backoff. If
 * it fails all the same, the error's metadata has upload_id and persisted_offset; a later `upload` with that
 * `uploadId`, the same header otherwise and the same source goes on there, or returns the result if the upload had
 * finished. An empty `uploadId` is replaced by a random one. The format must be one of bytes: not ROWS.
 *
 * @throws HeadraceError The upload failed.
 * @throws DifferentContentError The upload was begun with other content.
 * @throws What reading the source threw, or the signal's reason.
 */
export async function upload(
  client: UploadClient,
  header: MessageInitShape<typeof UploadHeaderSchema>,
  source: Source,
  options: UploadOptions = {},
): Promise<UploadResult> {
  if (header.format === Format.ROWS) {
    throw new TypeError("upload sends bytes, not Format.ROWS; use ingestInteractions, ingestItems or client.upload");
  }
  const named = create(UploadHeaderSchema, { ...header, uploadId: header.uploadId || randomUUID() });
  const state = new Upload(named, options);
  for (;;) {
    try {
      return await new UploadStream(client, state, source).run();
    } catch (thrown) {
      options.signal?.throwIfAborted();
      await sleep(state.pauseMs(thrown), undefined, { signal: options.signal }).catch(() => {
        options.signal?.throwIfAborted();
      });
    }
  }
}

/** An upload over all its streams. */
export class Upload {
  readonly windowBytes: number;
  readonly signal?: AbortSignal;
  progress: Progress;
  /**
   * Whether a stream broke before the server answered its header: the server may read it late, and fence with it the
   * stream that came after it. It can do so once.
   */
  mayFenceItself = false;
  #doubts = 0;
  readonly #backoff: Backoff;
  readonly #onProgress: (progress: Progress) => void;

  constructor(
    readonly header: UploadHeader,
    options: UploadOptions,
  ) {
    this.windowBytes = Math.max(options.windowBytes ?? WINDOW_BYTES, LEAST_WINDOW_BYTES);
    this.signal = options.signal;
    this.#backoff = new Backoff(options.patienceMs ?? PATIENCE_MS);
    this.#onProgress = options.onProgress ?? (() => {});
    this.progress = {
      uploadId: header.uploadId,
      persistedOffset: 0n,
      rowsAccepted: 0n,
      rowsRejected: 0n,
      rowsDuplicate: 0n,
    };
  }

  /** Takes an ack. */
  acked(ack: Omit<Progress, "uploadId" | "interruption">): void {
    const before = this.progress;
    this.progress = {
      uploadId: before.uploadId,
      persistedOffset: ack.persistedOffset > before.persistedOffset ? ack.persistedOffset : before.persistedOffset,
      rowsAccepted: ack.rowsAccepted,
      rowsRejected: ack.rowsRejected,
      rowsDuplicate: ack.rowsDuplicate,
    };
    // Counts grow without the offset while the server decodes a stream after its finish.
    const rows = ack.rowsAccepted + ack.rowsRejected;
    if (ack.persistedOffset > before.persistedOffset || rows > before.rowsAccepted + before.rowsRejected) {
      this.#backoff.progressed();
      this.#doubts = 0;
    }
    this.#onProgress(this.progress);
  }

  /** How long to wait before the next stream; throws what the last one ended with if that is not worth another one. */
  pauseMs(thrown: unknown): number {
    if (!(thrown instanceof HeadraceError)) {
      throw thrown; // Of the source, or of what it has.
    }
    thrown.metadata["upload_id"] = this.header.uploadId;
    thrown.metadata["persisted_offset"] = String(this.progress.persistedOffset);
    if ([ErrorReason.IDLE_TIMEOUT, ErrorReason.GAVE_WAY].includes(thrown.reason)) {
      this.#backoff.progressed(); // The source is slow, nothing is wrong.
    }
    const delayMs = this.#passes(thrown) ? this.#backoff.failed(thrown.retryDelayMs) : undefined;
    if (delayMs === undefined) {
      throw thrown;
    }
    this.#onProgress({ ...this.progress, interruption: thrown });
    return delayMs;
  }

  /** Whether another stream may do better. */
  #passes(error: HeadraceError): boolean {
    const hasReason = error.reason !== ErrorReason.UNSPECIFIED;
    if (error.reason === ErrorReason.FENCED) {
      // Another client has taken the upload over; answering in kind would let two fight for ever.
      const isOurs = this.mayFenceItself;
      this.mayFenceItself = false;
      return isOurs;
    }
    if (hasReason && !error.retryable) {
      return false;
    }
    switch (error.code) {
      case Code.Unavailable:
        return true;
      case Code.ResourceExhausted: // Without a reason it is gRPC's own, about sizes of messages.
        return hasReason;
      case Code.Internal:
      case Code.DataLoss:
      case Code.OutOfRange:
      case Code.Aborted:
      case Code.Canceled:
      case Code.Unknown:
        // An accident or for good, who knows. Without a reason: what Node and proxies say of a connection that broke
        // in the middle.
        this.#doubts++;
        return this.#doubts <= DOUBTFUL_TRIES;
      default:
        return false;
    }
  }
}
