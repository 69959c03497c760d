package rest

import (
	"context"
	"net/http"

	"headrace.internal/clients/gateway/codec"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

// ingestRows stores a JSON array of rows.
func (d *Door) ingestRows(ctx context.Context, w http.ResponseWriter, r *http.Request, path map[string]string) error {
	request := &headracev1.IngestRowsRequest{}
	if err := d.codec.NewDecoder(r.Body).Decode(&request.Rows); err != nil {
		return malformed(err)
	}
	if err := fromPath(path, request); err != nil {
		return err
	}
	if err := parseQuery(request, r.URL.Query(), "rows", "data_type"); err != nil {
		return err
	}
	response, err := d.client.IngestRows(ctx, request)
	if err != nil {
		return err
	}
	return d.writeAnswer(ctx, w, request.GetTenantId(), response.GetResult())
}

func (d *Door) writeAnswer(ctx context.Context, w http.ResponseWriter, tenant string, result *headracev1.UploadResult) error {
	text, err := d.codec.Marshal(d.answerOf(ctx, tenant, result))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", codec.ContentType)
	_, _ = w.Write(text) // Whoever is gone does not read it.
	return nil
}
