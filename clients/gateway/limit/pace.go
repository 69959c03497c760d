package limit

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"headrace.internal/clients/gateway/failure"
)

// lingering is how long a client is heard out that has an error coming.
const lingering = 10 * time.Second

// paceBytes are what a client has to send within the idle time. One that sends a byte now and then is as good as
// one that sends nothing.
const paceBytes = 64 << 10

// Body reads the body of a request whose client must keep up a pace. Time in which nobody reads does not count.
type Body struct {
	body    io.Reader
	control *http.ResponseController
	idle    time.Duration
	left    int
	spent   time.Duration
	stopped atomic.Bool
	ended   atomic.Bool
}

// NewBody paces the body of a request.
func NewBody(w http.ResponseWriter, r *http.Request, idle time.Duration) *Body {
	return &Body{body: r.Body, control: http.NewResponseController(w), idle: idle, left: paceBytes}
}

// Read reads; it fails with failure.Silent once the client has been too slow.
func (b *Body) Read(into []byte) (int, error) {
	start := time.Now()
	if err := b.control.SetReadDeadline(start.Add(b.idle - b.spent)); err != nil {
		return 0, err
	}
	if b.stopped.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	count, err := b.body.Read(into)
	b.spent += time.Since(start)
	if b.left -= count; b.left <= 0 {
		b.left, b.spent = paceBytes, 0
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return count, failure.Silent(b.idle)
	case err == io.EOF:
		b.ended.Store(true)
		return count, unhurried(b.control)
	}
	return count, err
}

// unhurried is the end of a body. From then on the server reads the connection only to see it closed: a deadline
// would look like that.
func unhurried(control *http.ResponseController) error {
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return io.EOF
}

// Linger hears a client out, for a while, that has been answered while it still sends. Many read no answer before
// they have sent everything, and would see a broken connection instead. Drain reads the body where others do already.
func (b *Body) Linger(drain ...func()) {
	if err := b.control.Flush(); err != nil {
		return
	}
	late := time.AfterFunc(lingering, b.Stop)
	defer late.Stop()
	for _, read := range drain {
		read()
	}
	_, _ = io.Copy(io.Discard, b) // However it ends.
}

// Stop ends reading, also a read that waits. Behind the end of the body nothing is read for whom that could be, and
// the connection is that of the requests to come.
func (b *Body) Stop() {
	if b.ended.Load() {
		return
	}
	b.stopped.Store(true)
	_ = b.control.SetReadDeadline(time.Now()) // If it has no deadlines it is no connection that could wait.
}

// Writers ends answers whose clients do not take them.
func Writers(idle time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&writer{w, http.NewResponseController(w), idle}, r)
	})
}

type writer struct {
	http.ResponseWriter
	control *http.ResponseController
	idle    time.Duration
}

func (w *writer) Write(text []byte) (int, error) {
	if err := w.control.SetWriteDeadline(time.Now().Add(w.idle)); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(text)
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
