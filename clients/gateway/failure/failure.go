// Package failure says what went wrong in the one form that all errors of the gateway have.
package failure

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

const domain = "headrace"

// Body is an error as callers get it, in {"error": ...}.
type Body struct {
	// Code is the gRPC code by name, such as INVALID_ARGUMENT.
	Code string `json:"code"`
	// Reason is a name of ErrorReason; empty where neither server nor gateway has one.
	Reason string `json:"reason"`
	// Message is one or more sentences.
	Message string `json:"message"`
	// Details are messages of google.rpc, each with its @type; ErrorInfo has the reason's metadata.
	Details []json.RawMessage `json:"details"`
}

// New makes an error of the gateway's own. metadata are pairs of names and values.
func New(code codes.Code, reason, message string, metadata ...string) error {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: domain, Metadata: map[string]string{}}
	for i := 0; i+1 < len(metadata); i += 2 {
		info.Metadata[metadata[i]] = metadata[i+1]
	}
	return with(status.New(code, message), info)
}

// InvalidField refuses the value of a query parameter or of a field.
func InvalidField(field, message string) error {
	violation := &errdetails.BadRequest_FieldViolation{Field: field, Description: message}
	return with(status.Convert(New(codes.InvalidArgument, "INVALID_FIELD", message, "field", field)),
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{violation}})
}

// Malformed refuses a request that is not what the call takes.
func Malformed(message string) error {
	return New(codes.InvalidArgument, "MALFORMED_MESSAGE", message)
}

// TooLarge refuses a body above a limit.
func TooLarge(limit int64) error {
	text := strconv.FormatInt(limit, 10)
	err := New(codes.InvalidArgument, "MESSAGE_TOO_LARGE",
		"The body has more than "+text+" bytes; send fewer rows in one call, or a file to /internal/data/upload-csv.",
		"limit_bytes", text)
	return &runtime.HTTPStatusError{HTTPStatus: http.StatusRequestEntityTooLarge, Err: err}
}

// Overloaded refuses what is beyond a limit on things under way.
func Overloaded(what string, limit int) error {
	count := strconv.Itoa(limit)
	err := New(codes.ResourceExhausted, "OVERLOADED",
		"The gateway has as many "+what+" under way as it may, "+count+"; try again.", "limit", count, "what", what)
	return with(status.Convert(err), &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
}

// Silent ends a request whose client sends nothing more.
func Silent(idle time.Duration) error {
	seconds := strconv.FormatFloat(idle.Seconds(), 'g', -1, 64)
	err := New(codes.Unavailable, "IDLE_TIMEOUT",
		"The client sent nothing for "+seconds+" s; send the request again.", "idle_seconds", seconds)
	return &runtime.HTTPStatusError{HTTPStatus: http.StatusRequestTimeout, Err: err}
}

// Plain is an error that HTTP has a status for and the contract no reason.
func Plain(httpStatus int, code codes.Code, message string) error {
	return &runtime.HTTPStatusError{HTTPStatus: httpStatus, Err: status.Error(code, message)}
}

// Of is what callers get to see of an error.
func Of(err error) Body {
	return OfStatus(statusOf(err).Proto())
}

// OfStatus is what callers get to see of a status.
func OfStatus(failed *statuspb.Status) Body {
	body := Body{Code: code.Code(failed.GetCode()).String(), Message: failed.GetMessage(), Details: []json.RawMessage{}}
	for _, detail := range failed.GetDetails() {
		info := &errdetails.ErrorInfo{}
		if detail.UnmarshalTo(info) == nil {
			body.Reason = info.GetReason()
		}
		// A detail of a type that the gateway does not know cannot be shown.
		if text, err := (protojson.MarshalOptions{UseProtoNames: true}).Marshal(detail); err == nil {
			body.Details = append(body.Details, compact(text))
		}
	}
	if body.Reason == "" {
		body.Message = unsaid(codes.Code(failed.GetCode()), body.Message)
	}
	return body
}

// IsUnnamed says whether an error tells of a request that grpc-gateway could not read: the server names a reason.
func IsUnnamed(err error) bool {
	failed := statusOf(err)
	return failed.Code() == codes.InvalidArgument && len(failed.Details()) == 0
}

// HTTPStatus is the status that an error is answered with.
func HTTPStatus(err error) int {
	var own *runtime.HTTPStatusError
	if errors.As(err, &own) {
		return own.HTTPStatus
	}
	return runtime.HTTPStatusFromCode(statusOf(err).Code())
}

func statusOf(err error) *status.Status {
	var own *runtime.HTTPStatusError
	if errors.As(err, &own) {
		err = own.Err
	}
	// status.Convert would put the words of whoever wraps the status around its message.
	var of interface{ GRPCStatus() *status.Status }
	if errors.As(err, &of) {
		return of.GRPCStatus()
	}
	return status.Convert(err)
}

// Write answers a request with an error.
func Write(w http.ResponseWriter, err error) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	httpStatus := HTTPStatus(err)
	if delay, ok := retryDelay(err); ok {
		header.Set("Retry-After", strconv.Itoa(max(1, int(delay.Round(time.Second).Seconds()))))
	}
	if httpStatus == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(httpStatus)
	_, _ = w.Write(append(Line(err), '\n')) // Whoever is gone does not read it.
}

// Line is an error as JSON on one line.
func Line(err error) []byte {
	text, failed := json.Marshal(map[string]Body{"error": Of(err)})
	if failed != nil {
		panic(failed) // Strings and JSON that was made here.
	}
	return text
}

// unsaid is what callers are told where gRPC's own words tell of hosts and connections inside.
func unsaid(failed codes.Code, message string) string {
	switch failed {
	case codes.Unavailable:
		return "The Headrace server does not answer; try again."
	case codes.DeadlineExceeded:
		return "The Headrace server took too long; try again."
	case codes.Internal, codes.Unknown:
		return "The gateway could not carry the call out; its log has more."
	default:
		return message
	}
}

func retryDelay(err error) (time.Duration, bool) {
	for _, detail := range statusOf(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration(), true
		}
	}
	return 0, false
}

func with(failed *status.Status, detail protoadapt.MessageV1) error {
	detailed, err := failed.WithDetails(detail)
	if err != nil {
		panic(err) // Only of OK, which nobody makes an error of.
	}
	return detailed.Err()
}

func compact(text []byte) json.RawMessage {
	var buffer bytes.Buffer
	if json.Compact(&buffer, text) != nil {
		return text
	}
	return buffer.Bytes()
}
