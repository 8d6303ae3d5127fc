package hostile

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// A BlackHole is a TCP proxy whose connections can be made to lose what is sent through them,
// as a firewall does that has forgotten them. Its methods are safe for concurrent use.
type BlackHole struct {
	Addr string // its host and port

	mu    sync.Mutex // protects holes
	holes []*atomic.Bool
}

// NewBlackHole returns a proxy for the server at the address target.
func NewBlackHole(tb testing.TB, target string) *BlackHole {
	tb.Helper()
	ctx := tb.Context()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	b := &BlackHole{Addr: listener.Addr().String()}
	var connections sync.WaitGroup
	tb.Cleanup(func() { // The test's context is done by then.
		_ = listener.Close()
		connections.Wait()
	})
	connections.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := new(net.Dialer).DialContext(ctx, "tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			hole := new(atomic.Bool)
			b.mu.Lock()
			b.holes = append(b.holes, hole)
			b.mu.Unlock()
			context.AfterFunc(ctx, func() {
				_ = in.Close()
				_ = out.Close()
			})
			connections.Go(func() { forward(out, in, hole) })
			connections.Go(func() { forward(in, out, hole) })
		}
	})
	return b
}

// Accepted returns the number of connections so far. Swallow finds each of them.
func (b *BlackHole) Accepted() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.holes)
}

// Swallow makes the connections that exist now lose everything. New ones work.
func (b *BlackHole) Swallow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, hole := range b.holes {
		hole.Store(true)
	}
}

// forward copies until an end is closed. Into a hole it copies nothing.
func forward(to io.WriteCloser, from io.Reader, hole *atomic.Bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err == nil && !hole.Load() {
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			if !hole.Load() {
				_ = to.Close()
			}
			return
		}
	}
}
