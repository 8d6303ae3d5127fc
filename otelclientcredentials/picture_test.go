package otelclientcredentials

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/internal/svg"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// An hour of three replicas that share tokens of ten minutes, and what goes wrong in it.
const (
	hour           = time.Hour
	scrapeInterval = 15 * time.Second
	replicas       = 3
	tokenLife      = 10 * time.Minute
	pause          = 4 * time.Second // between the calls of a replica
)

var incidents = []struct {
	from, to time.Duration
	text     string
	begin    func(h *hourOfReplicas)
	end      func(h *hourOfReplicas)
}{
	{12 * time.Minute, 25 * time.Minute, "Authorization server down from minute 12 to 25", func(h *hourOfReplicas) {
		fault := clientcredentialstest.Unavailable()
		h.auth.SetFault(&fault)
	}, func(h *hourOfReplicas) { h.auth.SetFault(nil) }},
	{32 * time.Minute, 33 * time.Minute, "all tokens revoked in minute 32", func(h *hourOfReplicas) { h.auth.RevokeAll() }, func(*hourOfReplicas) {}},
	{40 * time.Minute, 52 * time.Minute, "store down from minute 40 to 52", func(h *hourOfReplicas) {
		fault := storetest.Unavailable()
		h.store.SetFault(&fault)
	}, func(h *hourOfReplicas) { h.store.SetFault(&wayToStore) }},
}

var wayToStore = storetest.Fault{Delay: 2 * time.Millisecond}

type hourOfReplicas struct {
	auth  *clientcredentialstest.AuthorizationServer
	store *storetest.Store
}

// simulate returns what Prometheus scrapes.
func simulate(t *testing.T) *history {
	h := &history{interval: scrapeInterval}
	testkit.Bubble(t, func(t *testing.T) {
		world := &hourOfReplicas{
			auth: &clientcredentialstest.AuthorizationServer{
				Clients:       []clientcredentialstest.Client{{ID: clientcredentialstest.ClientID, Secret: clientcredentialstest.ClientSecret}},
				TokenLifetime: tokenLife,
				Latency:       200 * time.Millisecond,
			},
			store: new(storetest.Store),
		}
		world.store.SetFault(&wayToStore)
		mux := http.NewServeMux()
		mux.Handle("auth.example/", world.auth)
		mux.Handle("api.example/", &clientcredentialstest.ResourceServer{Issuer: world.auth})
		mux.HandleFunc("api.example/elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example", http.StatusFound)
		})
		mux.HandleFunc("elsewhere.example/", func(http.ResponseWriter, *http.Request) {})
		network := &http.Client{Transport: clientcredentialstest.HandlerTransport(mux)}
		for _, incident := range incidents {
			time.AfterFunc(incident.from, func() { incident.begin(world) })
			time.AfterFunc(incident.to, func() { incident.end(world) })
		}

		billing := clientcredentials.Target{Audience: "billing"}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var all []*telemetry
		for i := range replicas {
			tel := newTelemetry()
			all = append(all, tel)
			options := append(tel.options(attribute.String("clientcredentials.name", "example")), WithTargetName(billing, "billing"))
			observer, err := NewObserver(options...)
			require.NoError(t, err)
			conf := &clientcredentials.Config{
				ClientID:     clientcredentialstest.ClientID,
				ClientSecret: clientcredentialstest.ClientSecret,
				AuthStyle:    oauth2.AuthStyleInHeader,
				TokenURL:     "https://auth.example/token",
				HTTPClient:   network,
				Observer:     observer,
				Store:        clientcredentials.DangerouslyShareInPlaintext(world.store),
			}
			source := conf.Source(ctx)
			_, err = RegisterSource(source, options...)
			require.NoError(t, err)
			client := &http.Client{Transport: &clientcredentials.Transport{Source: source, Base: network.Transport}}
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 50 * time.Millisecond) // They begin almost together.
				for n := 0; ctx.Err() == nil; n++ {
					address, ctx := "https://api.example", ctx
					switch {
					case n%100 == 25:
						address += "/elsewhere"
					case n%5 == 0:
						ctx = clientcredentials.WithTarget(ctx, billing)
					}
					call(ctx, client, address)
					time.Sleep(pause)
				}
			})
		}
		for range hour / scrapeInterval {
			time.Sleep(scrapeInterval)
			now := scrape{}
			for i, tel := range all {
				for _, m := range tel.metrics(t) {
					now.add(m, strconv.Itoa(i))
				}
			}
			h.scrapes = append(h.scrapes, now)
		}
		cancel()
		wg.Wait()
		time.Sleep(time.Minute) // What is still under way ends.
	})
	return h
}

