package grpccredentials_test

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/seed-5bfa0880/clientcredentials/grpccredentials"
)

// A recorder records the codes that callbacks of grpc.OnFinish are called with.
type recorder struct {
	mu    sync.Mutex
	codes []codes.Code
}

func (r *recorder) option() grpc.CallOption {
	return grpc.OnFinish(func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.codes = append(r.codes, status.Code(err))
	})
}

func (r *recorder) require(t *testing.T, want ...codes.Code) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Equal(t, want, r.codes)
}

func TestF36_OnFinishIsCalledOnce(t *testing.T) {
	never := grpccredentials.ReplayIf(func(string, error) bool { return false })
	for name, test := range map[string]struct {
		judge func(context.Context, int) error
		opts  []grpccredentials.Option
		want  codes.Code
	}{
		"accepted":                 {nil, nil, codes.OK},
		"replayed, accepted":       {refuse(1, 1), nil, codes.OK},
		"replayed, refused":        {refuseAll, nil, codes.Unauthenticated},
		"replayed, failed":         {failSecond, nil, codes.NotFound},
		"refused and not replayed": {refuse(1, 1), []grpccredentials.Option{never}, codes.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.api.judge = test.judge
			var byDefault, first, second recorder
			client := w.client(t, append(
				grpccredentials.DialOptions(w.source(t), append(test.opts, plaintext)...),
				grpc.WithDefaultCallOptions(byDefault.option()),
			)...)
			var header, trailer metadata.MD
			var from peer.Peer
			opts := []grpc.CallOption{grpc.Header(&header), first.option(), grpc.Trailer(&trailer), second.option(), grpc.Peer(&from), grpc.MaxCallRecvMsgSize(1 << 20)}
			err := call(t.Context(), client, opts...)
			require.Equal(t, test.want, status.Code(err))
			byDefault.require(t, test.want)
			first.require(t, test.want)
			second.require(t, test.want)
			require.NotNil(t, from.Addr)
			require.Equal(t, test.want == codes.OK, len(header) > 0)
		})
	}
}

func failSecond(_ context.Context, rpc int) error {
	if rpc == 1 {
		return errUnauthenticated
	}
	return status.Error(codes.NotFound, "nothing here")
}

// Streams are never replayed.
func TestF36_OnFinishOfAStream(t *testing.T) {
	for name, want := range map[string]codes.Code{"accepted": codes.OK, "refused": codes.Unauthenticated} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if want != codes.OK {
				w.api.judge = refuse(1, 1)
			}
			var finished recorder
			client := w.withTokens(t)
			stream, err := client.FullDuplexCall(t.Context(), finished.option())
			require.NoError(t, err)
			_ = stream.Send(new(testpb.StreamingOutputCallRequest))
			_ = stream.CloseSend()
			require.Equal(t, want, status.Code(drain(stream, nil)))
			finished.require(t, want)
		})
	}
}

// An interceptor may answer a call by itself, and leave an RPC running.
func TestF36_OnFinishOfALateRPC(t *testing.T) {
	w := newWorld(t)
	proceed, ended := make(chan struct{}), make(chan struct{})
	w.api.judge = func(context.Context, int) error {
		<-proceed
		return nil
	}
	client := w.withTokens(t, interceptor(func(_ context.Context, _ []grpc.CallOption, _ func(...grpc.CallOption) error) error { return nil }))
	var finished recorder
	require.NoError(t, call(t.Context(), client, finished.option()))
	finished.require(t)

	client = w.withTokens(t, interceptor(func(_ context.Context, opts []grpc.CallOption, invoke func(...grpc.CallOption) error) error {
		go func() {
			defer close(ended)
			_ = invoke(opts...)
		}()
		return nil
	}))
	require.NoError(t, call(t.Context(), client, finished.option()))
	finished.require(t)
	close(proceed)
	<-ended
	finished.require(t, codes.OK)
}

// drain receives until a stream ends.
func drain(stream grpc.ServerStreamingClient[testpb.StreamingOutputCallResponse], err error) error {
	for err == nil {
		_, err = stream.Recv()
	}
	return withoutEOF(err)
}
