// Package upload carries a stream of bytes into an upload of the server, over as many streams as it takes.
//
// What was sent and not acknowledged is kept, so that an upload goes on where the server stands after it was
// killed and came back; the source need not be read again. What is kept is bounded by a window.
package upload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"headrace.internal/clients/gateway/failure"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

// flushAfter is how long a full window is waited on before the server is asked to persist what it has.
const flushAfter = time.Second

// Uploader makes uploads.
type Uploader struct {
	Client headracev1.PipelineServiceClient
	// WindowBytes may be on their way without an acknowledgement.
	WindowBytes int
	// Patience is how long an upload that has begun goes on to try without progress.
	Patience time.Duration
	// OnBytes hears how many bytes of the source went out.
	OnBytes func(count int)
}

// SourceError is an error of the source, in contrast to one of the server.
type SourceError struct{ Err error }

func (e *SourceError) Error() string { return e.Err.Error() }

// Unwrap is what reading the source returned.
func (e *SourceError) Unwrap() error { return e.Err }

// Run makes one upload to its result. header.UploadId is set. If the server knows the upload, the source has to be
// that of before: what the server has is skipped and compared by its checksum.
func (u *Uploader) Run(ctx context.Context, header *headracev1.UploadHeader, feed *Feed) (*headracev1.UploadResult, error) {
	transfer := &transfer{uploader: u, header: header, feed: feed, retry: retry{patience: u.Patience}}
	defer transfer.release()
	for {
		result, err := transfer.stream(ctx)
		if err == nil {
			return result, nil
		}
		if source := (*SourceError)(nil); errors.As(err, &source) {
			return nil, err
		}
		if ctx.Err() != nil {
			// A request whose body cannot be read is cancelled too, and what happened to the body says more.
			feed.Drain()
			return nil, cmp.Or(transfer.sourceError(), err)
		}
		if !transfer.begun {
			return nil, err // The client has hardly sent anything, and may come again.
		}
		if err := transfer.retry.wait(ctx, err); err != nil {
			return nil, err
		}
	}
}

// transfer is an upload under way.
type transfer struct {
	uploader *Uploader
	header   *headracev1.UploadHeader
	feed     *Feed
	retry    retry
	// window has what was read and is not acknowledged, in order.
	window []*chunk
	// read and checksum are of everything that was read.
	read     uint64
	checksum uint32
	// whole is whether the source has ended.
	whole bool
	// begun is whether the server has ever answered the header.
	begun bool
}

// stream tries one stream to the server.
func (t *transfer) stream(ctx context.Context) (*headracev1.UploadResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	to, err := t.uploader.Client.Upload(ctx)
	if err != nil {
		return nil, err
	}
	from := listen(to)
	header := &headracev1.UploadRequest{Request: &headracev1.UploadRequest_Header{Header: t.header}}
	if err := send(ctx, to, from, header); err != nil {
		return nil, err
	}
	seen, err := from.until(ctx, 0, func(seen answers) bool { return seen.started != nil })
	if err != nil {
		return nil, err
	}
	if seen.started == nil {
		return nil, cmp.Or(seen.err, errNoAnswer)
	}
	t.begun = true
	if err := t.resume(ctx, from, seen.started); err != nil {
		return nil, err
	}
	return t.write(ctx, to, from)
}

// write sends what is left, and returns how the upload ended.
func (t *transfer) write(ctx context.Context, to stream, from *replies) (*headracev1.UploadResult, error) {
	started := from.now().started
	for next := 0; ; {
		seen := from.now()
		switch {
		case seen.result != nil:
			return seen.result, t.check(ctx, started) // It had been finished before.
		case seen.err != nil:
			return nil, seen.err
		case seen.draining:
			return nil, t.leave(ctx, to, from)
		}
		next -= t.acknowledge(seen.acked)
		switch {
		case next < len(t.window):
			if err := send(ctx, to, from, t.window[next].request()); err != nil {
				return nil, err
			}
			t.uploader.OnBytes(len(t.window[next].data))
			next++
		case t.whole:
			return t.finish(ctx, to, from)
		case t.full():
			if err := t.room(ctx, to, from); err != nil {
				return nil, err
			}
		default:
			if err := t.take(ctx, from); err != nil {
				return nil, err
			}
		}
	}
}

