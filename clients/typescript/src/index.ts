/**
 * Headrace for Node: the generated client, and what it lacks: `upload`, which streams a file and goes on by itself
 * when the connection or the server breaks, and `HeadraceError`, the typed error of a failed call.
 */
export { connect } from "./connection.js";
export { DifferentContentError, HeadraceError } from "./error.js";
export { bytesSource, fileSource, type Source } from "./source.js";
export { type Progress, upload, uploadFile, type UploadClient, type UploadOptions } from "./upload.js";

export * from "./gen/headrace/v1/error_reason_pb.js";
export * from "./gen/headrace/v1/error_traits_pb.js";
export * from "./gen/headrace/v1/event_pb.js";
export * from "./gen/headrace/v1/feature_pb.js";
export * from "./gen/headrace/v1/health_pb.js";
export * from "./gen/headrace/v1/ingest_pb.js";
export * from "./gen/headrace/v1/pipeline_service_pb.js";
export * from "./gen/headrace/v1/row_pb.js";
export * from "./gen/headrace/v1/run_pb.js";
export * from "./gen/headrace/v1/statistics_pb.js";
export * from "./gen/headrace/v1/table_pb.js";
export * from "./gen/headrace/v1/upload_pb.js";
export * from "./gen/headrace/v1/validation_pb.js";
export * from "./gen/headrace/v1/verification_pb.js";
