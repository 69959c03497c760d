package headrace

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	headracev1 "headrace.internal/clients/go/headrace/v1"
)

const (
	chunkBytes = 512 << 10
	// How long a full window is waited on before the server is asked to flush.
	flushAfter = time.Second
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stream is one stream of an upload: a goroutine writes, the caller's reads. The writer waits for the header's answer
// and for room in the window. An error in band stops it, the stream is half-closed, and the reader goes on to the
// end: that way a status is never lost among what is still being written.
type stream struct {
	*upload
	call grpc.BidiStreamingClient[headracev1.UploadRequest, headracev1.UploadResponse]

	changed chan struct{} // Has a token after each change of what follows.
	mutex   sync.Mutex
	started *headracev1.UploadStarted
	safe    int64 // Where the server stands.
	isOver  bool  // Nothing more is to be written.
	// Whether finish was sent: after that draining is no reason to stop.
	isFinished bool
}

// stream runs one stream and returns the result, or why there is none.
func (u *upload) stream(ctx context.Context) (*headracev1.UploadResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	call, err := u.client.Upload(ctx)
	if err != nil {
		return nil, err
	}
	s := &stream{upload: u, call: call, changed: make(chan struct{}, 1)}
	written := make(chan error, 1)
	go func() {
		err := s.write()
		if err != nil {
			cancel() // Of the source; the reader need not wait for an end.
		}
		written <- err
	}()
	result, err := s.read()
	s.change(func() { s.isOver = true })
	cancel()
	if sourceError := <-written; sourceError != nil {
		return nil, sourceError
	}
	return result, err
}

// read takes responses to the end of the call.
func (s *stream) read() (*headracev1.UploadResult, error) {
	var inBand error
	isAcked, isDraining := false, false
	for {
		response, err := s.call.Recv()
		switch {
		case inBand != nil && err != nil:
			return nil, inBand
		case errors.Is(err, io.EOF):
			why := "the server ended the stream without a result"
			if isDraining {
				why = "the server is shutting down"
			}
			return nil, status.Error(codes.Unavailable, why)
		case err != nil:
			s.mayFenceItself = s.mayFenceItself || s.started == nil && FromError(err).Reason == 0
			return nil, err
		}
		switch response := response.GetResponse().(type) {
		case *headracev1.UploadResponse_Started:
			s.change(func() { s.started, s.safe = response.Started, int64(response.Started.GetPersistedOffset()) })
			s.acked(&headracev1.UploadAck{
				PersistedOffset: response.Started.GetPersistedOffset(),
				RowsAccepted:    s.progress.RowsAccepted,
				RowsRejected:    s.progress.RowsRejected,
				RowsDuplicate:   s.progress.RowsDuplicate,
			})
		case *headracev1.UploadResponse_Ack:
			isAcked = true
			s.change(func() { s.safe = int64(response.Ack.GetPersistedOffset()) })
			s.acked(response.Ack)
		case *headracev1.UploadResponse_Draining:
			isDraining = true
			s.change(func() { s.isOver = s.isOver || !s.isFinished })
		case *headracev1.UploadResponse_Error:
			// Also one that leaves the stream usable: another stream mends it as well.
			s.change(func() { s.isOver = true })
			if inBand == nil {
				inBand = fromStatus(status.FromProto(response.Error))
			}
		case *headracev1.UploadResponse_Result:
			if isAcked {
				return response.Result, nil
			}
			// A server acknowledges a finish before it tells the result; of an upload that had been finished before
			// it tells the result at once.
			return response.Result, s.checkWhole()
		}
	}
}

// write sends the upload, as far as the reader lets it, and half-closes. It returns what reading the source failed
// with; why a message could not be sent the reader hears.
func (s *stream) write() error {
	defer s.call.CloseSend() //nolint:errcheck // It returns nil.
	if !s.send(&headracev1.UploadRequest{Request: &headracev1.UploadRequest_Header{Header: s.header}}) {
		return nil
	}
	s.wait(func() bool { return s.started != nil }, 0)
	if s.started == nil {
		return nil
	}
	offset := int64(s.started.GetPersistedOffset())
	sum, err := s.checkBeginning()
	if err != nil {
		return err
	}
	limit := chunkBytes
	if most := s.started.GetMaxChunkBytes(); most != 0 && most < chunkBytes {
		limit = int(most)
	}
	for s.waitForRoom(offset) {
		// gRPC may still read what it was given, so each chunk has a buffer of its own.
		data := make([]byte, limit)
		n, err := s.source.ReadAt(data, offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			s.finish(offset, sum)
			return nil
		}
		data = data[:n]
		chunk := &headracev1.UploadChunk{
			Offset:  ptr(uint64(offset)),
			Content: &headracev1.UploadChunk_Data{Data: data},
			Crc32C:  ptr(crc32.Checksum(data, castagnoli)),
		}
		if !s.send(&headracev1.UploadRequest{Request: &headracev1.UploadRequest_Chunk{Chunk: chunk}}) {
			return nil
		}
		sum = crc32.Update(sum, castagnoli, data)
		offset += int64(n)
	}
	return nil
}

func (s *stream) finish(total int64, sum uint32) {
	finish := &headracev1.UploadFinish{TotalSize: ptr(uint64(total))}
	if s.started.PersistedCrc32C != nil {
		finish.Crc32C = ptr(sum)
	}
	s.change(func() { s.isFinished = true })
	s.send(&headracev1.UploadRequest{Request: &headracev1.UploadRequest_Finish{Finish: finish}})
}

// waitForRoom waits until less than the window is on its way, and says whether to go on writing.
func (s *stream) waitForRoom(offset int64) bool {
	hasRoom := func() bool { return offset-s.safe < s.windowBytes }
	if !s.wait(hasRoom, flushAfter) {
		s.send(&headracev1.UploadRequest{Request: &headracev1.UploadRequest_Flush{Flush: &headracev1.UploadFlush{}}})
		s.wait(hasRoom, 0)
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return !s.isOver
}

// checkBeginning compares what the server has with the source, and returns the checksum of that.
func (s *stream) checkBeginning() (uint32, error) {
	size := int64(s.started.GetPersistedOffset())
	hash := crc32.New(castagnoli)
	n, err := io.Copy(hash, io.NewSectionReader(s.source, 0, size))
	switch {
	case err != nil:
		return 0, err
	case n < size:
		return 0, fmt.Errorf("%w: there are only %d bytes, but %d were stored", ErrDifferentContent, n, size)
	case s.started.PersistedCrc32C != nil && hash.Sum32() != s.started.GetPersistedCrc32C():
		return 0, fmt.Errorf("%w: the first %d bytes differ from those stored", ErrDifferentContent, size)
	}
	return hash.Sum32(), nil
}

// checkWhole compares the source with an upload that had been finished before.
func (s *stream) checkWhole() error {
	if _, err := s.checkBeginning(); err != nil {
		return err
	}
	size := int64(s.started.GetPersistedOffset())
	if n, err := s.source.ReadAt(make([]byte, 1), size); n != 0 {
		return fmt.Errorf("%w: there are more bytes than the %d that it was finished with", ErrDifferentContent, size)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// send says whether the message could be sent; why not, the reader hears.
func (s *stream) send(message *headracev1.UploadRequest) bool { return s.call.Send(message) == nil }

// change makes a change that the writer may wait for.
func (s *stream) change(do func()) {
	s.mutex.Lock()
	do()
	s.mutex.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// wait waits until something holds or nothing more is to be written, for ever if timeout is 0; it returns false if
// neither came to be in time.
func (s *stream) wait(until func() bool, timeout time.Duration) bool {
	var late <-chan time.Time
	if timeout != 0 {
		late = time.After(timeout)
	}
	for {
		s.mutex.Lock()
		holds := s.isOver || until()
		s.mutex.Unlock()
		if holds {
			return true
		}
		select {
		case <-s.changed:
		case <-late:
			return false
		}
	}
}

func ptr[T any](value T) *T { return &value }
