// Package limit bounds what callers can have of the gateway: requests under way, bytes of bodies, and time.
package limit

import (
	"net/http"

	"headrace.internal/clients/gateway/failure"
)

// Slots are a number of things that may be under way at once.
type Slots struct {
	what string
	free chan struct{}
}

// NewSlots makes slots; what names the things in the plural.
func NewSlots(what string, count int) *Slots { return &Slots{what, make(chan struct{}, count)} }

// Take takes a slot, or says that there is none. Free it if there was one.
func (s *Slots) Take() error {
	select {
	case s.free <- struct{}{}:
		return nil
	default:
		return failure.Overloaded(s.what, cap(s.free))
	}
}

// Free gives a slot back.
func (s *Slots) Free() { <-s.free }

// Requests lets so many requests pass at once.
func (s *Slots) Requests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.Take(); err != nil {
			failure.Write(w, err)
			return
		}
		defer s.Free()
		next.ServeHTTP(w, r)
	})
}