// take gets the next chunk of the source into the window, unless the server says something first.
func (t *transfer) take(ctx context.Context, from *replies) error {
	select {
	case next, more := <-t.feed.chunks:
		if !more {
			t.whole = t.feed.err == nil
			return t.sourceError()
		}
		t.window = append(t.window, next)
		t.read, t.checksum = next.end(), next.checksum(next.end())
		return nil
	case <-from.changed:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

func (t *transfer) sourceError() error {
	if t.feed.err != nil {
		return &SourceError{t.feed.err}
	}
	return nil
}

// resume forgets what the server has. On the first stream of an upload that the server knows, that is read first.
func (t *transfer) resume(ctx context.Context, from *replies, started *headracev1.UploadStarted) error {
	offset := started.GetPersistedOffset()
	for t.read < offset && !t.whole {
		t.acknowledge(t.read)
		if err := t.take(ctx, from); err != nil {
			return err
		}
		if seen := from.now(); seen.err != nil {
			return seen.err
		}
	}
	if t.read < offset {
		return t.otherFile()
	}
	if len(t.window) > 0 && t.window[0].offset > offset || len(t.window) == 0 && t.read > offset {
		return failure.New(codes.DataLoss, "PART_LOST", "The server has lost bytes that it had acknowledged; upload the file anew.")
	}
	if !t.matches(started) {
		return t.otherFile()
	}
	t.acknowledge(offset)
	return nil
}

// matches says whether the server has the same bytes as were read.
func (t *transfer) matches(started *headracev1.UploadStarted) bool {
	if started.PersistedCrc32C == nil {
		return true
	}
	offset, checksum := started.GetPersistedOffset(), t.checksum
	for _, chunk := range t.window {
		if chunk.offset <= offset && offset <= chunk.end() {
			checksum = chunk.checksum(offset)
			break
		}
	}
	return checksum == started.GetPersistedCrc32C()
}

// check makes sure that an upload that had been finished was made of this source.
func (t *transfer) check(ctx context.Context, started *headracev1.UploadStarted) error {
	for !t.whole && t.read == started.GetPersistedOffset() {
		if err := t.take(ctx, &replies{}); err != nil {
			return err
		}
	}
	if t.read != started.GetPersistedOffset() {
		return t.otherFile()
	}
	return nil
}

func (t *transfer) otherFile() error {
	id := t.header.GetUploadId()
	return failure.New(codes.AlreadyExists, "ID_IN_USE",
		fmt.Sprintf("Upload %s was begun with another file; choose another upload_id.", id), "upload_id", id)
}

// acknowledge lets go of what is safe, and returns how many chunks these are.
func (t *transfer) acknowledge(offset uint64) int {
	count := 0
	for count < len(t.window) && t.window[count].end() <= offset {
		t.window[count].release()
		count++
	}
	if count > 0 {
		t.window = append(t.window[:0], t.window[count:]...)
		t.retry.progressed()
	}
	return count
}

func (t *transfer) full() bool {
	return len(t.window) > 0 && t.read-t.window[0].offset+chunkBytes > uint64(t.uploader.WindowBytes)
}

// room waits until the window has room again.
func (t *transfer) room(ctx context.Context, to stream, from *replies) error {
	oldest := t.window[0].end()
	opens := func(seen answers) bool { return seen.acked >= oldest || seen.draining }
	seen, err := from.until(ctx, flushAfter, opens)
	if err != nil || opens(seen) || seen.ended() {
		return err
	}
	flush := &headracev1.UploadRequest{Request: &headracev1.UploadRequest_Flush{Flush: &headracev1.UploadFlush{}}}
	if err := send(ctx, to, from, flush); err != nil {
		return err
	}
	_, err = from.until(ctx, 0, opens)
	return err
}

// finish makes the rows visible.
func (t *transfer) finish(ctx context.Context, to stream, from *replies) (*headracev1.UploadResult, error) {
	finish := &headracev1.UploadFinish{TotalSize: &t.read, Crc32C: &t.checksum}
	request := &headracev1.UploadRequest{Request: &headracev1.UploadRequest_Finish{Finish: finish}}
	if err := send(ctx, to, from, request); err != nil {
		return nil, err
	}
	seen, err := from.until(ctx, 0, answers.ended)
	if err != nil {
		return nil, err
	}
	return seen.result, seen.err
}

// leave ends a stream whose server shuts down; it acknowledges what it can.
func (t *transfer) leave(ctx context.Context, to stream, from *replies) error {
	if err := to.CloseSend(); err != nil {
		return err
	}
	seen, err := from.until(ctx, 0, answers.ended)
	t.acknowledge(seen.acked)
	if err == nil && seen.result == nil {
		err = seen.err
	}
	if err == nil {
		err = errNoAnswer
	}
	return err
}

func (t *transfer) release() { t.acknowledge(t.read) }

func (c *chunk) request() *headracev1.UploadRequest {
	checksum := crc32.Checksum(c.data, castagnoli)
	message := &headracev1.UploadChunk{
		Offset: &c.offset, Content: &headracev1.UploadChunk_Data{Data: c.data}, Crc32C: &checksum,
	}
	return &headracev1.UploadRequest{Request: &headracev1.UploadRequest_Chunk{Chunk: message}}
}

// send sends a message. If the stream has ended, its status says why, and not the error of sending.
func send(ctx context.Context, to stream, from *replies, request *headracev1.UploadRequest) error {
	err := to.Send(request)
	if !errors.Is(err, io.EOF) {
		return err
	}
	seen, err := from.until(ctx, 0, answers.ended)
	if err != nil {
		return err
	}
	return seen.err // None if the result has come, of an upload that had been finished before.
}
