module github.com/seed-5bfa0880/clientcredentials/natsstore

go 1.25.0

require (
	github.com/nats-io/nats-server/v2 v2.11.3
	github.com/nats-io/nats.go v1.41.2
	github.com/seed-5bfa0880/clientcredentials v0.0.0
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
	golang.org/x/oauth2 v0.27.0
)

require (
	github.com/google/go-tpm v0.9.3 // indirect
	github.com/klauspost/compress v1.18.0 // indirect
	github.com/minio/highwayhash v1.0.3 // indirect
	github.com/nats-io/jwt/v2 v2.7.4 // indirect
	github.com/nats-io/nkeys v0.4.11 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.37.0 // indirect
	golang.org/x/sys v0.32.0 // indirect
	golang.org/x/time v0.11.0 // indirect
)

replace github.com/seed-5bfa0880/clientcredentials => ../
