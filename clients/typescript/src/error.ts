import { getOption, hasOption } from "@bufbuild/protobuf";
import { anyUnpack, type Duration } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";

import { type ErrorInfo, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import type { Status } from "./gen/google/rpc/status_pb.js";
import { ErrorReason, ErrorReasonSchema } from "./gen/headrace/v1/error_reason_pb.js";
import { error_traits, type ErrorTraits } from "./gen/headrace/v1/error_traits_pb.js";

const DOMAIN = "headrace";

/** An upload was begun, or finished, with other content. */
export class DifferentContentError extends Error {
  override name = "DifferentContentError";

  constructor(why: string) {
    super(`This is not the content that the upload was begun with: ${why}`);
  }
}

/** A failed call, as the server tells of it. `upload` throws it; `HeadraceError.from` makes it of what a client throws. */
export class HeadraceError extends Error {
  override name = "HeadraceError";

  private constructor(
    message: string,
    /** The gRPC status code. */
    readonly code: Code,
    /**
     * What went wrong; UNSPECIFIED when the failure did not come from a server of Headrace, such as a lost
     * connection, or from a newer one.
     */
    readonly reason: ErrorReason,
    /**
     * Machine-readable facts, as error_reason.proto lists them for each reason. `upload` adds upload_id and
     * persisted_offset.
     */
    readonly metadata: Record<string, string>,
    /** How long the server asks to wait before another try, in milliseconds; 0 if it does not say. */
    readonly retryDelayMs: number,
    cause?: unknown,
  ) {
    super(message, { cause });
  }

  /** The error of whatever a call threw. */
  static from(thrown: unknown): HeadraceError {
    if (thrown instanceof HeadraceError) {
      return thrown;
    }
    const error = ConnectError.from(thrown);
    const [info] = error.findDetails(ErrorInfoSchema);
    const [retry] = error.findDetails(RetryInfoSchema);
    return HeadraceError.of(error.rawMessage, error.code, info, retry?.retryDelay, error);
  }

  /** The error that a response carries in band. */
  static fromStatus(status: Status): HeadraceError {
    const find = <T>(unpack: (detail: Status["details"][number]) => T | undefined) =>
      status.details.map(unpack).find((detail) => detail !== undefined);
    const info = find((detail) => anyUnpack(detail, ErrorInfoSchema));
    const retry = find((detail) => anyUnpack(detail, RetryInfoSchema));
    return HeadraceError.of(status.message, status.code, info, retry?.retryDelay);
  }

  private static of(message: string, code: Code, info?: ErrorInfo, delay?: Duration, cause?: unknown): HeadraceError {
    const isOurs = info?.domain === DOMAIN;
    const reason = isOurs ? ErrorReason[info.reason as keyof typeof ErrorReason] : undefined;
    const delayMs = delay === undefined ? 0 : Number(delay.seconds) * 1000 + delay.nanos / 1e6;
    const metadata = isOurs ? { ...info.metadata } : {};
    return new HeadraceError(message, code, reason ?? ErrorReason.UNSPECIFIED, metadata, delayMs, cause);
  }

  /** Whether the same call may succeed later: by the reason's traits in the contract, else by the code. */
  get retryable(): boolean {
    const traits = traitsOf(this.reason);
    if (traits !== undefined) {
      return traits.retryable;
    }
    return [Code.Unavailable, Code.DeadlineExceeded, Code.Aborted].includes(this.code);
  }

  /** The message with the reason, if the server told one, and the code. */
  override toString(): string {
    const reason = this.reason === ErrorReason.UNSPECIFIED ? "" : `${ErrorReason[this.reason]} `;
    return `${this.name}: ${reason}(${Code[this.code]}): ${this.message}`;
  }
}

function traitsOf(reason: ErrorReason): ErrorTraits | undefined {
  const value = ErrorReasonSchema.value[reason];
  return hasOption(value, error_traits) ? getOption(value, error_traits) : undefined;
}
