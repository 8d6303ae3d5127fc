package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
	"github.com/seed-5bfa0880/clientcredentials/internal/clientsettings"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
)

// Settings are the content of a settings file.
type settings struct {
	listen, admin []string                     // addresses
	hosts         []string                     // further values of Host
	clients       map[string]map[string]string // the options of each client, by its name
	routes        []routeSettings
	store         *storeSettings // nil: tokens aren't shared
}

// routeSettings say where requests go, and with which token.
type routeSettings struct {
	host, prefix string // which requests; one of them may be empty
	upstream     *url.URL
	client       string
	target       clientcredentials.Target
}

// name identifies a route in logs, metrics and /healthz.
func (r *routeSettings) name() string { return r.host + r.prefix }

// readSettings reads a file of settings.
func readSettings(path string) (*settings, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := parseSettings(data, filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// parseSettings reads settings. Paths in them are relative to dir.
func parseSettings(data []byte, dir string) (*settings, error) {
	document, root := newDocument(data)
	s := &settings{
		listen:  root.texts("listen"),
		admin:   root.texts("admin"),
		hosts:   root.texts("hosts"),
		clients: make(map[string]map[string]string),
	}
	for _, addresses := range [][]string{s.listen, s.admin} {
		for i, address := range addresses {
			addresses[i] = inFolder(dir, address)
		}
	}
	for i, host := range s.hosts {
		s.hosts[i] = ascii.Lower(host)
	}
	clients := root.object("clients")
	for name := range clients.members {
		clients.client(s, name, dir)
	}
	for _, o := range root.objects("routes") {
		r := o.route()
		if s.clients[r.client] == nil {
			o.fail("client", "must be the name of one of the clients")
		}
		if slices.ContainsFunc(s.routes, func(other routeSettings) bool { return other.name() == r.name() }) {
			document.fail(o.path, "there is another route for the same host and path; change one")
		}
		s.routes = append(s.routes, r)
	}
	if _, ok := root.member("store"); ok {
		s.store = root.object("store").store(dir)
	}
	root.done()
	if document.err != nil {
		return nil, document.err
	}
	return s, nil
}

// client reads the options of a client: an object, or the name of a file for cctoken -config.
func (o *object) client(s *settings, name, dir string) {
	var members *object
	if raw, _ := o.member(name); len(raw) > 0 && raw[0] == '"' {
		path := clientsettings.InFolder(dir, o.text(name))
		data, err := os.ReadFile(path)
		if err != nil {
			o.fail(name, "can't be read: %w", err)
			return
		}
		dir = filepath.Dir(path)
		_, members = newDocument(data)
		defer func() {
			if err := members.document.err; err != nil {
				o.fail(name, "can't be used: %s: %w", path, err)
			}
		}()
	} else {
		members = o.object(name)
	}
	s.clients[name] = make(map[string]string)
	for member, raw := range members.members {
		values, err := clientsettings.Values(map[string]json.RawMessage{member: raw}, dir)
		if err != nil {
			members.document.fail(members.at(member), "%w", err)
		}
		maps.Copy(s.clients[name], values)
	}
}

// plainPath matches paths that look the same in every encoding.
var plainPath = regexp.MustCompile(`^/([A-Za-z0-9._~-]+/)*$`)

// route reads a route.
func (o *object) route() (r routeSettings) {
	r.host, r.prefix, r.client = ascii.Lower(o.text("host")), o.text("path"), o.text("client")
	upstream, allowHTTP := o.text("upstream"), o.truth("dangerously_allow_http")
	r.target = clientcredentials.Target{Resources: o.texts("resource"), Audience: o.text("audience")}
	if scopes := strings.Fields(o.text("scopes")); len(scopes) > 0 {
		r.target.Scopes = scopes
	}
	o.done()
	switch {
	case r.host == "" && r.prefix == "":
		o.document.fail(o.path, "there is neither host nor path; give the route one of them")
	case r.host != "" && (origin.IsThisHost(r.host) || strings.ContainsAny(r.host, "/:@ ")):
		o.fail("host", "must be a host name without port, other than that of this machine")
	case r.prefix != "" && (!plainPath.MatchString(r.prefix) || hasDotSegment(r.prefix)):
		o.fail("path", "must begin and end with /, and contain only letters, digits and - . _ ~ in between, such as /reports/")
	}
	if r.prefix == "" {
		r.prefix = "/"
	}
	u, err := url.Parse(upstream)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		!ascii.EqualFold(u.Scheme, "https") && !ascii.EqualFold(u.Scheme, "http") {
		o.fail("upstream", "must be the address of an API, such as https://api.example.com/v1/")
		return r
	}
	if origin.IsCleartext(u) && !allowHTTP {
		o.fail("upstream", "is http, so that others on the network could read the token; use https, or set dangerously_allow_http to true")
	}
	if !strings.HasSuffix(u.Path, "/") {
		u = u.JoinPath("/")
	}
	r.upstream = u
	return r
}

// hasDotSegment reports whether a path, without percent-encoding, has a segment that leads to
// another folder. Some servers take a backslash for a slash.
func hasDotSegment(path string) bool {
	for segment := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		segment, _, _ = strings.Cut(segment, ";") // Some servers ignore parameters here.
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}
