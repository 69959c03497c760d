// Package table is the rows that the server sends as Arrow, for those who speak HTTP: one Arrow stream, or JSON.
package table

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
)

// Of the framing of Arrow IPC: a marker, the length of the metadata, the metadata, the body. A schema has no body,
// and a length of 0 ends the stream. https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format
const (
	marker    = 0xFFFFFFFF
	headBytes = 8
)

var endOfStream = []byte{0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0}

// Joiner writes streams of one schema, each complete in itself, as one stream.
type Joiner struct {
	to     io.Writer
	schema []byte
}

// NewJoiner makes a joiner that writes to a writer.
func NewJoiner(to io.Writer) *Joiner { return &Joiner{to: to} }

// Add writes the batches of a stream.
func (j *Joiner) Add(stream []byte) error {
	schema, batches, err := split(stream)
	if err != nil {
		return err
	}
	switch {
	case j.schema == nil:
		j.schema = bytes.Clone(schema)
		if _, err := j.to.Write(schema); err != nil {
			return err
		}
	case !bytes.Equal(schema, j.schema):
		return errors.New("the schema changes amid an Arrow stream")
	}
	_, err = j.to.Write(batches)
	return err
}

// Close ends the stream; without that readers know that something is missing. If there were no rows, no stream
// has told the types of the columns, and they get none.
func (j *Joiner) Close(columns []string) error {
	if j.schema == nil {
		fields := make([]arrow.Field, len(columns))
		for i, name := range columns {
			fields[i] = arrow.Field{Name: name, Type: arrow.Null, Nullable: true}
		}
		return ipc.NewWriter(j.to, ipc.WithSchema(arrow.NewSchema(fields, nil))).Close()
	}
	_, err := j.to.Write(endOfStream)
	return err
}

func split(stream []byte) (schema, batches []byte, err error) {
	if len(stream) < headBytes || binary.LittleEndian.Uint32(stream) != marker {
		return nil, nil, errors.New("an Arrow stream does not begin with a schema")
	}
	length := int(binary.LittleEndian.Uint32(stream[4:]))
	if length > len(stream)-headBytes {
		return nil, nil, fmt.Errorf("an Arrow schema has %d bytes, of %d", length, len(stream))
	}
	schema, batches = stream[:headBytes+length], stream[headBytes+length:]
	if trimmed, ended := bytes.CutSuffix(batches, endOfStream); ended {
		batches = trimmed
	}
	return schema, batches, nil
}
