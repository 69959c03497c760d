"""A real MinIO and a real Kafka on loopback, without Docker: for tests, the demo and developers.

`start_minio` and `start_kafka` return running servers that can be stopped, killed, paused and started again;
`python -m brokers start` starts both for a developer. Linux only. What they need is built or fetched once:
MinIO with Go, Kafka's jars with Maven, into `~/.cache/headrace/brokers/`.
"""
