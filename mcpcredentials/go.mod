module github.com/seed-5bfa0880/clientcredentials/mcpcredentials

go 1.25.0

require (
	github.com/modelcontextprotocol/go-sdk v1.8.0
	github.com/seed-5bfa0880/clientcredentials v0.0.0
	golang.org/x/oauth2 v0.36.0
)

require (
	github.com/segmentio/asm v1.1.3 // indirect
	github.com/segmentio/encoding v0.5.4 // indirect
	golang.org/x/sys v0.41.0 // indirect
)

replace github.com/seed-5bfa0880/clientcredentials => ../
