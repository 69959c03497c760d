import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";

import { crc32c } from "./crc32c.js";
import { DifferentContentError, HeadraceError } from "./error.js";
import { ErrorReason } from "./gen/headrace/v1/error_reason_pb.js";
import type { UploadRequestSchema, UploadResult, UploadStarted } from "./gen/headrace/v1/upload_pb.js";
import type { Source } from "./source.js";
import type { UploadClient, Upload } from "./upload.js";

const CHUNK_BYTES = 512 << 10;
/** How long a full window is waited on before the server is asked to flush. */
const FLUSH_AFTER_MS = 1000;

type Request = MessageInitShape<typeof UploadRequestSchema>;

/**
 * One stream of an upload: a generator writes beside the reader. It waits for the header's answer and for room in the
 * window. An error in band stops it, the stream is half-closed, and the reader goes on to the end: that way a status is
 * never lost among what is still being written.
 */
export class UploadStream {
  #started?: UploadStarted;
  /** Where the server stands. */
  #safe = 0;
  /** Nothing more is to be written. */
  #isOver = false;
  /** Finish was sent: after that draining is no reason to stop. */
  #isFinished = false;
  #sourceError?: { thrown: unknown };
  #wake = () => {};

  constructor(
    private readonly client: UploadClient,
    private readonly upload: Upload,
    private readonly source: Source,
  ) {}

  /** Runs it and returns the result. */
  async run(): Promise<UploadResult> {
    const end = new AbortController();
    const signals = this.upload.signal ? [end.signal, this.upload.signal] : [end.signal];
    try {
      return await this.#read(AbortSignal.any(signals));
    } catch (thrown) {
      if (this.#sourceError !== undefined) {
        throw this.#sourceError.thrown;
      }
      throw thrown;
    } finally {
      this.#change(() => (this.#isOver = true));
      end.abort();
    }
  }

  /** Takes responses to the end of the call. */
  async #read(signal: AbortSignal): Promise<UploadResult> {
    let inBand: HeadraceError | undefined;
    let isAcked = false;
    let isDraining = false;
    const responses = this.client.upload(this.#requests(), { signal })[Symbol.asyncIterator]();
    for (;;) {
      const next = await responses.next().catch((thrown: unknown) => {
        throw inBand ?? this.#broken(HeadraceError.from(thrown));
      });
      if (next.done) {
        const why = isDraining ? "The server is shutting down." : "The server ended the stream without a result.";
        throw inBand ?? HeadraceError.from(new ConnectError(why, Code.Unavailable));
      }
      const { response } = next.value;
      switch (response.case) {
        case "started": {
          const { persistedOffset } = response.value;
          this.#change(() => {
            this.#started = response.value;
            this.#safe = Number(persistedOffset);
          });
          this.upload.acked({ ...this.upload.progress, persistedOffset });
          break;
        }
        case "ack":
          isAcked = true;
          this.#change(() => (this.#safe = Number(response.value.persistedOffset)));
          this.upload.acked(response.value);
          break;
        case "draining":
          isDraining = true;
          this.#change(() => (this.#isOver ||= !this.#isFinished));
          break;
        case "error":
          // Also one that leaves the stream usable: another stream mends it as well.
          this.#change(() => (this.#isOver = true));
          inBand ??= HeadraceError.fromStatus(response.value);
          break;
        case "result":
          // A server acknowledges a finish before it tells the result; of an upload that had been finished before it
          // tells the result at once.
          if (!isAcked && this.#started !== undefined) {
            await this.#checkWhole(this.#started);
          }
          return response.value;
      }
    }
  }

  #broken(error: HeadraceError): HeadraceError {
    this.upload.mayFenceItself ||= this.#started === undefined && error.reason === ErrorReason.UNSPECIFIED;
    return error;
  }

  /** What is sent, as far as the reader lets it. */
  async *#requests(): AsyncGenerator<Request> {
    yield { request: { case: "header", value: this.upload.header } };
    await this.#wait(() => this.#started !== undefined);
    if (this.#started === undefined) {
      return;
    }
    const { persistedOffset, persistedCrc32c, maxChunkBytes } = this.#started;
    const limit = Math.min(CHUNK_BYTES, Number(maxChunkBytes) || CHUNK_BYTES);
    let offset = Number(persistedOffset);
    let sum = await this.#guarded(this.#checkBeginning(this.#started));
    for (;;) {
      const hasRoom = () => offset - this.#safe < this.upload.windowBytes;
      if (!(await this.#wait(hasRoom, FLUSH_AFTER_MS))) {
        yield { request: { case: "flush", value: {} } };
        await this.#wait(hasRoom);
      }
      if (this.#isOver) {
        return;
      }
      const data = await this.#guarded(this.source.read(offset, limit));
      if (data.length === 0) {
        break;
      }
      yield {
        request: {
          case: "chunk",
          value: { offset: BigInt(offset), content: { case: "data", value: data }, crc32c: crc32c(data) },
        },
      };
      sum = crc32c(data, sum);
      offset += data.length;
    }
    this.#isFinished = true;
    const checksum = persistedCrc32c === undefined ? undefined : sum;
    yield { request: { case: "finish", value: { totalSize: BigInt(offset), crc32c: checksum } } };
  }

  /** Compares what the server has with the source, and returns the checksum of that. */
  async #checkBeginning({ persistedOffset, persistedCrc32c }: UploadStarted): Promise<number> {
    const size = Number(persistedOffset);
    let sum = 0;
    for (let at = 0; at < size; ) {
      const data = await this.source.read(at, Math.min(size - at, CHUNK_BYTES));
      if (data.length === 0) {
        throw new DifferentContentError(`there are only ${at} bytes, but ${size} were stored.`);
      }
      sum = crc32c(data, sum);
      at += data.length;
    }
    if (persistedCrc32c !== undefined && sum !== persistedCrc32c) {
      throw new DifferentContentError(`the first ${size} bytes differ from those stored.`);
    }
    return sum;
  }

  /** Compares the source with an upload that had been finished before. */
  async #checkWhole(started: UploadStarted): Promise<void> {
    await this.#checkBeginning(started);
    const size = Number(started.persistedOffset);
    if ((await this.source.read(size, 1)).length > 0) {
      throw new DifferentContentError(`there are more bytes than the ${size} that it was finished with.`);
    }
  }

  /** Remembers what reading the source threw: what the call makes of it says less. */
  async #guarded<T>(reading: Promise<T>): Promise<T> {
    try {
      return await reading;
    } catch (thrown) {
      this.#sourceError = { thrown };
      throw thrown;
    }
  }

  /** Makes a change that the writer may wait for. */
  #change(make: () => void): void {
    make();
    this.#wake();
  }

  /**
   * Waits until something holds or nothing more is to be written, for ever without a timeout; false if neither came to
   * be in time.
   */
  async #wait(until: () => boolean, timeoutMs?: number): Promise<boolean> {
    const deadline = timeoutMs === undefined ? Infinity : performance.now() + timeoutMs;
    while (!this.#isOver && !until()) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) {
        return false;
      }
      await new Promise<void>((resolve) => {
        const timer = leftMs === Infinity ? undefined : setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return true;
  }
}
