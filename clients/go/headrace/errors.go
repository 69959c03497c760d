package headrace

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	headracev1 "headrace.internal/clients/go/headrace/v1"
)

const (
	domain       = "headrace"
	reasonPrefix = "ERROR_REASON_"
)

// ErrDifferentContent is returned by [Upload] when the upload was begun, or finished, with other content.
var ErrDifferentContent = errors.New("headrace: not the content that the upload was begun with")

// Error is a failed call, as the server tells of it. [Upload] returns it; [FromError] makes it of what the
// generated client returns.
type Error struct {
	// Code is the gRPC status code.
	Code codes.Code
	// Reason says what went wrong; ERROR_REASON_UNSPECIFIED when the failure did not come from a server of
	// Headrace, such as a lost connection, or from a newer one.
	Reason headracev1.ErrorReason
	// Message has the value, the rule and the remedy, in a sentence or two.
	Message string
	// Metadata are machine-readable facts, as error_reason.proto lists them for each reason. Upload adds upload_id
	// and persisted_offset.
	Metadata map[string]string
	// RetryDelay is how long the server asks to wait before another try; 0 if it does not say.
	RetryDelay time.Duration

	status *status.Status
}

// FromError returns the typed error of a failed call, or nil if err is nil or no error of a call.
func FromError(err error) *Error {
	var typed *Error
	if errors.As(err, &typed) {
		return typed
	}
	if err == nil {
		return nil
	}
	if told, ok := status.FromError(err); ok {
		return fromStatus(told)
	}
	return nil
}

func fromStatus(told *status.Status) *Error {
	e := &Error{Code: told.Code(), Message: told.Message(), Metadata: map[string]string{}, status: told}
	for _, detail := range told.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain {
				e.Reason = headracev1.ErrorReason(headracev1.ErrorReason_value[reasonPrefix+detail.GetReason()])
				maps.Copy(e.Metadata, detail.GetMetadata())
			}
		case *errdetails.RetryInfo:
			e.RetryDelay = detail.GetRetryDelay().AsDuration()
		}
	}
	return e
}

// Error says what is wrong, with the code and, if the server told one, the reason.
func (e *Error) Error() string {
	if e.Reason == headracev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return fmt.Sprintf("headrace: %s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("headrace: %s (%s): %s", e.Reason.String()[len(reasonPrefix):], e.Code, e.Message)
}

// GRPCStatus is the status of the call, for package status of gRPC.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Retryable says whether the same call may succeed later: by the reason's traits in the contract, else by the code.
func (e *Error) Retryable() bool {
	if traits := traitsOf(e.Reason); traits != nil {
		return traits.GetRetryable()
	}
	return e.Code == codes.Unavailable || e.Code == codes.DeadlineExceeded || e.Code == codes.Aborted
}

func traitsOf(reason headracev1.ErrorReason) *headracev1.ErrorTraits {
	value := reason.Descriptor().Values().ByNumber(reason.Number())
	if value == nil {
		return nil
	}
	options, ok := value.Options().(*descriptorpb.EnumValueOptions)
	if !ok || !proto.HasExtension(options, headracev1.E_ErrorTraits) {
		return nil
	}
	return proto.GetExtension(options, headracev1.E_ErrorTraits).(*headracev1.ErrorTraits)
}

func (e *Error) nameUpload(id string, persisted uint64) {
	e.Metadata["upload_id"] = id
	e.Metadata["persisted_offset"] = strconv.FormatUint(persisted, 10)
}
