"""What Headrace's workers run: stages, kernels, schemas, storage. Knows no gRPC."""
