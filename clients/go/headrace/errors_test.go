package headrace_test

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"headrace.internal/clients/go/headrace"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

func failed(t *testing.T, code codes.Code, domain, reason string) *headrace.Error {
	t.Helper()
	info := &errdetails.ErrorInfo{Domain: domain, Reason: reason, Metadata: map[string]string{"limit": "64"}}
	retry := &errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)}
	told, err := status.New(code, "too much").WithDetails(info, retry)
	if err != nil {
		t.Fatal(err)
	}
	return headrace.FromError(told.Err())
}

func TestAnErrorHasWhatTheServerTold(t *testing.T) {
	e := failed(t, codes.ResourceExhausted, "headrace", "OVERLOADED")
	if e.Reason != headracev1.ErrorReason_ERROR_REASON_OVERLOADED || e.Code != codes.ResourceExhausted {
		t.Error(e)
	}
	if e.Metadata["limit"] != "64" || e.RetryDelay != 1500*time.Millisecond || !e.Retryable() {
		t.Error(e.Metadata, e.RetryDelay, e.Retryable())
	}
	if status.Code(e) != codes.ResourceExhausted {
		t.Error("gRPC does not know its status any more")
	}
	if e.Error() != "headrace: OVERLOADED (ResourceExhausted): too much" {
		t.Error(e)
	}
}

func TestRetryabilityIsThatOfTheReasonBeforeThatOfTheCode(t *testing.T) {
	if failed(t, codes.Internal, "headrace", "POISON_BLOCK").Retryable() {
		t.Error("a poison block is for good")
	}
	if !failed(t, codes.Internal, "headrace", "INTERNAL").Retryable() {
		t.Error("a fault may pass")
	}
}

func TestReasonsOfOthersAndOfNewerServersAreNone(t *testing.T) {
	for _, e := range []*headrace.Error{
		failed(t, codes.Unavailable, "other.example", "OVERLOADED"),
		failed(t, codes.Unavailable, "headrace", "OF_THE_FUTURE"),
	} {
		if e.Reason != headracev1.ErrorReason_ERROR_REASON_UNSPECIFIED || !e.Retryable() {
			t.Error(e)
		}
	}
}

func TestWhatIsNoErrorOfACallIsNone(t *testing.T) {
	if headrace.FromError(nil) != nil || headrace.FromError(errors.New("a disk")) != nil {
		t.Error("made up")
	}
}
