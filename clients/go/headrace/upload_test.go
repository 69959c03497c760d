package headrace_test

import (
	"context"
	"errors"
	"log"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"headrace.internal/clients/go/headrace"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

func Example() {
	connection, err := headrace.Connect("127.0.0.1:50051", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := headracev1.NewPipelineServiceClient(connection)

	header := &headracev1.UploadHeader{TenantId: "acme", DataType: "interactions"}
	result, err := headrace.UploadFile(context.Background(), client, header, "interactions.csv")
	if failed := headrace.FromError(err); failed != nil {
		log.Fatal(failed.Reason, failed.Metadata, failed.Retryable())
	} else if err != nil {
		log.Fatal(err)
	}
	log.Print(result.GetRowsAccepted(), " accepted, ", result.GetRowsRejected(), " rejected")
}

func nobody(t *testing.T) headracev1.PipelineServiceClient {
	t.Helper()
	connection, err := headrace.Connect("127.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return headracev1.NewPipelineServiceClient(connection)
}

func TestAnUploadToNobodyIsTriedAgainAndThenGivenUp(t *testing.T) {
	tries := 0
	header := &headracev1.UploadHeader{TenantId: "acme", DataType: "items", UploadId: "7c1e"}
	_, err := headrace.Upload(context.Background(), nobody(t), header, strings.NewReader(""),
		headrace.WithPatience(time.Second),
		headrace.WithProgress(func(p headrace.Progress) {
			if p.Interruption != nil {
				tries++
			}
		}))
	failed := headrace.FromError(err)
	if failed == nil || failed.Code != codes.Unavailable || !failed.Retryable() {
		t.Fatal(err)
	}
	if failed.Metadata["upload_id"] != "7c1e" || failed.Metadata["persisted_offset"] != "0" || tries == 0 {
		t.Error(failed.Metadata, tries)
	}
}

func TestAnUploadEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	header := &headracev1.UploadHeader{TenantId: "acme", DataType: "items"}
	_, err := headrace.Upload(ctx, nobody(t), header, strings.NewReader(""),
		headrace.WithProgress(func(headrace.Progress) { cancel() }))
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRowsAreNotBytes(t *testing.T) {
	header := &headracev1.UploadHeader{Format: headracev1.Format_FORMAT_ROWS}
	if _, err := headrace.Upload(context.Background(), nobody(t), header, strings.NewReader("")); err == nil {
		t.Error("taken")
	}
}
