// Status tells how far an upload has come, and shows how to handle the typed errors of failed calls:
//
//	go run ./status TENANT UPLOAD_ID
//
// HEADRACE_ADDRESS is where the server is, 127.0.0.1:50051 by default.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"headrace.internal/clients/go/headrace"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: status TENANT UPLOAD_ID")
		os.Exit(2)
	}
	address := cmp.Or(os.Getenv("HEADRACE_ADDRESS"), "127.0.0.1:50051")
	connection, err := headrace.Connect(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer connection.Close()

	upload, err := headracev1.NewPipelineServiceClient(connection).GetUpload(context.Background(),
		&headracev1.GetUploadRequest{TenantId: os.Args[1], UploadId: os.Args[2]})
	switch failed := headrace.FromError(err); {
	case failed == nil:
		fmt.Printf("%s, %d bytes safe\n", upload.GetState(), upload.GetPersistedOffset())
	case failed.Reason == headracev1.ErrorReason_ERROR_REASON_UPLOAD_NOT_FOUND:
		fmt.Println("there is no upload", failed.Metadata["upload_id"])
	case failed.Retryable():
		fmt.Println("try again later:", failed)
	default:
		fmt.Println("failed for good:", failed)
	}
}
