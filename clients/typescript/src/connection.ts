import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, type GrpcTransportOptions } from "@connectrpc/connect-node";

import { PipelineService } from "./gen/headrace/v1/pipeline_service_pb.js";

/**
 * The client of a server, over gRPC. Its connection is pinged, as a server that has lost its power says nothing.
 *
 * @param baseUrl Where the server is: `http://host:port`, or `https://` with TLS.
 * @param options Of the transport, such as `nodeOptions` with certificates, or `interceptors`.
 */
export function connect(
  baseUrl: string,
  options: Omit<GrpcTransportOptions, "baseUrl"> = {},
): Client<typeof PipelineService> {
  const pings = { pingIntervalMs: 20_000, pingTimeoutMs: 20_000 };
  return createClient(PipelineService, createGrpcTransport({ ...pings, ...options, baseUrl }));
}
