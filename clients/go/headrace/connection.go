package headrace

import (
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// Connect is [grpc.NewClient] with the settings that uploads want, which options may change. A connection is pinged, as
// a server that has lost its power says nothing; and is made again within two seconds, where gRPC would not look for a
// server that was away for long until up to two minutes after it is back.
func Connect(address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	defaults := []grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 20 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: backoffBase, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 20 * time.Second,
		}),
	}
	return grpc.NewClient(address, append(defaults, options...)...)
}
