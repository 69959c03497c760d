package headrace

import (
	"math/rand/v2"
	"time"
)

const (
	backoffBase = 200 * time.Millisecond
	backoffCap  = 10 * time.Second
)

// backoff is exponential with full jitter: clients that failed together do not retry together.
// https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
type backoff struct {
	patience time.Duration
	failures int
	since    time.Time
}

// progressed forgets the failures: what was tried works.
func (b *backoff) progressed() { b.failures = 0 }

// failed notes a failure. It returns how long to wait before the next try, at least as long as the server asked, or
// false if there was no progress for as long as patience lasts.
func (b *backoff) failed(asked time.Duration) (time.Duration, bool) {
	if b.failures == 0 {
		b.since = time.Now()
	}
	left := b.patience - time.Since(b.since)
	if left <= 0 {
		return 0, false
	}
	ceiling := min(backoffCap, backoffBase<<min(b.failures, 16))
	b.failures++
	// The last try comes when patience ends, not before.
	return min(max(rand.N(ceiling), asked), left), true
}
