// Package metric counts what the gateway does, for Prometheus.
package metric

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// noRoute stands for the paths that there are not, of which callers can make up any number.
const noRoute = "none"

type routeKey struct{}

// Metrics are the gateway's.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	uploaded prometheus.Counter
}

// New makes them, beside those of the process and of Go.
func New() *Metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	factory := promauto.With(registry)
	labels := []string{"method", "route"}
	return &Metrics{
		registry: registry,
		requests: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "headrace_gateway_requests_total", Help: "Requests answered, by route and HTTP status.",
		}, append(labels, "status")),
		seconds: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name: "headrace_gateway_request_seconds", Help: "How long requests took, bodies included.",
			Buckets: prometheus.ExponentialBuckets(0.005, 3, 10),
		}, labels),
		inFlight: factory.NewGauge(prometheus.GaugeOpts{
			Name: "headrace_gateway_requests_in_flight", Help: "Requests under way.",
		}),
		uploaded: factory.NewCounter(prometheus.CounterOpts{
			Name: "headrace_gateway_uploaded_bytes_total", Help: "Bytes of files sent to the server.",
		}),
	}
}

// Handler answers with all of them.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// Uploaded counts bytes of files.
func (m *Metrics) Uploaded(count int) { m.uploaded.Add(float64(count)) }

// Observe counts requests. Whoever finds the route of one tells SetRoute.
func (m *Metrics) Observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route := noRoute
		answer := &recorder{ResponseWriter: w, status: http.StatusOK}
		start := time.Now()
		m.inFlight.Inc()
		defer func() {
			m.inFlight.Dec()
			m.seconds.WithLabelValues(methodOf(r), route).Observe(time.Since(start).Seconds())
			m.requests.WithLabelValues(methodOf(r), route, strconv.Itoa(answer.status)).Inc()
		}()
		next.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), routeKey{}, &route)))
	})
}

// SetRoute names the route of a request that is observed, by its pattern.
func SetRoute(ctx context.Context, pattern string) {
	if route, ok := ctx.Value(routeKey{}).(*string); ok {
		*route = pattern
	}
}

// methodOf is a method that HTTP knows: callers can make up any.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions:
		return r.Method
	default:
		return "other"
	}
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if status >= http.StatusOK { // Not 100 Continue.
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
