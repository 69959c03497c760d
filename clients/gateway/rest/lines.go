package rest

import (
	"mime"
	"net/http"
	"slices"
	"strings"

	"headrace.internal/clients/gateway/failure"
)

const (
	linesType = "application/x-ndjson"
	arrowType = "application/vnd.apache.arrow.stream"
)

// accepts says whether a client asks for a media type by name.
func accepts(r *http.Request, media string) bool {
	for _, header := range r.Header.Values("Accept") {
		if slices.ContainsFunc(strings.Split(header, ","), func(item string) bool {
			name, _, err := mime.ParseMediaType(item)
			return err == nil && name == media
		}) {
			return true
		}
	}
	return false
}

// body is an answer that is written piece by piece. Its head goes out with the first piece, so an error that comes
// before has a status of its own.
type body struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func newBody(w http.ResponseWriter, contentType string) *body {
	w.Header().Set("Content-Type", contentType)
	return &body{w: w, control: http.NewResponseController(w)}
}

// Write writes a piece, which goes out at once.
func (b *body) Write(text []byte) (int, error) {
	b.begun = true
	count, err := b.w.Write(text)
	if err != nil {
		return count, err
	}
	return count, b.control.Flush()
}

// fail ends the answer. Once its head is out there is only its end to tell of an error: JSON lines have a line for
// it, and all break off without the end that HTTP has for an answer that is whole.
func (b *body) fail(err error, inLines bool) error {
	if !b.begun {
		return err
	}
	if inLines {
		_, _ = b.Write(append(failure.Line(err), '\n'))
	}
	panic(http.ErrAbortHandler)
}