func call(ctx context.Context, client *http.Client, address string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		panic(err)
	}
	if resp, err := client.Do(req); err == nil {
		_ = resp.Body.Close()
	}
}

// add adds what Prometheus reads of m.
func (s scrape) add(m metricdata.Metrics, instance string) {
	names := promNames(m)
	put := func(name string, labels map[string]string, value float64) {
		if s[name] == nil {
			s[name] = map[string]sample{}
		}
		s[name][seriesName(name, labels)] = sample{name, labels, value}
	}
	labels := func(set attribute.Set) map[string]string {
		labels := map[string]string{"job": "example", "instance": instance}
		for _, a := range set.ToSlice() {
			labels[promName(string(a.Key))] = fmt.Sprint(a.Value.AsInterface())
		}
		return labels
	}
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			put(names[0], labels(p.Attributes), float64(p.Value))
		}
	case metricdata.Gauge[float64]:
		for _, p := range data.DataPoints {
			put(names[0], labels(p.Attributes), p.Value)
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			put(names[1], labels(p.Attributes), p.Sum)
			put(names[2], labels(p.Attributes), float64(p.Count))
			total := uint64(0)
			for i, count := range p.BucketCounts {
				total += count
				le := "+Inf"
				if i < len(p.Bounds) {
					le = strconv.FormatFloat(p.Bounds[i], 'g', -1, 64)
				}
				with := labels(p.Attributes)
				with["le"] = le
				put(names[0], with, float64(total))
			}
		}
	}
}

// The picture in the documentation shows the dashboard with metrics of the real library, for an
// hour of simulated time. With -update, TestDashboardPicture writes it. Otherwise it compares
// what the pictures are made of.
func TestDashboardPicture(t *testing.T) {
	svg.Check(t, draw(readDashboard(t), simulate(t)), "dashboard.svg", *update)
}

const (
	pictureWidth = 760
	columns      = 24 // of Grafana's grid
	legendLine   = 15
	plotHeight   = 64
	step         = 4 // scrapes between two points of a line
)

// A line is a series in a panel.
type line struct {
	legend string
	values map[int]float64 // by scrape
}

func draw(d dashboard, h *history) *svg.Picture {
	rows := map[int][]panel{}
	for _, p := range d.Panels {
		rows[p.GridPos.Y] = append(rows[p.GridPos.Y], p)
	}
	lines := map[int][]line{}
	height := 76.0
	heights := map[int]float64{}
	for y, row := range rows {
		for _, p := range row {
			need := 30.0
			switch p.Type {
			case "stat":
				need = 66
			case "timeseries":
				lines[p.ID] = evaluate(p, h)
				need = 52 + plotHeight + legendLine*float64(len(lines[p.ID]))
			}
			heights[y] = max(heights[y], need)
		}
		height += heights[y]
	}
	pic := svg.New(pictureWidth, int(height), "The dashboard, drawn from an hour of simulated time")
	pic.Text(16, 26, svg.Start, svg.Title, d.Title)
	pic.Text(16, 46, svg.Start, svg.Note, "Drawn from a simulated hour of three replicas; this is not a screenshot.")
	var texts []string
	for _, incident := range incidents {
		texts = append(texts, incident.text)
	}
	pic.Text(16, 62, svg.Start, svg.Note, strings.Join(texts, ", ")+".")
	top := 68.0
	for _, y := range slices.Sorted(maps.Keys(rows)) {
		for _, p := range rows[y] {
			left := 16 + float64(p.GridPos.X)/columns*(pictureWidth-24)
			width := float64(p.GridPos.W)/columns*(pictureWidth-24) - 8
			switch p.Type {
			case "row":
				pic.Text(left, top+20, svg.Start, svg.Title, p.Title)
			case "stat":
				drawStat(pic, p, h, left, top, width)
			case "timeseries":
				drawPanel(pic, p, lines[p.ID], left, top, width, heights[y]-8)
			}
		}
		top += heights[y]
	}
	return pic
}

