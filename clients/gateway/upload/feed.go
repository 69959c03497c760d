package upload

import (
	"hash/crc32"
	"io"
	"sync"
)

// chunkBytes is the content of a message. The contract advises 256 KiB to 1 MiB.
const chunkBytes = 512 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var buffers = sync.Pool{New: func() any {
	buffer := make([]byte, chunkBytes)
	return &buffer
}}

// chunk is a piece of the stream.
type chunk struct {
	offset uint64
	data   []byte
	// before is the CRC-32C of everything before the chunk.
	before uint32
	buffer *[]byte
}

func (c *chunk) end() uint64 { return c.offset + uint64(len(c.data)) }

// checksum is the CRC-32C of the stream up to an offset within the chunk.
func (c *chunk) checksum(offset uint64) uint32 {
	return crc32.Update(c.before, castagnoli, c.data[:offset-c.offset])
}

func (c *chunk) release() { buffers.Put(c.buffer) }

// Feed reads a source beside whoever sends it, one chunk ahead.
type Feed struct {
	chunks chan *chunk
	stop   chan struct{}
	// err is why the source ended, nil at its end; to be read once chunks is closed.
	err error
}

// NewFeed begins to read a source. Close it.
func NewFeed(source io.Reader) *Feed {
	feed := &Feed{chunks: make(chan *chunk), stop: make(chan struct{})}
	go feed.read(source)
	return feed
}

// Close lets go of what has been read and waits until nobody reads the source any more. So that it returns
// soon, the caller ends a read that waits.
func (f *Feed) Close() {
	close(f.stop)
	for left := range f.chunks {
		left.release()
	}
}

// Drain discards the source to its end, for a client that reads no answer before it has sent everything.
func (f *Feed) Drain() {
	for left := range f.chunks {
		left.release()
	}
}

func (f *Feed) read(source io.Reader) {
	defer close(f.chunks)
	var offset uint64
	var checksum uint32
	for f.err == nil {
		buffer := buffers.Get().(*[]byte)
		count, err := fill(source, *buffer)
		next := &chunk{offset: offset, data: (*buffer)[:count], before: checksum, buffer: buffer}
		if count == 0 {
			next.release()
		} else {
			offset, checksum = next.end(), next.checksum(next.end())
			select {
			case f.chunks <- next:
			case <-f.stop:
				next.release()
				return
			}
		}
		if err == io.EOF {
			return
		}
		f.err = err
	}
}

// fill reads until the buffer is full or the source ends. io.ReadFull would say ErrUnexpectedEOF of an end within
// the buffer, as a source does that breaks off.
func fill(source io.Reader, buffer []byte) (count int, err error) {
	for count < len(buffer) && err == nil {
		var read int
		read, err = source.Read(buffer[count:])
		count += read
	}
	return count, err
}
