package workload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

// KubernetesToken returns a source of the service account token in a file of a pod, which
// the kubelet replaces. The file is read at each call.
//
// The pod needs a projected volume with a serviceAccountToken whose audience is the
// authorization server. There is no default path, because the only one that each pod has,
// /var/run/secrets/kubernetes.io/serviceaccount/token, holds a token for the API server of
// the cluster: an authorization server that got it could act as the pod there.
//
// Platforms that mount such a file name it in a variable, such as
// AZURE_FEDERATED_TOKEN_FILE on AKS and AWS_WEB_IDENTITY_TOKEN_FILE on EKS.
func KubernetesToken(path string) clientauth.SecretSource {
	read := clientauth.SecretFile(path)
	return func(ctx context.Context) (string, error) {
		if path == "" {
			return "", errors.New("the path of the Kubernetes token is empty; set it to a token in a projected volume whose audience is the authorization server")
		}
		token, err := read(ctx)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("there is no Kubernetes token: %w; mount a projected volume with a serviceAccountToken there", err)
		case err != nil:
			return "", fmt.Errorf("cannot read the Kubernetes token: %w", err)
		}
		if _, err := jws.UnverifiedClaims(token); err != nil {
			return "", fmt.Errorf("the file %s has no Kubernetes token: %w", path, err)
		}
		return token, nil
	}
}
