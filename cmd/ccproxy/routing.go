package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
	"github.com/seed-5bfa0880/clientcredentials/otelclientcredentials"
)

// A route sends requests to an upstream, with a token.
type route struct {
	routeSettings
	source *clientcredentials.Source // for the route's target
	inner  []string                  // prefixes within that of this route, for which there are other routes
	proxy  httputil.ReverseProxy
	gauge  metric.Registration
}

// A routing is what the settings file says, ready for use. It doesn't change.
type routing struct {
	settings *settings
	clients  map[string]*client
	routes   []*route // those with a host first, and the longest paths first
	hosts    map[string]bool
	store    *store // nil: tokens aren't shared
}

// newRouting returns the routing for settings. It keeps the store of the previous routing if it
// hasn't changed. Then it also keeps the clients that haven't changed, and thereby their tokens.
// previous may be nil.
func newRouting(ctx context.Context, s *settings, previous *routing, logger *slog.Logger, meters metric.MeterProvider) (_ *routing, err error) {
	r := &routing{settings: s, clients: make(map[string]*client), hosts: make(map[string]bool)}
	switch {
	case s.store == nil:
	case previous != nil && previous.store != nil && previous.store.fingerprint == s.store.fingerprint():
		r.store = previous.store
	default:
		if r.store, err = newStore(ctx, s.store); err != nil {
			return nil, fmt.Errorf("the store: %w", err)
		}
	}
	defer func() {
		if err != nil {
			r.retire(previous)
		}
	}()
	for _, host := range s.hosts {
		r.hosts[host] = true
	}
	for name, options := range s.clients {
		if previous != nil && previous.store == r.store {
			if same := previous.clients[name]; same != nil && same.fingerprint == clientFingerprint(options) {
				r.clients[name] = same
				continue
			}
		}
		measured, err := otelclientcredentials.NewObserver(otelclientcredentials.WithMeterProvider(meters), named(name))
		if err != nil {
			return nil, err
		}
		logged := clientcredentials.SlogObserver(logger.With("client", name))
		c, err := newClient(ctx, options, r.store.config(), clientcredentials.JoinObservers(logged, measured, r.store.observer()))
		if err != nil {
			return nil, fmt.Errorf("the client %q: %w", name, err)
		}
		r.clients[name] = c
	}
	for _, rs := range s.routes {
		c := r.clients[rs.client]
		source := c.source.For(rs.target)
		route := &route{routeSettings: rs, source: source}
		route.serveWith(&clientcredentials.Transport{Source: source, Base: c.base, Origins: []string{origin.Of(rs.upstream).String()}}, logger)
		r.routes = append(r.routes, route)
		if rs.host != "" {
			r.hosts[rs.host] = true
		}
	}
	for _, outer := range r.routes {
		for _, inner := range r.routes {
			if (outer.host == "" || outer.host == inner.host) && inner.prefix != outer.prefix && strings.HasPrefix(inner.prefix, outer.prefix) {
				outer.inner = append(outer.inner, inner.prefix)
			}
		}
	}
	slices.SortStableFunc(r.routes, func(a, b *route) int {
		return cmp.Or(cmp.Compare(len(b.host), len(a.host)), cmp.Compare(len(b.prefix), len(a.prefix)))
	})
	return r, nil
}

func named(client string) otelclientcredentials.Option {
	return otelclientcredentials.WithAttributes(attribute.String("clientcredentials.name", client))
}

// try requests a token for each route whose token previous doesn't use, so that a
// mistake in new settings shows before they replace others that work.
func (r *routing) try(ctx context.Context, previous *routing) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, next := range r.routes {
		if slices.ContainsFunc(previous.routes, func(p *route) bool { return p.source == next.source }) {
			continue
		}
		if _, err := next.source.TokenContext(ctx); err != nil {
			return fmt.Errorf("there is no token for the route %s: %w", next.name(), answered(err))
		}
	}
	return nil
}

