package failure

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	headracev1 "headrace.internal/clients/go/headrace/v1"
)

// The contract says of each reason what grpc-gateway makes of its code.
func TestHTTPStatusesAreThoseOfTheContract(t *testing.T) {
	values := headracev1.ErrorReason(0).Descriptor().Values()
	for i := 1; i < values.Len(); i++ {
		traits := proto.GetExtension(values.Get(i).Options(), headracev1.E_ErrorTraits).(*headracev1.ErrorTraits)
		if got := runtime.HTTPStatusFromCode(codes.Code(traits.GetCode())); got != int(traits.GetHttpStatus()) {
			t.Errorf("%s is HTTP %d, not %d", values.Get(i).Name(), traits.GetHttpStatus(), got)
		}
	}
}

func TestWhatIsWrappedKeepsStatusAndWords(t *testing.T) {
	body := Of(fmt.Errorf("multipart: %w", Malformed("No.")))
	if body.Code != "INVALID_ARGUMENT" || body.Reason != "MALFORMED_MESSAGE" || body.Message != "No." {
		t.Errorf("%+v", body)
	}
	if got := HTTPStatus(fmt.Errorf("multipart: %w", TooLarge(7))); got != 413 {
		t.Errorf("HTTP %d", got)
	}
}

func TestGRPCsOwnWordsStayInside(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.Internal, codes.Unknown, codes.DeadlineExceeded} {
		if got := Of(status.Error(code, "dial tcp 10.0.0.7:50051")).Message; got == "dial tcp 10.0.0.7:50051" {
			t.Errorf("%s tells where the server is", code)
		}
	}
}

func TestWaitingIsToldToWhomItHelps(t *testing.T) {
	answer := httptest.NewRecorder()
	Write(answer, Overloaded("uploads", 16))
	if answer.Code != 429 || answer.Header().Get("Retry-After") != "1" {
		t.Errorf("HTTP %d, Retry-After %q", answer.Code, answer.Header().Get("Retry-After"))
	}
}
