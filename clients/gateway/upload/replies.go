package upload

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	headracev1 "headrace.internal/clients/go/headrace/v1"
)

var errNoAnswer = status.Error(codes.Unavailable, "the server ended the stream without an answer")

type stream = grpc.BidiStreamingClient[headracev1.UploadRequest, headracev1.UploadResponse]

// answers is what the server has said on a stream so far.
type answers struct {
	started  *headracev1.UploadStarted
	acked    uint64
	draining bool
	result   *headracev1.UploadResult
	// err is why the stream has failed: the error in band if there was one.
	err error
}

func (a answers) ended() bool { return a.result != nil || a.err != nil }

// replies reads a stream beside whoever writes it.
type replies struct {
	changed chan struct{}
	mu      sync.Mutex
	seen    answers
}

func listen(from stream) *replies {
	r := &replies{changed: make(chan struct{}, 1)}
	go r.read(from)
	return r
}

// now is what has been said by now.
func (r *replies) now() answers {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

// until waits until something holds of what was said, or the stream has ended; limit 0 is none.
func (r *replies) until(ctx context.Context, limit time.Duration, holds func(answers) bool) (answers, error) {
	var late <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	for {
		seen := r.now()
		if holds(seen) || seen.ended() {
			return seen, nil
		}
		select {
		case <-r.changed:
		case <-late:
			return seen, nil
		case <-ctx.Done():
			return seen, status.FromContextError(ctx.Err()).Err()
		}
	}
}

func (r *replies) read(from stream) {
	for {
		response, err := from.Recv()
		r.mu.Lock()
		r.seen.take(response, err)
		r.mu.Unlock()
		select {
		case r.changed <- struct{}{}:
		default: // Whoever waits looks again anyway.
		}
		if err != nil {
			return
		}
	}
}

func (a *answers) take(response *headracev1.UploadResponse, err error) {
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errNoAnswer
		}
		if !a.ended() {
			a.err = err
		}
		return
	}
	switch said := response.GetResponse().(type) {
	case *headracev1.UploadResponse_Started:
		a.started, a.acked = said.Started, said.Started.GetPersistedOffset()
	case *headracev1.UploadResponse_Ack:
		a.acked = said.Ack.GetPersistedOffset()
	case *headracev1.UploadResponse_Draining:
		a.draining = true
	case *headracev1.UploadResponse_Error:
		// Also one that leaves the stream usable: another stream mends it as well.
		if !a.ended() {
			a.err = status.FromProto(said.Error).Err()
		}
	case *headracev1.UploadResponse_Result:
		a.result = said.Result
	}
}
