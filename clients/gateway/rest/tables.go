package rest

import (
	"context"
	"io"
	"net/http"
	"strconv"

	"headrace.internal/clients/gateway/codec"
	"headrace.internal/clients/gateway/table"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

// Headers that tell of the version that is read, so that a read which breaks can go on in it.
const (
	tableURIHeader     = "Headrace-Table-Uri"
	tableVersionHeader = "Headrace-Table-Version"
	tableRowsHeader    = "Headrace-Table-Rows"
)

// readTable answers with rows, as JSON lines or as one Arrow stream.
func (d *Door) readTable(ctx context.Context, w http.ResponseWriter, r *http.Request, path map[string]string) error {
	request := &headracev1.ReadTableRequest{}
	if err := fromPath(path, request); err != nil {
		return err
	}
	if err := parseQuery(request, r.URL.Query(), "tenant_id", "table", "encoding"); err != nil {
		return err
	}
	// JSON of the server's own has integers as strings, as a Struct has none.
	request.Encoding = headracev1.RowEncoding_ROW_ENCODING_ARROW_IPC
	stream, err := d.client.ReadTable(ctx, request)
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	started := first.GetStarted()
	w.Header().Set(tableURIHeader, started.GetTableUri())
	w.Header().Set(tableVersionHeader, strconv.FormatInt(started.GetVersion(), 10))
	w.Header().Set(tableRowsHeader, strconv.FormatUint(started.GetRows(), 10))
	arrow := accepts(r, arrowType)
	to := newBody(w, linesType)
	write := func(page []byte) error {
		text, err := table.AppendLines(nil, page)
		if err == nil {
			_, err = to.Write(text)
		}
		return err
	}
	end := func() error { return nil }
	if arrow {
		to = newBody(w, arrowType)
		joiner := table.NewJoiner(to)
		write, end = joiner.Add, func() error { return joiner.Close(started.GetColumns()) }
	}
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			err = end()
			if err == nil {
				return nil
			}
		}
		if err == nil {
			err = write(response.GetArrowIpc())
		}
		if err != nil {
			return to.fail(err, !arrow)
		}
	}
}

// listRejects answers with a reject a line.
func (d *Door) listRejects(ctx context.Context, w http.ResponseWriter, r *http.Request, path map[string]string) error {
	request := &headracev1.ListRejectsRequest{}
	if err := fromPath(path, request); err != nil {
		return err
	}
	if err := parseQuery(request, r.URL.Query(), "tenant_id", "upload_id"); err != nil {
		return err
	}
	stream, err := d.client.ListRejects(ctx, request)
	if err != nil {
		return err
	}
	to := newBody(w, linesType)
	for {
		page, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		var text []byte
		for _, reject := range page.GetRejects() {
			if text, err = codec.Append(text, reject); err != nil {
				break
			}
			text = append(text, '\n')
		}
		if err == nil {
			_, err = to.Write(text)
		}
		if err != nil {
			return to.fail(err, true)
		}
	}
}
