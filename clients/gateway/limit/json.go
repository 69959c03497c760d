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
		body := NewBody(w, r, j.idle)
		text, err := j.read(w, r, body)
		if err != nil {
			failure.Write(w, err)
			body.Linger()
			return
		}
		size := int64(len(text))
		if err := j.decoded.Acquire(r.Context(), size); err != nil {
			panic(http.ErrAbortHandler) // The client has gone.
		}
		defer j.decoded.Release(size)
		r.Body = io.NopCloser(bytes.NewReader(text))
		next.ServeHTTP(w, r)
	})
}

func (j *JSON) read(w http.ResponseWriter, r *http.Request, body *Body) ([]byte, error) {
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		return nil, err
	}
	if r.ContentLength > j.limit {
		return nil, failure.TooLarge(j.limit)
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, io.NopCloser(body), j.limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, failure.TooLarge(j.limit)
	case err != nil && failure.HTTPStatus(err) == http.StatusInternalServerError:
		return nil, failure.Malformed("The body breaks off: " + err.Error() + ".")
	}
	return text, err
}
