// Package rest is the HTTP side of the gateway: the calls of the contract as its annotations say, made by
// grpc-gateway, and by hand those that HTTP has other habits for: files, arrays of rows, runs, tables.
package rest

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"headrace.internal/clients/gateway/codec"
	"headrace.internal/clients/gateway/failure"
	gateway "headrace.internal/clients/gateway/gen/headrace/v1"
	"headrace.internal/clients/gateway/limit"
	"headrace.internal/clients/gateway/upload"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

// RequestIDHeader names a request in the logs of everybody who has to do with it.
const RequestIDHeader = "X-Request-Id"

const (
	uploadPath    = "/internal/data/upload-csv"
	rowsPath      = "/internal/data/{data_type}"
	featuresPath  = "/v1/tenants/{tenant_id}/features:compute"
	negativesPath = "/v1/tenants/{tenant_id}/negatives:sample"
	rejectsPath   = "/v1/tenants/{tenant_id}/uploads/{upload_id}/rejects"
	tablePath     = "/v1/tenants/{tenant_id}/tables/{table}"
)

// Options are what the calls are bounded by.
type Options struct {
	Uploader     *upload.Uploader
	MaxUploads   int
	MaxJSONBytes int64
	// Idle is how long a client may send nothing while something is read of it.
	Idle time.Duration
	// OnRoute hears which route a request takes, by its pattern.
	OnRoute func(ctx context.Context, pattern string)
}

// Door has the calls.
type Door struct {
	client  headracev1.PipelineServiceClient
	mux     *runtime.ServeMux
	codec   *codec.Codec
	options Options
	uploads *limit.Slots
}

// New makes the handler of all calls.
func New(ctx context.Context, client headracev1.PipelineServiceClient, options Options) (http.Handler, error) {
	door := &Door{
		client:  client,
		codec:   codec.New(),
		options: options,
		uploads: limit.NewSlots("uploads", options.MaxUploads),
	}
	door.mux = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, door.codec),
		runtime.WithIncomingHeaderMatcher(passedOn),
		runtime.WithOutgoingHeaderMatcher(keptInside),
		runtime.WithOutgoingTrailerMatcher(keptInside),
		runtime.WithErrorHandler(answerError),
		runtime.WithRoutingErrorHandler(door.answerNoRoute),
		runtime.WithForwardResponseOption(answerHealth),
		runtime.WithMiddlewares(door.observe),
		runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptSlash),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.SetQueryParameterParser(&strictQuery{}),
	)
	if err := gateway.RegisterPipelineServiceHandlerClient(ctx, door.mux, client); err != nil {
		return nil, err
	}
	// The newest handler of a pattern is the one that is asked.
	for _, route := range []struct {
		method, pattern, call string
		serve                 func(context.Context, http.ResponseWriter, *http.Request, map[string]string) error
	}{
		{http.MethodPost, rowsPath, headracev1.PipelineService_IngestRows_FullMethodName, door.ingestRows},
		{http.MethodPost, uploadPath, headracev1.PipelineService_Upload_FullMethodName, door.uploadFile},
		{http.MethodPost, featuresPath, headracev1.PipelineService_ComputeFeatures_FullMethodName, door.computeFeatures},
		{http.MethodPost, negativesPath, headracev1.PipelineService_SampleNegatives_FullMethodName, door.sampleNegatives},
		{http.MethodGet, rejectsPath, headracev1.PipelineService_ListRejects_FullMethodName, door.listRejects},
		{http.MethodGet, tablePath, headracev1.PipelineService_ReadTable_FullMethodName, door.readTable},
	} {
		serve := route.serve
		err := door.mux.HandlePath(route.method, route.pattern,
			func(w http.ResponseWriter, r *http.Request, path map[string]string) {
				ctx, err := runtime.AnnotateContext(r.Context(), door.mux, r, route.call, runtime.WithHTTPPathPattern(route.pattern))
				if err == nil {
					err = serve(ctx, w, r, path)
				}
				if err != nil {
					answerError(ctx, door.mux, door.codec, w, r, err)
				}
			})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", route.pattern, err)
		}
	}
	bodies := limit.NewJSON(options.MaxJSONBytes, options.Idle).Bodies(door.mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == uploadPath {
			door.mux.ServeHTTP(w, r)
			return
		}
		bodies.ServeHTTP(w, r)
	}), nil
}

// write answers with a message.
func (d *Door) write(w http.ResponseWriter, message proto.Message) error {
	text, err := d.codec.Marshal(message)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", codec.ContentType)
	_, _ = w.Write(text) // Whoever is gone does not read it.
	return nil
}

// decode fills a request from the body, if a call has one, and from the path.
func (d *Door) decode(r *http.Request, path map[string]string, into proto.Message) error {
	if r.Method == http.MethodPost && r.ContentLength != 0 {
		if err := d.codec.NewDecoder(r.Body).Decode(into); err != nil {
			return malformed(err)
		}
	}
	return fromPath(path, into)
}

func fromPath(path map[string]string, into proto.Message) error {
	for name, value := range path {
		if err := runtime.PopulateFieldFromPath(into, name, value); err != nil {
			return failure.InvalidField(name, fmt.Sprintf("The path has no valid %s: %v.", name, err))
		}
	}
	return nil
}

// passedOn are the headers that the server gets to see; grpc-gateway adds Authorization and X-Forwarded-For.
func passedOn(header string) (string, bool) { return "x-request-id", header == RequestIDHeader }

func keptInside(string) (string, bool) { return "", false }

// answerHealth gives an unhealthy server the status that load balancers look at.
func answerHealth(_ context.Context, w http.ResponseWriter, message proto.Message) error {
	if health, ok := message.(*headracev1.CheckHealthResponse); ok && health.GetStatus() == "unhealthy" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	return nil
}

func answerError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if failure.IsUnnamed(err) && failure.HTTPStatus(err) == http.StatusBadRequest {
		err = malformed(err)
	}
	if httpStatus := failure.HTTPStatus(err); httpStatus >= http.StatusInternalServerError {
		slog.WarnContext(ctx, "a call failed", "event", "call_failed", "path", r.URL.Path, "http_status", httpStatus,
			"request_id", r.Header.Get(RequestIDHeader), "error", err.Error())
	}
	failure.Write(w, err)
}

// malformed tells of a request that cannot be decoded.
func malformed(err error) error {
	return failure.Malformed(fmt.Sprintf("The request is not what the call takes: %s.", status.Convert(err).Message()))
}
