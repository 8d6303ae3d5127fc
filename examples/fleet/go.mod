module github.com/seed-5bfa0880/clientcredentials/examples/fleet

go 1.25.0

require (
	github.com/redis/go-redis/v9 v9.21.0
	github.com/seed-5bfa0880/clientcredentials v0.0.0
	github.com/seed-5bfa0880/clientcredentials/redisstore v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	go.uber.org/atomic v1.11.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/oauth2 v0.36.0 // indirect
)

replace (
	github.com/seed-5bfa0880/clientcredentials => ../..
	github.com/seed-5bfa0880/clientcredentials/redisstore => ../../redisstore
)
