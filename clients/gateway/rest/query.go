package rest

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// nothing is the filter of those who take every field from the query.
var nothing = utilities.NewDoubleArray(nil)

// strictQuery refuses parameters that there are not, which grpc-gateway would pass over: one that is misspelt must
// not change what is done.
type strictQuery struct{ runtime.DefaultQueryParser }

// Parse fills a message from the query.
func (q *strictQuery) Parse(into proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	fields := into.ProtoReflect().Descriptor().Fields()
	for name := range values {
		head, _, _ := strings.Cut(name, ".")
		head, _, _ = strings.Cut(head, "[")
		field := fields.ByName(protoreflect.Name(head))
		if field == nil || filter.HasCommonPrefix([]string{head}) {
			return fmt.Errorf("there is no parameter %q; /docs lists what there is", name)
		}
	}
	return q.DefaultQueryParser.Parse(into, values, filter)
}

// parseQuery fills a message from the query, but for fields that come from elsewhere.
func parseQuery(into proto.Message, values url.Values, others ...string) error {
	filter := nothing
	if len(others) > 0 {
		paths := make([][]string, len(others))
		for i, name := range others {
			paths[i] = []string{name}
		}
		filter = utilities.NewDoubleArray(paths)
	}
	if err := runtime.PopulateQueryParameters(into, values, filter); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return nil
}
