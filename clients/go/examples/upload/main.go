// Upload streams a CSV file of interactions with progress:
//
//	go run ./upload FILE TENANT [UPLOAD_ID]
//
// It goes on by itself while the server is restarted. If this program is the one that dies, run it again with the
// id it printed. HEADRACE_ADDRESS is where the server is, 127.0.0.1:50051 by default; HEADRACE_WINDOW_BYTES how much may
// be on its way to it.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"headrace.internal/clients/go/headrace"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: upload FILE TENANT [UPLOAD_ID]")
		os.Exit(2)
	}
	if err := upload(os.Args[1], os.Args[2], os.Args[3:]...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func upload(file, tenant string, id ...string) error {
	address := cmp.Or(os.Getenv("HEADRACE_ADDRESS"), "127.0.0.1:50051")
	connection, err := headrace.Connect(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()

	header := &headracev1.UploadHeader{TenantId: tenant, DataType: "interactions"}
	if len(id) > 0 {
		header.UploadId = id[0]
	}
	options := []headrace.Option{headrace.WithProgress(show)}
	if bytes, err := strconv.ParseInt(os.Getenv("HEADRACE_WINDOW_BYTES"), 10, 64); err == nil {
		options = append(options, headrace.WithWindow(bytes))
	}
	client := headracev1.NewPipelineServiceClient(connection)
	result, err := headrace.UploadFile(context.Background(), client, header, file, options...)
	if err != nil {
		return err
	}

	// Bad rows are no error: the outcome, the counts and the report tell of them.
	fmt.Printf("%s version %d: %d rows received, %d accepted, %d rejected, %d of these duplicate\n",
		result.GetOutcome(), result.GetVersion(), result.GetRowsReceived(), result.GetRowsAccepted(),
		result.GetRowsRejected(), result.GetRowsDuplicate())
	for _, check := range result.GetReport().GetChecks() {
		fmt.Printf("%s %s: %d rows, such as\n", check.GetColumn(), check.GetCode(), check.GetFailingRows())
		for _, reject := range check.GetSamples() {
			fmt.Printf("  line %d: %s\n", reject.GetLine(), reject.GetMessage())
		}
	}
	return nil
}

func show(p headrace.Progress) {
	if p.Interruption != nil {
		fmt.Printf("interrupted at byte %d, going on: %v\n", p.PersistedOffset, p.Interruption)
		return
	}
	fmt.Printf("upload %s: %d bytes safe, %d rows accepted, %d rejected\n",
		p.UploadID, p.PersistedOffset, p.RowsAccepted, p.RowsRejected)
}
