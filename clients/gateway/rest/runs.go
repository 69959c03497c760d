package rest

import (
	"context"
	"errors"
	"io"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"headrace.internal/clients/gateway/codec"
	"headrace.internal/clients/gateway/failure"
	"headrace.internal/clients/gateway/table"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

// runRequest asks for a run of either kind.
type runRequest interface {
	proto.Message
	GetIncludeRows() bool
}

// computeFeatures makes features.
func (d *Door) computeFeatures(ctx context.Context, w http.ResponseWriter, r *http.Request, path map[string]string) error {
	request := &headracev1.ComputeFeaturesRequest{}
	inLines, err := d.decodeRun(r, path, request)
	if err != nil {
		return err
	}
	request.OmitProgress = request.OmitProgress || !inLines
	stream, err := d.client.ComputeFeatures(ctx, request)
	if err != nil {
		return err
	}
	return d.answerRun(w, inLines, func() (proto.Message, error) { return stream.Recv() })
}

// sampleNegatives makes training data.
func (d *Door) sampleNegatives(ctx context.Context, w http.ResponseWriter, r *http.Request, path map[string]string) error {
	request := &headracev1.SampleNegativesRequest{}
	inLines, err := d.decodeRun(r, path, request)
	if err != nil {
		return err
	}
	request.OmitProgress = request.OmitProgress || !inLines
	stream, err := d.client.SampleNegatives(ctx, request)
	if err != nil {
		return err
	}
	return d.answerRun(w, inLines, func() (proto.Message, error) { return stream.Recv() })
}

// decodeRun fills a request, and says whether its answer is to be in lines.
func (d *Door) decodeRun(r *http.Request, path map[string]string, request runRequest) (inLines bool, err error) {
	if err := d.decode(r, path, request); err != nil {
		return false, err
	}
	if err := parseQuery(nothingElse, r.URL.Query()); err != nil {
		return false, err
	}
	inLines = accepts(r, linesType)
	if request.GetIncludeRows() && !inLines {
		return false, failure.InvalidField("include_rows", "include_rows is true, and rows come as JSON lines alone; "+
			"send Accept: "+linesType+", or read the tables afterwards.")
	}
	return inLines, nil
}

// nothingElse has no field, so no parameter is one of it.
var nothingElse = &headracev1.CheckHealthRequest{}

// answerRun answers with the result alone, and with the status that the run ends with; or with a line for each response.
func (d *Door) answerRun(w http.ResponseWriter, inLines bool, next func() (proto.Message, error)) error {
	to := newBody(w, linesType)
	for {
		response, err := next()
		if errors.Is(err, io.EOF) {
			err = status.Error(codes.Internal, "a run ended without a result")
		}
		if err != nil {
			return to.fail(err, inLines)
		}
		kind, content := contentOf(response)
		switch {
		case kind == "result" && !inLines:
			return d.write(w, content)
		case !inLines:
			continue
		}
		line, err := lineOf(kind, content)
		if err != nil {
			return to.fail(err, inLines)
		}
		if _, err := to.Write(line); err != nil || kind == "result" {
			return nil // The client has gone, or has everything.
		}
	}
}

// contentOf is what a response of a run has one of: progress, rows, result.
func contentOf(response proto.Message) (kind string, content proto.Message) {
	message := response.ProtoReflect()
	field := message.WhichOneof(message.Descriptor().Oneofs().ByName("response"))
	if field == nil {
		return "", nil
	}
	return string(field.Name()), message.Get(field).Message().Interface()
}

// lineOf is a response as a JSON object of one key.
func lineOf(kind string, content proto.Message) ([]byte, error) {
	text := append(codec.AppendText([]byte{'{'}, kind), ':')
	var err error
	if rows, ok := content.(*headracev1.RunRows); ok {
		text, err = table.AppendObject(text, rows.GetTable(), rows.GetArrowIpc())
	} else {
		text, err = codec.Append(text, content)
	}
	return append(text, "}\n"...), err
}
