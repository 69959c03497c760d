package upload

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	headracev1 "headrace.internal/clients/go/headrace/v1"
)

const (
	firstPause = 200 * time.Millisecond
	longPause  = 10 * time.Second
	// doubtfulTries are those after what may be a fault of the server or of the file: a checksum that does not match.
	doubtfulTries = 3
)

// retry decides whether a stream that failed is followed by another one, and when.
type retry struct {
	patience time.Duration
	pause    time.Duration
	// since is when the first failure came after which there was no progress; zero if there was.
	since    time.Time
	doubtful int
	fenced   bool
}

// progressed forgets failures: something was acknowledged since.
func (r *retry) progressed() { r.pause, r.since, r.fenced = 0, time.Time{}, false }

// wait lets time pass before the next stream. It returns the error if there is to be none.
func (r *retry) wait(ctx context.Context, failed error) error {
	if !r.passes(failed) {
		return failed
	}
	now := time.Now()
	if r.since.IsZero() {
		r.since = now
	}
	r.pause = min(max(2*r.pause, firstPause), longPause)
	// Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
	pause := max(rand.N(r.pause), askedFor(failed))
	if now.Add(pause).Sub(r.since) > r.patience {
		return failed
	}
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// passes says whether another stream may fare better.
func (r *retry) passes(failed error) bool {
	code, reason := status.Code(failed), reasonOf(failed)
	switch {
	case reason != "" && !retryable(reason):
		return false
	case reason == "FENCED":
		// The stream before, which the server did not know to be dead, may have come late. Twice it is somebody else.
		before := r.fenced
		r.fenced = true
		return !before && !r.since.IsZero()
	}
	switch code {
	case codes.Unavailable, codes.Aborted:
		return true
	case codes.ResourceExhausted:
		return reason != "" // gRPC's own are about sizes of messages.
	case codes.Internal, codes.Unknown, codes.DataLoss, codes.OutOfRange:
		r.doubtful++
		return r.doubtful <= doubtfulTries
	default:
		return false
	}
}

// retryable is what the contract says of a reason.
func retryable(reason string) bool {
	number, known := headracev1.ErrorReason_value["ERROR_REASON_"+reason]
	if !known {
		return false
	}
	value := headracev1.ErrorReason(0).Descriptor().Values().ByNumber(headracev1.ErrorReason(number).Number())
	traits, _ := proto.GetExtension(value.Options(), headracev1.E_ErrorTraits).(*headracev1.ErrorTraits)
	return traits.GetRetryable()
}

func reasonOf(failed error) string {
	for _, detail := range status.Convert(failed).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func askedFor(failed error) time.Duration {
	for _, detail := range status.Convert(failed).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}
