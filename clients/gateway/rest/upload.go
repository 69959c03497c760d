package rest

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"headrace.internal/clients/gateway/limit"
	"headrace.internal/clients/gateway/upload"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

// UploadIDHeader tells the id of an upload also where there is no answer but an error, so that it can be resumed.
const UploadIDHeader = "Headrace-Upload-Id"

const abortTimeout = 5 * time.Second

// uploadFile stores the rows of a file, whatever its size, in constant memory.
func (d *Door) uploadFile(ctx context.Context, w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	header := &headracev1.UploadHeader{}
	if err := parseQuery(header, r.URL.Query(), "format", "compression", "expected_rows", "expected_bytes"); err != nil {
		return err
	}
	isOurs := header.UploadId == ""
	if isOurs {
		header.UploadId = uuid.NewString()
	}
	if err := d.uploads.Take(); err != nil {
		return err
	}
	defer d.uploads.Free()
	// An error is answered while the client still sends.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		return err
	}
	body := limit.NewBody(w, r, d.options.Idle)
	file, err := openForm(r.Header.Get("Content-Type"), body)
	if err != nil {
		answerError(ctx, d.mux, d.codec, w, r, err)
		body.Linger()
		return nil
	}
	w.Header().Set(UploadIDHeader, header.GetUploadId())
	header.Compression = file.compression
	feed := upload.NewFeed(file)
	defer func() {
		body.Stop()
		feed.Close()
	}()
	result, err := d.options.Uploader.Run(ctx, header, feed)
	if err != nil {
		var source *upload.SourceError
		if errors.As(err, &source) && isOurs {
			d.abort(ctx, header)
		}
		answerError(ctx, d.mux, d.codec, w, r, err)
		body.Linger(feed.Drain)
		return nil
	}
	return d.writeAnswer(ctx, w, header.GetTenantId(), result)
}

// abort gives up an upload that nobody else knows of.
func (d *Door) abort(ctx context.Context, header *headracev1.UploadHeader) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	request := &headracev1.AbortUploadRequest{TenantId: header.GetTenantId(), UploadId: header.GetUploadId()}
	if _, err := d.client.AbortUpload(ctx, request); err != nil {
		slog.InfoContext(ctx, "an upload could not be aborted; the server gives it up by itself",
			"event", "abort_failed", "upload_id", header.GetUploadId(), "error", err.Error())
	}
}