// evaluate returns the series of a panel, sorted by their legends.
func evaluate(p panel, h *history) (lines []line) {
	for _, target := range p.Targets {
		q := parseQuery(target.Expr)
		byLegend := map[string]*line{}
		for n := 0; n < len(h.scrapes); n += step {
			for _, s := range h.eval(q, n) {
				legend := target.LegendFormat
				for _, label := range legendLabels(legend) {
					legend = strings.ReplaceAll(legend, "{{"+label+"}}", s.labels[label])
				}
				if byLegend[legend] == nil {
					byLegend[legend] = &line{legend, map[int]float64{}}
				}
				byLegend[legend].values[n] = s.value
			}
		}
		for _, legend := range slices.Sorted(maps.Keys(byLegend)) {
			lines = append(lines, *byLegend[legend])
		}
	}
	return lines
}

func drawStat(pic *svg.Picture, p panel, h *history, left, top, width float64) {
	pic.Rect(left, top, width, 58, svg.Box)
	pic.Text(left+8, top+17, svg.Start, svg.Small, p.Title)
	if value := h.eval(parseQuery(p.Targets[0].Expr), len(h.scrapes)-1); len(value) > 0 {
		pic.Text(left+width/2, top+46, svg.Middle, svg.Figure, inUnit(value[0].value, p.FieldConfig.Defaults.Unit))
	}
}

func drawPanel(pic *svg.Picture, p panel, lines []line, left, top, width, height float64) {
	pic.Rect(left, top, width, height, svg.Box)
	pic.Text(left+8, top+17, svg.Start, svg.Small, p.Title)
	most := 0.0
	for _, l := range lines {
		for _, value := range l.values {
			most = max(most, value)
		}
	}
	from, bottom := left+56, top+30+plotHeight
	pic.Line(from, bottom, left+width-8, bottom, svg.ThinLine)
	pic.Text(from-5, bottom+4, svg.End, svg.Small, "0")
	if most > 0 {
		pic.Line(from, top+30, left+width-8, top+30, svg.Grid)
		pic.Text(from-5, top+34, svg.End, svg.Value, inUnit(most, p.FieldConfig.Defaults.Unit))
	}
	for i, l := range lines {
		stroke, area := svg.Series(i)
		var path svg.Path
		last := -2 * step
		for n := 0; n < int(hour/scrapeInterval); n += step {
			value, ok := l.values[n]
			if !ok {
				continue
			}
			x := from + (left+width-8-from)*float64(n)/float64(hour/scrapeInterval)
			y := bottom - value/most*plotHeight
			if last == n-step {
				path.To(x, y)
			} else {
				path.Move(x-2, y) // A point alone must be seen, too.
				path.To(x, y)
			}
			last = n
		}
		pic.Draw(&path, stroke)
		y := bottom + 20 + legendLine*float64(i)
		pic.Rect(left+10, y-7, 10, 4, area)
		pic.Text(left+26, y, svg.Start, svg.Small, l.legend)
	}
}

func inUnit(value float64, unit string) string {
	switch unit {
	case "percentunit":
		return fmt.Sprintf("%.1f%%", 100*value)
	case "s":
		switch {
		case value < 1:
			return fmt.Sprintf("%.3g ms", 1000*value)
		case value < 60:
			return fmt.Sprintf("%.3g s", value)
		}
		return fmt.Sprintf("%.3g min", value/60)
	case "cpm":
		return fmt.Sprintf("%.3g/min", value)
	case "reqps":
		return fmt.Sprintf("%.3g/s", value)
	}
	return fmt.Sprintf("%.3g", value)
}
