package rest

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"

	"headrace.internal/clients/gateway/failure"
)

// questionKey marks a request that only asks whether there is a route for it.
type questionKey struct{}

// observe tells of the route that a request takes.
func (d *Door) observe(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, path map[string]string) {
		if found, isQuestion := r.Context().Value(questionKey{}).(*bool); isQuestion {
			*found = true
			return
		}
		if pattern, ok := runtime.HTTPPattern(r.Context()); ok {
			d.options.OnRoute(r.Context(), strings.ReplaceAll(pattern.String(), "=*", ""))
		}
		next(w, r, path)
	}
}

// answerNoRoute answers requests that no route takes.
func (d *Door) answerNoRoute(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, httpStatus int) {
	if ctx.Value(questionKey{}) != nil {
		return
	}
	err := failure.Plain(httpStatus, codes.InvalidArgument, "The path is none.")
	switch httpStatus {
	case http.StatusNotFound:
		err = failure.Plain(httpStatus, codes.NotFound, fmt.Sprintf("There is no %s; /docs lists what there is.", r.URL.Path))
	case http.StatusMethodNotAllowed:
		methods := strings.Join(d.methods(r), ", ")
		w.Header().Set("Allow", methods)
		err = failure.Plain(httpStatus, codes.Unimplemented, fmt.Sprintf("%s takes no %s, but %s.", r.URL.Path, r.Method, methods))
	}
	failure.Write(w, err)
}

// methods are those that a path takes: the mux is asked for each, which ends before a handler.
func (d *Door) methods(r *http.Request) []string {
	var methods []string
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		found := false
		question := r.Clone(context.WithValue(r.Context(), questionKey{}, &found))
		question.Method = method
		d.mux.ServeHTTP(nil, question)
		if found {
			methods = append(methods, method)
		}
	}
	return methods
}
