// A form that is honest has three headers to a part; by default Go takes 10,000.
//
//go:debug multipartmaxheaders=64

// Command gateway is Headrace for those who speak HTTP and JSON. docs/rest.md tells of its calls,
// .env.gateway.example of its settings.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"headrace.internal/clients/gateway/limit"
	"headrace.internal/clients/gateway/metric"
	"headrace.internal/clients/gateway/openapi"
	"headrace.internal/clients/gateway/rest"
	"headrace.internal/clients/gateway/settings"
	"headrace.internal/clients/gateway/upload"
	"headrace.internal/clients/gateway/upstream"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

func main() {
	if err := run(); err != nil {
		slog.Error(err.Error(), "event", "failed")
		os.Exit(1)
	}
}

func run() error {
	config, err := settings.Read(os.Environ())
	if err != nil {
		return err
	}
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: config.LogLevel})))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	conn, err := upstream.Dial(config)
	if err != nil {
		return fmt.Errorf("GATEWAY_SERVER_ADDRESS: %w", err)
	}
	defer conn.Close()
	handler, err := handle(ctx, config, headracev1.NewPipelineServiceClient(conn))
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: config.Header(),
		IdleTimeout:       2 * config.Idle(),
		MaxHeaderBytes:    config.MaxHeaderBytes,
		// What it says is of connections that break and of clients that are none.
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	return serve(ctx, server, config)
}

// handle makes the handler of everything.
func handle(ctx context.Context, config settings.Settings, client headracev1.PipelineServiceClient) (http.Handler, error) {
	metrics := metric.New()
	calls, err := rest.New(ctx, client, rest.Options{
		Uploader: &upload.Uploader{
			Client:      client,
			WindowBytes: config.WindowBytes,
			Patience:    config.Patience(),
			OnBytes:     metrics.Uploaded,
		},
		MaxUploads:   config.MaxUploads,
		MaxJSONBytes: config.MaxJSONBytes,
		Idle:         config.Idle(),
		OnRoute:      metric.SetRoute,
	})
	if err != nil {
		return nil, err
	}
	document, err := openapi.Document()
	if err != nil {
		return nil, err
	}
	slots := limit.NewSlots("requests", config.MaxRequests)
	routes := http.NewServeMux()
	routes.Handle("/", slots.Requests(calls))
	// Whoever asks these has to get an answer above all when there is too much to do.
	routes.Handle("GET /health", calls)
	routes.Handle("GET /metrics", metrics.Handler())
	routes.Handle("GET "+openapi.DocumentPath, document)
	routes.Handle("GET "+openapi.PagePath, openapi.Page())
	return metrics.Observe(limit.Writers(config.Idle(), rest.Identified(routes))), nil
}

// serve serves until it is told to stop, and then until what is under way has ended or its time is over.
func serve(ctx context.Context, server *http.Server, config settings.Settings) error {
	listener, err := net.Listen("tcp", config.Address)
	if err != nil {
		return fmt.Errorf("GATEWAY_ADDRESS: %w", err)
	}
	ended := make(chan error, 1)
	if config.TLSCertFile == "" {
		go func() { ended <- server.Serve(listener) }()
	} else {
		if server.TLSConfig, err = serverTLS(config); err != nil {
			return err
		}
		go func() { ended <- server.ServeTLS(listener, config.TLSCertFile, config.TLSKeyFile) }()
	}
	slog.Info("serving", "event", "serving", "address", listener.Addr().String(), "server", config.ServerAddress)
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	slog.Info("stopping", "event", "stopping", "seconds", config.StopSeconds)
	late, cancel := context.WithTimeout(context.Background(), config.Stop())
	defer cancel()
	if err := server.Shutdown(late); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return server.Close()
}

func serverTLS(config settings.Settings) (*tls.Config, error) {
	server := &tls.Config{MinVersion: tls.VersionTLS12}
	if config.TLSClientCAFile != "" {
		pool, err := upstream.Authorities(config.TLSClientCAFile)
		if err != nil {
			return nil, fmt.Errorf("GATEWAY_TLS_CLIENT_CA_FILE: %w", err)
		}
		server.ClientCAs, server.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return server, nil
}
