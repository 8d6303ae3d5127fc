package protocols

import (
	"context"
	"net/http"
	"net/url"
	"testing"
	"time"

	"cloud.google.com/go/auth/httptransport"
	"connectrpc.com/connect"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/aws/smithy-go/auth/bearer"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/emptypb"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// TestSDKs uses each SDK with a token that is refreshed, and with a context that ends.
func TestSDKs(t *testing.T) {
	for name, client := range map[string]func(*testing.T, *world) func(context.Context) error{
		"azcore":     azcoreClient,
		"google":     googleClient,
		"smithy":     smithyClient,
		"connect":    connectClient,
		"streams":    connectStreams,
		"kubernetes": kubernetesClient,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) { w.requireRefresh(t, 5*time.Second, client(t, w)) })
			bubble(t, func(t *testing.T, w *world) { w.requireWait(t, client(t, w)) })
			bubble(t, func(t *testing.T, w *world) { w.requireRefusal(t, client(t, w)) })
		})
	}
}

const scope = "https://api.example/.default"

func azcoreClient(_ *testing.T, w *world) func(context.Context) error {
	credential := &AzureCredential{Source: w.source}
	pipeline := runtime.NewPipeline("test", "v1.0.0",
		runtime.PipelineOptions{PerRetry: []policy.Policy{runtime.NewBearerTokenPolicy(credential, []string{scope}, nil)}},
		&policy.ClientOptions{Transport: w.client})
	return func(ctx context.Context) error {
		return w.get(ctx, func(r *http.Request) (*http.Response, error) {
			req, err := runtime.NewRequest(r.Context(), r.Method, r.URL.String())
			if err != nil {
				return nil, err
			}
			return pipeline.Do(req)
		})
	}
}

// A service that revokes tokens asks for other claims.
func TestAzureClaims(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.api.Scope = scope
		use := azcoreClient(t, w)
		require.NoError(t, use(t.Context()))
		const claims = `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`
		w.api.SetClaims(claims)
		require.NoError(t, use(t.Context()))
		require.Equal(t, 2, w.api.Accepted())
		token, _ := w.auth.Introspect(w.tokens()[1])
		require.JSONEq(t, claims, token.Claims)
		require.Equal(t, []string{scope}, token.Scopes)
	})
}

func googleClient(t *testing.T, w *world) func(context.Context) error {
	client := &http.Client{Transport: w.client.Transport}
	require.NoError(t, httptransport.AddAuthorizationMiddleware(client, GoogleCredentials(w.source)))
	return func(ctx context.Context) error { return w.get(ctx, client.Do) }
}

func smithyClient(t *testing.T, w *world) func(context.Context) error {
	stack := middleware.NewStack("Call", smithyhttp.NewStackRequest)
	require.NoError(t, stack.Serialize.Add(middleware.SerializeMiddlewareFunc("address", func(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (middleware.SerializeOutput, middleware.Metadata, error) {
		in.Request.(*smithyhttp.Request).URL = &url.URL{Scheme: "https", Host: "api.example", Path: "/"}
		return next.HandleSerialize(ctx, in)
	}), middleware.After))
	require.NoError(t, bearer.AddAuthenticationMiddleware(stack, bearer.NewSignHTTPSMessage(), SmithyTokens(w.source)))
	require.NoError(t, stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("body", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleDeserialize(ctx, in)
		if resp, ok := out.RawResponse.(*smithyhttp.Response); ok {
			_ = resp.Body.Close()
		}
		return out, metadata, err
	}), middleware.After))
	handler := middleware.DecorateHandler(smithyhttp.NewClientHandlerWithOptions(w.client), stack)
	return func(ctx context.Context) error {
		_, _, err := handler.Handle(ctx, nil)
		return err
	}
}

type empty = connect.Request[emptypb.Empty]

func (w *world) connect(handler http.Handler) *connect.Client[emptypb.Empty, emptypb.Empty] {
	w.api.Handler = handler
	return connect.NewClient[emptypb.Empty, emptypb.Empty](w.client, "https://api.example/service/Call",
		connect.WithInterceptors(&ConnectTokens{Source: w.source}))
}

func connectClient(_ *testing.T, w *world) func(context.Context) error {
	client := w.connect(connect.NewUnaryHandler("/service/Call", func(context.Context, *empty) (*connect.Response[emptypb.Empty], error) {
		return connect.NewResponse(&emptypb.Empty{}), nil
	}))
	return func(ctx context.Context) error {
		_, err := client.CallUnary(ctx, connect.NewRequest(&emptypb.Empty{}))
		return err
	}
}

func connectStreams(_ *testing.T, w *world) func(context.Context) error {
	client := w.connect(connect.NewServerStreamHandler("/service/Call", func(_ context.Context, _ *empty, stream *connect.ServerStream[emptypb.Empty]) error {
		return stream.Send(&emptypb.Empty{})
	}))
	return func(ctx context.Context) error {
		stream, err := client.CallServerStream(ctx, connect.NewRequest(&emptypb.Empty{}))
		if err != nil {
			return err
		}
		defer stream.Close()
		for stream.Receive() {
			continue
		}
		return stream.Err()
	}
}

func kubernetesClient(t *testing.T, w *world) func(context.Context) error {
	conf := &rest.Config{Host: "https://api.example", Transport: w.client.Transport}
	conf.NegotiatedSerializer = serializer.NewCodecFactory(k8sruntime.NewScheme()).WithoutConversion()
	UseForKubernetes(conf, w.source)
	client, err := rest.UnversionedRESTClientFor(conf)
	require.NoError(t, err)
	return func(ctx context.Context) error { return client.Get().AbsPath("/version").Do(ctx).Error() }
}
