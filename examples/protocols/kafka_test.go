package protocols

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const topic = "events"

// startKafka starts a broker that authenticates clients with OAUTHBEARER. A session lives as
// long as its token, as that of a real broker does (KIP-368).
func (w *world) startKafka(t *testing.T) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return w.pipes, nil }))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	cluster.ControlKey(int16(kmsg.SASLHandshake), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp := r.ResponseKind().(*kmsg.SASLHandshakeResponse)
		if r.(*kmsg.SASLHandshakeRequest).Mechanism != "OAUTHBEARER" {
			resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		}
		return resp, nil, true
	})
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp := r.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		token, found := strings.CutPrefix(string(r.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes), "n,,\x01auth=Bearer ")
		resp.SessionLifetimeMillis = w.arrives(strings.TrimSuffix(token, "\x01\x01")).Milliseconds()
		if !found || resp.SessionLifetimeMillis == 0 {
			resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		}
		return resp, nil, true
	})
}

// franz returns a client that keeps its connections open.
func (w *world) franz(t *testing.T) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(w.pipes.Addr().String()),
		kgo.Dialer(w.pipes.DialContext),
		kgo.SASL(FranzMechanism(w.source)),
		kgo.ConnIdleTimeout(10*time.Minute),
	)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

func TestFranz(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.startKafka(t)
		client := w.franz(t)
		w.requireRefresh(t, 5*time.Second, func(ctx context.Context) error {
			return client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("hello")}).FirstErr()
		})
	})
	bubble(t, func(t *testing.T, w *world) {
		w.startKafka(t)
		w.requireWait(t, w.franz(t).Ping)
	})
}

func TestSarama(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.startKafka(t)
		conf := sarama.NewConfig()
		UseSaramaTokens(conf, &SaramaTokens{Context: t.Context(), Source: w.source, Timeout: 10 * time.Second})
		conf.Net.TLS.Enable = false // The network of the test has no TLS.
		conf.Net.Proxy.Enable, conf.Net.Proxy.Dialer = true, w.pipes
		conf.Producer.Return.Successes = true
		producer, err := sarama.NewSyncProducer([]string{w.pipes.Addr().String()}, conf)
		require.NoError(t, err)
		defer producer.Close()
		// Sarama holds a mutex while it asks for a token. In a bubble, time stands still then.
		w.requireRefresh(t, 0, func(context.Context) error {
			_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder("hello")})
			return err
		})
	})
	bubble(t, func(t *testing.T, w *world) {
		w.requireWait(t, func(ctx context.Context) error {
			tokens := &SaramaTokens{Context: t.Context(), Source: w.source, Timeout: time.Minute}
			if end, limited := ctx.Deadline(); limited {
				tokens.Timeout = time.Until(end)
			}
			token, err := tokens.Token()
			if err == nil {
				w.arrives(token.Token)
			}
			return err
		})
	})
}
