package rest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"

	"google.golang.org/grpc/codes"

	"headrace.internal/clients/gateway/failure"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

const (
	// fileField is the name of the part that has the file, as curl's -F file=@... gives it.
	fileField = "file"
	readBytes = 128 << 10
)

// magics are the first bytes of compressed files, which no CSV begins with.
var magics = []struct {
	bytes       []byte
	compression headracev1.Compression
}{
	{[]byte{0x1f, 0x8b}, headracev1.Compression_COMPRESSION_GZIP},
	{[]byte{0x28, 0xb5, 0x2f, 0xfd}, headracev1.Compression_COMPRESSION_ZSTD},
}

// formFile is the one file of a form. Its end is the end of the form: it fails if something else is in it.
type formFile struct {
	body        io.Reader
	parts       *multipart.Reader
	content     *bufio.Reader
	compression headracev1.Compression
}

// openForm finds the file of a form, which is read as it comes.
func openForm(contentType string, body io.Reader) (*formFile, error) {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || media != "multipart/form-data" {
		return nil, failure.Plain(http.StatusUnsupportedMediaType, codes.InvalidArgument,
			"The body is no form; send multipart/form-data with one part named file, as curl -F file=@interactions.csv does.")
	}
	if params["boundary"] == "" {
		return nil, failure.Malformed("The Content-Type has no boundary, so the parts of the form cannot be told apart.")
	}
	parts := multipart.NewReader(bufio.NewReaderSize(body, readBytes), params["boundary"])
	part, err := parts.NextRawPart()
	if err != nil {
		return nil, badForm(err)
	}
	if part.FormName() != fileField {
		return nil, failure.Malformed(fmt.Sprintf("The first part of the form is named %q; send the file, and it alone, in a part named %s.",
			part.FormName(), fileField))
	}
	file := &formFile{body: body, parts: parts, content: bufio.NewReaderSize(part, readBytes)}
	for _, magic := range magics {
		if start, _ := file.content.Peek(len(magic.bytes)); bytes.Equal(start, magic.bytes) {
			file.compression = magic.compression
		}
	}
	return file, nil
}

// Read reads the file.
func (f *formFile) Read(into []byte) (int, error) {
	count, err := f.content.Read(into)
	if err == io.EOF {
		return count, f.end()
	}
	if err != nil {
		return count, badForm(err)
	}
	return count, nil
}

// end reads what is behind the file.
func (f *formFile) end() error {
	switch _, err := f.parts.NextRawPart(); err {
	case io.EOF:
	case nil:
		return failure.Malformed("The form has another part behind the file; send one file in one call.")
	default:
		return badForm(err)
	}
	if _, err := io.Copy(io.Discard, f.body); err != nil {
		return badForm(err)
	}
	return io.EOF
}

// badForm tells of a form that breaks off or is none. An error that has a status keeps it.
func badForm(err error) error {
	if failure.HTTPStatus(err) != http.StatusInternalServerError {
		return err
	}
	return failure.Malformed(fmt.Sprintf("The form cannot be read: %v.", err))
}
