package rest

import (
	"net/http"
	"regexp"

	"github.com/google/uuid"
)

var validRequestID = regexp.MustCompile(`^[!-~]{1,128}$`)

// Identified gives each request an id, that of the caller if it has a valid one, and tells it in the answer.
func Identified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(RequestIDHeader)
		if !validRequestID.MatchString(id) {
			id = uuid.NewString()
			r.Header.Set(RequestIDHeader, id)
		}
		w.Header().Set(RequestIDHeader, id)
		next.ServeHTTP(w, r)
	})
}
