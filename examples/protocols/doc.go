// Package protocols shows how to give the tokens of one Source to programs that don't speak
// plain HTTP, and to libraries with an interface of their own for tokens. Each file is a
// recipe to copy:
//
//   - franz.go and sarama.go: Kafka
//   - rabbitmq.go: RabbitMQ
//   - postgres.go: PostgreSQL, with OAUTHBEARER or with a token as the password
//   - azcore.go, google.go and smithy.go: the SDKs of Azure, Google Cloud and AWS
//   - connect.go: Connect RPC
//   - kubernetes.go: the API server of Kubernetes
//
// The tests show each of them at work: which token arrives, and which one after a refresh.
//
//	go -C examples/protocols test -v .
//
// Share one Source among all of them. It keeps the token, replaces it before it expires, and
// makes one token request for all callers. Each recipe waits for a token no longer than the
// context of its caller allows.
//
// The protocols carry the text of a token and nothing else. Tokens that are bound to a key or
// a certificate need more than that, so don't set Config.DPoP for them.
//
// A service may refuse a token before its expiry, because the token was revoked. Report that
// with Source.Reject, and the next call requests a new one. Only the transport for Kubernetes
// does that by itself.
//
// The package is a module of its own, so that this library depends on none of these libraries.
package protocols
