// Read prints the schema of a table and counts its rows, which come as Arrow:
//
//	go run ./read TENANT TABLE
//
// HEADRACE_ADDRESS is where the server is, 127.0.0.1:50051 by default.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/apache/arrow-go/v18/arrow/ipc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"headrace.internal/clients/go/headrace"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: read TENANT TABLE")
		os.Exit(2)
	}
	if err := read(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(tenant, table string) error {
	address := cmp.Or(os.Getenv("HEADRACE_ADDRESS"), "127.0.0.1:50051")
	connection, err := headrace.Connect(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	responses, err := headracev1.NewPipelineServiceClient(connection).ReadTable(ctx, &headracev1.ReadTableRequest{
		TenantId: tenant,
		Table:    table,
		Encoding: headracev1.RowEncoding_ROW_ENCODING_ARROW_IPC,
	})
	if err != nil {
		return headrace.FromError(err)
	}
	rows := int64(0)
	for {
		response, err := responses.Recv()
		if errors.Is(err, io.EOF) {
			fmt.Printf("%d rows read\n", rows)
			return nil
		}
		if err != nil {
			return headrace.FromError(err)
		}
		if started := response.GetStarted(); started != nil {
			fmt.Printf("version %d of %s: %d rows\n", started.GetVersion(), started.GetTableUri(), started.GetRows())
			continue
		}
		// Each message is an Arrow IPC stream, complete in itself.
		batches, err := ipc.NewReader(bytes.NewReader(response.GetArrowIpc()))
		if err != nil {
			return err
		}
		if rows == 0 {
			fmt.Println(batches.Schema())
		}
		for batches.Next() {
			rows += batches.RecordBatch().NumRows()
		}
		err = batches.Err()
		batches.Release()
		if err != nil {
			return err
		}
	}
}