// measure registers the gauges of the routes.
func (r *routing) measure(meters metric.MeterProvider) (err error) {
	for _, route := range r.routes {
		attributes := otelclientcredentials.WithAttributes(
			attribute.String("clientcredentials.name", route.client), attribute.String("ccproxy.route", route.name()))
		route.gauge, err = otelclientcredentials.RegisterSource(route.source, otelclientcredentials.WithMeterProvider(meters), attributes)
		if err != nil {
			return err
		}
	}
	return nil
}

// retire ends what next, which replaces r, doesn't need. Requests under way end as they would.
func (r *routing) retire(next *routing) {
	for _, route := range r.routes {
		if route.gauge != nil {
			_ = route.gauge.Unregister()
		}
	}
	for name, c := range r.clients {
		if next == nil || next.clients[name] != c {
			c.base.CloseIdleConnections()
		}
	}
	if next == nil || next.store != r.store {
		r.store.close()
	}
}

// match returns the route for a request, or nil.
func (r *routing) match(host, escapedPath string) *route {
	host = hostname(host)
	for _, route := range r.routes {
		if (route.host == "" || route.host == host) &&
			(strings.HasPrefix(escapedPath, route.prefix) || escapedPath+"/" == route.prefix) {
			return route
		}
	}
	return nil
}

// hostname returns the host in a Host header field, in lower case and without its port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return ascii.Lower(host)
}

var errPath = errors.New("the path has a segment such as .. that leads to another folder")

// outgoing returns the address at the upstream for the address of a request.
func (r *route) outgoing(in *url.URL) (*url.URL, error) {
	escaped := in.EscapedPath()
	if hasDotSegment(in.Path) {
		return nil, errPath
	}
	out := *r.upstream
	rest, found := strings.CutPrefix(escaped, r.prefix)
	base := r.upstream.EscapedPath()
	if !found { // The prefix without its last slash.
		base, rest = strings.TrimSuffix(base, "/"), ""
	}
	var err error
	out.RawPath = base + rest
	if out.Path, err = url.PathUnescape(out.RawPath); err != nil {
		return nil, err
	}
	out.RawQuery, out.ForceQuery = in.RawQuery, in.ForceQuery
	return &out, nil
}

// incoming returns the address at the proxy for an address that the upstream has sent, such as
// that of a redirect. If this route doesn't lead there, it returns the whole address: a program
// would resolve a relative one against the proxy, and get to another route, with its token.
// It returns "" for what programs may read in different ways.
func (r *route) incoming(location string, request *url.URL) string {
	said, err := url.Parse(location)
	if err != nil {
		return ""
	}
	u := request.ResolveReference(said)
	if u.Host == "" { // Some programs take http:/path for a relative address.
		return ""
	}
	if in := r.below(u); in != nil {
		return in.String()
	}
	if said.IsAbs() {
		return location // String might write it in another way.
	}
	return u.String()
}

// below returns the address at the proxy for an address at the upstream. It returns nil if this
// route doesn't lead there.
func (r *route) below(u *url.URL) *url.URL {
	rest, found := strings.CutPrefix(u.EscapedPath(), r.upstream.EscapedPath())
	if !found || origin.Of(u) != origin.Of(r.upstream) || u.User != nil || hasDotSegment(u.Path) {
		return nil
	}
	in := &url.URL{RawPath: r.prefix + rest, RawQuery: u.RawQuery, ForceQuery: u.ForceQuery, Fragment: u.Fragment, RawFragment: u.RawFragment}
	var err error
	if in.Path, err = url.PathUnescape(in.RawPath); err != nil || strings.HasPrefix(in.Path, "//") {
		return nil // Two slashes would begin the name of a host.
	}
	for _, prefix := range r.inner {
		if strings.HasPrefix(in.Path+"/", prefix) {
			return nil
		}
	}
	return in
}
