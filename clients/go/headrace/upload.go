package headrace

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	headracev1 "headrace.internal/clients/go/headrace/v1"
)

const (
	defaultWindowBytes = 64 << 20
	leastWindowBytes   = 2 << 20
	defaultPatience    = 2 * time.Minute
	// Retries, without progress in between, after errors that may be permanent.
	doubtfulTries = 6
)

// Progress is how far an upload has come, by the server's word.
type Progress struct {
	UploadID string
	// PersistedOffset is how many bytes of the stream survive any crash. Never less than before.
	PersistedOffset uint64
	// Counts so far, provisional; RowsRejected includes RowsDuplicate.
	RowsAccepted, RowsRejected, RowsDuplicate uint64
	// Interruption is what broke the upload, which is about to go on by itself; nil while it runs.
	Interruption *Error
}

// Option sets how [Upload] works.
type Option func(*upload)

// WithProgress has report called after every ack and every interruption, on the goroutine of the caller.
func WithProgress(report func(Progress)) Option { return func(u *upload) { u.report = report } }

// WithPatience sets for how long an upload without progress is tried again: by default two minutes, 0 = not at all.
func WithPatience(patience time.Duration) Option {
	return func(u *upload) { u.backoff.patience = patience }
}

// WithWindow sets how many bytes may be on their way without an ack: by default 64 MiB, at least 2 MiB, since a record
// that has only begun, and may have 1 MiB, cannot be acknowledged.
func WithWindow(bytes int64) Option {
	return func(u *upload) { u.windowBytes = max(bytes, leastWindowBytes) }
}

// UploadFile uploads a file; see [Upload].
func UploadFile(
	ctx context.Context, client headracev1.PipelineServiceClient, header *headracev1.UploadHeader, name string,
	options ...Option,
) (*headracev1.UploadResult, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return Upload(ctx, client, header, file, options...)
}

// Upload streams source, to its end, into a tenant's table and returns how that ended. Rows that break the data
// contract are no error: the result's outcome, counts and report tell of them.
//
// When the connection breaks or the server is restarted, the upload goes on where the server stands, with backoff.
// If it fails all the same, the [Error] names upload_id and persisted_offset in its Metadata; a later Upload with
// that header.UploadId, the same header otherwise and the same source goes on there, or returns the result if the
// upload had finished. An empty header.UploadId is replaced by a random one. The format must be one of bytes: not
// FORMAT_ROWS.
//
// It returns an [Error], [ErrDifferentContent], the error of reading source, or that of ctx.
func Upload(
	ctx context.Context, client headracev1.PipelineServiceClient, header *headracev1.UploadHeader, source io.ReaderAt,
	options ...Option,
) (*headracev1.UploadResult, error) {
	if header.GetFormat() == headracev1.Format_FORMAT_ROWS {
		return nil, errors.New("headrace: Upload sends bytes, not FORMAT_ROWS; use IngestInteractions, IngestItems or the generated Upload")
	}
	u := &upload{
		client:      client,
		header:      proto.CloneOf(header),
		source:      source,
		report:      func(Progress) {},
		windowBytes: defaultWindowBytes,
		backoff:     backoff{patience: defaultPatience},
	}
	for _, option := range options {
		option(u)
	}
	if u.header.GetUploadId() == "" {
		u.header.UploadId = newID()
	}
	u.progress.UploadID = u.header.GetUploadId()
	for {
		result, err := u.stream(ctx)
		if err == nil {
			return result, nil
		}
		if err := u.pause(ctx, err); err != nil {
			return nil, err
		}
	}
}

// upload is an upload over all its streams.
type upload struct {
	client      headracev1.PipelineServiceClient
	header      *headracev1.UploadHeader
	source      io.ReaderAt
	report      func(Progress)
	windowBytes int64
	backoff     backoff
	progress    Progress
	doubts      int
	// Whether a stream broke before the server answered its header: the server may read it late, and fence with
	// it the stream that came after it. It can do so once.
	mayFenceItself bool
}

// acked takes an ack.
func (u *upload) acked(ack *headracev1.UploadAck) {
	before := u.progress
	u.progress = Progress{
		UploadID:        before.UploadID,
		PersistedOffset: max(before.PersistedOffset, ack.GetPersistedOffset()),
		RowsAccepted:    ack.GetRowsAccepted(),
		RowsRejected:    ack.GetRowsRejected(),
		RowsDuplicate:   ack.GetRowsDuplicate(),
	}
	// Counts grow without the offset while the server decodes a stream after its finish.
	if u.progress.PersistedOffset > before.PersistedOffset ||
		u.progress.RowsAccepted+u.progress.RowsRejected > before.RowsAccepted+before.RowsRejected {
		u.backoff.progressed()
		u.doubts = 0
	}
	u.report(u.progress)
}

// pause waits before the next stream. It returns what a stream ended with if that is not worth another one.
func (u *upload) pause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	broken := FromError(err)
	if broken == nil { // Of the source, or of what it has.
		return err
	}
	broken.nameUpload(u.header.GetUploadId(), u.progress.PersistedOffset)
	switch broken.Reason {
	case headracev1.ErrorReason_ERROR_REASON_IDLE_TIMEOUT, headracev1.ErrorReason_ERROR_REASON_GAVE_WAY:
		u.backoff.progressed() // The source is slow, nothing is wrong.
	}
	if !u.passes(broken) {
		return broken
	}
	delay, ok := u.backoff.failed(broken.RetryDelay)
	if !ok {
		return broken
	}
	interrupted := u.progress
	interrupted.Interruption = broken
	u.report(interrupted)
	select {
	case <-time.After(delay):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// passes says whether another stream may do better.
func (u *upload) passes(broken *Error) bool {
	if broken.Reason == headracev1.ErrorReason_ERROR_REASON_FENCED {
		// Another client has taken the upload over; answering in kind would let two fight for ever.
		isOurs := u.mayFenceItself
		u.mayFenceItself = false
		return isOurs
	}
	if broken.Reason != headracev1.ErrorReason_ERROR_REASON_UNSPECIFIED && !broken.Retryable() {
		return false
	}
	switch broken.Code {
	case codes.Unavailable:
		return true
	case codes.ResourceExhausted: // Without a reason it is gRPC's own, about sizes of messages.
		return broken.Reason != headracev1.ErrorReason_ERROR_REASON_UNSPECIFIED
	case codes.Internal, codes.DataLoss, codes.OutOfRange, codes.Aborted, codes.Unknown:
		// An accident or for good, who knows. Without a reason: what gRPC and proxies say of a connection that
		// broke in the middle.
		u.doubts++
		return u.doubts <= doubtfulTries
	}
	return false
}

// newID returns a random UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // It never fails.
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
