package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// A daemon is the program while it serves.
type daemon struct {
	flags   flags
	logger  *slog.Logger
	proxy   *proxy
	meters  metric.MeterProvider
	problem atomic.Value // a string: why the newest settings aren't in force; empty or none: they are
	seen    []byte       // the settings file and those that it names, when they were read last
}

// serve is the program. It returns when ctx has ended and the requests have been answered.
func serve(ctx context.Context, f flags, stdout, stderr io.Writer) error {
	reload := make(chan os.Signal, 1)
	notifyReload(reload)
	defer signal.Stop(reload)
	provider, metrics, err := newMeters()
	if err != nil {
		return err
	}
	d := &daemon{flags: f, logger: newLogger(stderr, f.verbose), meters: provider}
	d.proxy = newProxy(d.logger, f.maxRequests)
	s, err := readSettings(f.config)
	if err != nil {
		return fmt.Errorf("the settings can't be used: %w", err)
	}
	if len(s.listen)+len(f.listenOn) == 0 {
		return fmt.Errorf("the settings can't be used: %s: there is no address to listen on; add listen, such as \"127.0.0.1:8080\"", f.config)
	}
	d.seen = d.look()
	first, err := newRouting(ctx, s, nil, d.logger, d.meters)
	if err != nil {
		return fmt.Errorf("the settings can't be used: %w", err)
	}
	d.proxy.routing.Store(first)
	defer func() { d.proxy.routing.Load().retire(nil) }()
	if f.check {
		fmt.Fprintln(stdout, "the settings are fine")
		return nil
	}
	if err := first.measure(d.meters); err != nil {
		return err
	}

	var servers []*http.Server
	ended := make(chan error, len(s.listen)+len(s.admin)+len(f.listenOn))
	defer func() {
		for _, server := range servers {
			_ = server.Close()
		}
	}()
	admin := adminHandler(d.proxy.routing.Load, &d.problem, metrics)
	for _, group := range []struct {
		purpose   string
		addresses []string
		anywhere  bool
		handler   http.Handler
	}{
		{"routes", s.listen, false, d.proxy}, {"routes", f.listenOn, true, d.proxy}, {"admin", s.admin, false, admin},
	} {
		for _, address := range group.addresses {
			listener, err := listen(ctx, address, group.anywhere)
			if err != nil {
				return err
			}
			if group.anywhere {
				d.logger.Warn("others on the network can use the tokens", "address", listener.Addr().String())
			}
			server := d.newServer(listener, group.handler)
			servers = append(servers, server)
			go func() { ended <- server.Serve(listener) }()
			d.logger.Info("listening", "for", group.purpose, "address", addressOf(listener))
		}
	}
	watching, stopWatching := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		d.watch(watching, reload)
	}()
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	stopWatching()
	<-watched
	d.drain(servers)
	return err
}

func addressOf(listener net.Listener) string {
	if unix, ok := listener.(*unixListener); ok {
		return "unix:" + unix.path
	}
	return "http://" + listener.Addr().String()
}

// newServer returns a server for the programs of this machine.
func (d *daemon) newServer(listener net.Listener, handler http.Handler) *http.Server {
	hosts, port := hostsOf(listener)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC
	return &http.Server{
		Handler: &guard{
			next: handler, hosts: hosts, port: port,
			more: func() map[string]bool { return d.proxy.routing.Load().hosts },
		},
		Protocols:                    protocols,
		ReadHeaderTimeout:            10 * time.Second,
		IdleTimeout:                  2 * time.Minute,
		MaxHeaderBytes:               64 << 10,
		DisableGeneralOptionsHandler: true, // It would answer before the guard.
		ErrorLog:                     quietLog(d.logger),
	}
}

// drain stops listening and waits for the requests that are under way.
func (d *daemon) drain(servers []*http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), d.flags.drain)
	defer cancel()
	done := make(chan error, len(servers))
	for _, server := range servers {
		go func() { done <- server.Shutdown(ctx) }()
	}
	late := false
	for range servers {
		late = <-done != nil || late
	}
	// Shutdown doesn't wait for tunnels.
	for d.proxy.active.Load() > 0 && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	if late || d.proxy.active.Load() > 0 {
		d.logger.Warn("requests were cut off, because they took longer than -drain", "requests", d.proxy.active.Load())
	}
}

const (
	// retryPause is how long new settings wait that couldn't be put in force. The cause may
	// be elsewhere, such as in a file that they name.
	retryPause = 30 * time.Second

	// maxRetryPause bounds the pause, which doubles with each failure that isn't temporary:
	// some servers lock a client that they have refused many times.
	maxRetryPause = 15 * time.Minute
)

// watch puts the settings file in force when it has changed, or when a signal asks for it.
func (d *daemon) watch(ctx context.Context, reload <-chan os.Signal) {
	var tick <-chan time.Time
	if d.flags.watch > 0 {
		ticker := time.NewTicker(d.flags.watch)
		defer ticker.Stop()
		tick = ticker.C
	}
	var retry time.Time // zero: never
	pause := retryPause
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			switch seen := d.look(); {
			case !bytes.Equal(seen, d.seen):
				d.seen, pause = seen, retryPause
			case retry.IsZero() || time.Now().Before(retry):
				continue
			}
		case <-reload:
			d.seen, pause = d.look(), retryPause
		}
		err := d.reload(ctx)
		retry = time.Time{}
		switch {
		case err == nil:
			d.problem.Store("")
			d.logger.Info("the settings have been read again", "file", d.flags.config)
		case ctx.Err() != nil:
			return
		default:
			text := redact.Clip(redact.OneLine(err.Error()), 1000)
			d.problem.Store(text)
			d.logger.Error("the new settings can't be used, so the old ones stay in force", "error", text)
			retry = time.Now().Add(pause)
			if !isTemporary(err) {
				pause = min(2*pause, maxRetryPause)
			}
		}
	}
}

// look returns the content of the settings file, and of the files that are part of it.
func (d *daemon) look() []byte {
	data, _ := os.ReadFile(d.flags.config)
	seen := slices.Clone(data)
	s, err := readSettings(d.flags.config)
	if err != nil {
		return seen
	}
	for _, name := range slices.Sorted(maps.Keys(s.clients)) {
		sum := clientFingerprint(s.clients[name])
		seen = append(seen, sum[:]...)
	}
	sum := s.store.fingerprint()
	return append(seen, sum[:]...)
}

// reload puts the settings file in force if everything in it works.
func (d *daemon) reload(ctx context.Context) error {
	previous := d.proxy.routing.Load()
	s, err := readSettings(d.flags.config)
	if err != nil {
		return err
	}
	if !slices.Equal(s.listen, previous.settings.listen) || !slices.Equal(s.admin, previous.settings.admin) {
		return fmt.Errorf("%s: listen and admin can't change while ccproxy runs; restart it", d.flags.config)
	}
	next, err := newRouting(ctx, s, previous, d.logger, d.meters)
	if err != nil {
		return err
	}
	if err := next.try(ctx, previous); err != nil {
		next.retire(previous)
		return err
	}
	d.proxy.routing.Store(next)
	previous.retire(next)
	return next.measure(d.meters)
}
