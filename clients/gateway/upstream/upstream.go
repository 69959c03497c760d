// Package upstream is the connection to the Headrace server.
package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"headrace.internal/clients/gateway/settings"
	headracev1 "headrace.internal/clients/go/headrace/v1"
)

const (
	userAgent = "headrace-gateway"
	// The server's own bound is 4 MiB for a message of one row.
	maxMessageBytes = 16 << 20
	writeBytes      = 128 << 10
	// A run may be silent for long, and a server that lost its power sends no FIN.
	keepaliveTime = 20 * time.Second
)

// Dial prepares the connection; it connects with the first call, and again whenever it has to.
func Dial(config settings.Settings) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if config.ServerTLS {
		client, err := clientTLS(config)
		if err != nil {
			return nil, err
		}
		transport = credentials.NewTLS(client)
	}
	// By default gRPC does not look for a server that was away for long until two minutes after it is back.
	reconnect := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
		MinConnectTimeout: 5 * time.Second,
	}
	return grpc.NewClient(config.ServerAddress,
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent(userAgent),
		grpc.WithConnectParams(reconnect),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTime}),
		grpc.WithWriteBufferSize(writeBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithChainUnaryInterceptor(deadline(config.Call())),
	)
}

// deadline ends calls that take longer, but for VerifyTable, which is work as a run's is.
func deadline(limit time.Duration) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn,
		invoke grpc.UnaryInvoker, options ...grpc.CallOption,
	) error {
		if method != headracev1.PipelineService_VerifyTable_FullMethodName {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		return invoke(ctx, method, request, reply, conn, options...)
	}
}

func clientTLS(config settings.Settings) (*tls.Config, error) {
	client := &tls.Config{MinVersion: tls.VersionTLS12}
	if config.ServerCAFile != "" {
		pool, err := Authorities(config.ServerCAFile)
		if err != nil {
			return nil, err
		}
		client.RootCAs = pool
	}
	if config.ServerCertFile != "" {
		pair, err := tls.LoadX509KeyPair(config.ServerCertFile, config.ServerKeyFile)
		if err != nil {
			return nil, fmt.Errorf("GATEWAY_SERVER_CERT_FILE: %w", err)
		}
		client.Certificates = []tls.Certificate{pair}
	}
	return client, nil
}

// Authorities reads the certificates of a PEM file.
func Authorities(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM", file)
	}
	return pool, nil
}
