package limit

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"headrace.internal/clients/gateway/failure"
)

// decodedBodies of the largest size may be decoded at once: as messages they take many times their text.
const decodedBodies = 4

// JSON reads the bodies of calls before they are decoded: whole, no larger than a limit, and in time.
type JSON struct {
	limit   int64
	idle    time.Duration
	decoded *semaphore.Weighted
}

// NewJSON makes the reader of bodies.
func NewJSON(limit int64, idle time.Duration) *JSON {
	return &JSON{limit, idle, semaphore.NewWeighted(decodedBodies * limit)}
}

// Bodies hands on requests whose bodies are in memory. What they may take there all together is bounded, and those
// beyond wait.
func (j *JSON) Bodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := j.read(w, r)
		if err != nil {
			failure.Write(w, err)
			return
		}
		size := int64(len(text))
		if err := j.decoded.Acquire(r.Context(), size); err != nil {
			return // The client has gone.
		}
		defer j.decoded.Release(size)
		r.Body = io.NopCloser(bytes.NewReader(text))
		next.ServeHTTP(w, r)
	})
}

func (j *JSON) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > j.limit {
		return nil, failure.TooLarge(j.limit)
	}
	control := http.NewResponseController(w)
	deadline := time.Now().Add(j.idle)
	if err := control.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, j.limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, failure.TooLarge(j.limit)
	case err != nil && time.Now().After(deadline):
		return nil, failure.Silent(j.idle)
	case err != nil:
		return nil, failure.Malformed("The body ends before its end: " + err.Error() + ".")
	}
	if err := unhurried(control); err != io.EOF {
		return nil, err
	}
	return text, nil
}
