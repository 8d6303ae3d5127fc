// Package newest makes `go mod tidy` keep the newest versions of the libraries that our
// modules require in tools/go.mod, where Dependabot raises them. `make test-newest` runs
// the tests of these modules with them. The go.mod of a module itself asks for the oldest
// versions that work.
package newest

import (
	// A small package of each library. The linters require testify by themselves.
	_ "github.com/modelcontextprotocol/go-sdk/jsonrpc"
	_ "github.com/nats-io/nats-server/v2/conf"
	_ "github.com/nats-io/nats.go"
	_ "github.com/redis/go-redis/v9"
	_ "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	_ "go.opentelemetry.io/otel"
	_ "go.opentelemetry.io/otel/metric"
	_ "go.opentelemetry.io/otel/sdk/instrumentation"
	_ "go.opentelemetry.io/otel/sdk/metric/metricdata"
	_ "go.opentelemetry.io/otel/trace"
	_ "go.uber.org/goleak"
	_ "golang.org/x/oauth2"
	_ "google.golang.org/grpc/codes"
)
