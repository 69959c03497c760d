package codec

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	headracev1 "headrace.internal/clients/go/headrace/v1"
)

func TestMessagesHaveTheContractsNamesAndZeros(t *testing.T) {
	failed, err := status.New(codes.FailedPrecondition, "too few").WithDetails(&errdetails.ErrorInfo{Reason: "NO_POSITIVES"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		message proto.Message
		want    string
	}{
		{
			&headracev1.UploadResult{Outcome: headracev1.Outcome_OUTCOME_EMPTY, RowsReceived: 1 << 53, RowsAccepted: 1<<53 + 1},
			`{"upload_id":"","outcome":"OUTCOME_EMPTY","table_uri":"","rows_received":9007199254740992,` +
				`"rows_accepted":"9007199254740993","rows_rejected":0,"rows_duplicate":0,"rejects_uri":"","refusal":""}`,
		},
		{&headracev1.Report{}, `{"rows_received":0,"rows_accepted":0,"rows_rejected":0,"rows_duplicate":0,"checks":[],"columns":[],"warnings":[]}`},
		{&headracev1.TableVersion{Table: "a<\"\n\x01é", Version: -1}, `{"table":"a<\"\n\u0001é","table_uri":"","version":-1,"rows":0}`},
		{&headracev1.ReadTableStarted{SplitRows: map[string]uint64{"b": 1, "a": 2}},
			`{"table_uri":"","version":0,"rows":0,"columns":[],"split_rows":{"a":2,"b":1}}`},
		{&headracev1.RunRows{ArrowIpc: []byte{0xff}}, `{"table":"","arrow_ipc":"/w=="}`},
		{&headracev1.NegativesResult{AsOf: &timestamppb.Timestamp{Seconds: 1, Nanos: 1000}}, `"as_of":"1970-01-01T00:00:01.000001Z"`},
		{&headracev1.Run{Error: failed.Proto()}, `"error":{"code":"FAILED_PRECONDITION","reason":"NO_POSITIVES","message":"too few","details":[{`},
		{&headracev1.JsonRows{Rows: []*structpb.Struct{{Fields: map[string]*structpb.Value{"a": structpb.NewNumberValue(0.5)}}}},
			`{"rows":[{"a":0.5}]}`},
	} {
		text, err := Append(nil, test.message)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(text) || !strings.Contains(string(text), test.want) {
			t.Errorf("%s, not %s", text, test.want)
		}
	}
}

func TestNumbersThatADoubleCannotHoldKeepTheirDigits(t *testing.T) {
	for text, want := range map[string]string{
		`[{"id": 9007199254740993, "n": 1}]`:           `[{"id": "9007199254740993", "n": 1}]`,
		`[-9007199254740993,1e400,1.5,-0,12]`:          `["-9007199254740993","1e400",1.5,-0,12]`,
		`{"a":"9007199254740993 \" 9007199254740993"}`: `{"a":"9007199254740993 \" 9007199254740993"}`,
		`"\`: `"\`,
		`-`:  `-`,
		``:   ``,
	} {
		if got := string(quoteInexact([]byte(text))); got != want {
			t.Errorf("%s becomes %s, not %s", text, got, want)
		}
	}
}

func FuzzQuotingLeavesJSONAsItIs(f *testing.F) {
	f.Add([]byte(`{"a": [1, -2.5e3, "x\"9", 123456789012345678901234567890]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if quoted := quoteInexact(text); json.Valid(text) && !json.Valid(quoted) {
			t.Errorf("%q is JSON, %q is not", text, quoted)
		}
	})
}
