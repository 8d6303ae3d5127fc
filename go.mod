module github.com/seed-5bfa0880/clientcredentials

go 1.25.0

require (
	github.com/stretchr/testify v1.12.1
	golang.org/x/oauth2 v0.27.0
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect
