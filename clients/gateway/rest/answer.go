package rest

import (
	"context"
	"io"
	"log/slog"
	"slices"

	headracev1 "headrace.internal/clients/go/headrace/v1"
)

// shownErrors are the rejects of an answer at most; /v1/tenants/.../rejects has all.
const shownErrors = 100

// Answer is what callers of /internal/data get to know of their rows.
type Answer struct {
	// Status is success, if every row was stored; partial, if some were; failed, if none was.
	Status       string `json:"status"`
	RowsAccepted uint64 `json:"rows_accepted"`
	RowsRejected uint64 `json:"rows_rejected"`
	// S3Path is the URI of the Delta table that has the rows; empty if none was stored.
	S3Path string `json:"s3_path"`
	// ValidationErrors are the first ones, at most 100.
	ValidationErrors []ValidationError `json:"validation_errors"`
	// Warnings reject no row.
	Warnings []Warning `json:"warnings"`
	UploadID string    `json:"upload_id"`
	// Version is that of the table which made the rows visible; null if none was stored.
	Version *int64 `json:"version"`
}

// ValidationError is a rule that a row broke.
type ValidationError struct {
	// Row counts from 0.
	Row uint64 `json:"row"`
	// Line counts from 1; null for rows of a JSON array.
	Line    *uint64 `json:"line"`
	Column  string  `json:"column"`
	Code    string  `json:"code"`
	Message string  `json:"message"`
}

// Warning is something odd that rejects no row.
type Warning struct {
	Code    string `json:"code"`
	Column  string `json:"column"`
	Count   uint64 `json:"count"`
	Message string `json:"message"`
}

// answerOf makes the answer to rows of a tenant.
func (d *Door) answerOf(ctx context.Context, tenant string, result *headracev1.UploadResult) Answer {
	answer := Answer{
		Status:           statusOf(result),
		RowsAccepted:     result.GetRowsAccepted(),
		RowsRejected:     result.GetRowsRejected(),
		S3Path:           result.GetTableUri(),
		ValidationErrors: []ValidationError{},
		Warnings:         []Warning{},
		UploadID:         result.GetUploadId(),
		Version:          result.Version,
	}
	for _, warning := range result.GetReport().GetWarnings() {
		answer.Warnings = append(answer.Warnings,
			Warning{warning.GetCode(), warning.GetColumn(), warning.GetCount(), warning.GetMessage()})
	}
	if result.GetRowsRejected() > 0 {
		for _, reject := range d.firstRejects(ctx, tenant, result) {
			answer.ValidationErrors = append(answer.ValidationErrors,
				ValidationError{reject.GetRowNumber(), reject.Line, reject.GetColumn(), reject.GetCode(), reject.GetMessage()})
		}
	}
	return answer
}

func statusOf(result *headracev1.UploadResult) string {
	switch {
	case result.GetRowsRejected() == 0 && result.GetOutcome() != headracev1.Outcome_OUTCOME_REFUSED:
		return "success"
	case result.GetOutcome() == headracev1.Outcome_OUTCOME_COMMITTED:
		return "partial"
	default:
		return "failed"
	}
}

// firstRejects are those with the smallest row numbers. Should the server not be able to list them now, the rows are
// stored all the same, and the samples of the report have to do.
func (d *Door) firstRejects(ctx context.Context, tenant string, result *headracev1.UploadResult) []*headracev1.Reject {
	request := &headracev1.ListRejectsRequest{TenantId: tenant, UploadId: result.GetUploadId(), Limit: shownErrors}
	stream, err := d.client.ListRejects(ctx, request)
	var rejects []*headracev1.Reject
	for err == nil {
		var page *headracev1.ListRejectsResponse
		if page, err = stream.Recv(); err == nil {
			rejects = append(rejects, page.GetRejects()...)
		}
	}
	if err == io.EOF {
		return rejects
	}
	slog.WarnContext(ctx, "the rejects of an upload cannot be listed", "event", "rejects_not_listed",
		"tenant", tenant, "upload_id", result.GetUploadId(), "error", err.Error())
	return samplesOf(result.GetReport())
}

func samplesOf(report *headracev1.Report) []*headracev1.Reject {
	var samples []*headracev1.Reject
	for _, check := range report.GetChecks() {
		samples = append(samples, check.GetSamples()...)
	}
	slices.SortStableFunc(samples, func(a, b *headracev1.Reject) int {
		return int(a.GetRowNumber()) - int(b.GetRowNumber())
	})
	return samples[:min(len(samples), shownErrors)]
}
